"""``headrace mock``: an exact server whose every delay and fault is set."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace.bench.mock.server import Mock
    from headrace.bench.mock.settings import MockSettings


def mock(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with these settings; flags go before it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8100,
    ttft: Annotated[
        str | None,
        typer.Option(help="Time to first token: 50ms, normal:50ms,10ms, uniform:20ms..80ms, ..."),
    ] = None,
    itl: Annotated[
        str | None, typer.Option(help="Time between two tokens, in the same forms.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Length of an answer: 100, normal:100,20, uniform:50..150.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model's name; another one is answered with 404. May be repeated."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The key that callers must show.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="What chance begins with: equal seeds, equal answers.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="So many are served at once; the others wait.")
    ] = None,
    itl_per_stream: Annotated[
        str | None, typer.Option(help="What each other answer in progress adds to a gap.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND:SHARE[,name=value...], such as error:5%,status=429,retry_after_s=1 or "
            "stall:0.01,lasts=2s,after=10. Kinds: error, stall, reset, cut, not_json, endless, "
            "no_usage. May be repeated."
        ),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="LASTS/EVERY: the whole server stands still, as in 1s/5s.")
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests a second, above which 429 is said.")
    ] = None,
    slow_start: Annotated[
        str | None,
        typer.Option(help="FACTOR/LASTS: slower first tokens in the beginning, as in 5/10s."),
    ] = None,
    refuse_for: Annotated[
        str | None, typer.Option(help="Connections are refused for so long at first.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Spin for the last 0.1 ms of each wait: takes CPU.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Address, settings and summary as lines of JSON.")
    ] = False,
) -> None:
    """Serve made-up answers at exact instants, to test load generators and applications."""
    from headrace.bench.mock.run import serve
    from headrace.bench.mock.server import listen_on, url_of
    from headrace.bench.mock.settings import read_fault, read_freeze, read_settings, read_slow_start

    given: dict[str, Any] = {
        "ttft": ttft,
        "itl": itl,
        "tokens": tokens,
        "model": tuple(model) if model else None,
        "key": key,
        "seed": seed,
        "slots": slots,
        "itl_per_stream": itl_per_stream,
        "faults": tuple(map(read_fault, fault)) if fault else None,
        "freeze": None if freeze is None else read_freeze(freeze),
        "rate_limit": rate_limit,
        "slow_start": None if slow_start is None else read_slow_start(slow_start),
        "refuse_for": refuse_for,
        "exact": exact or None,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(config, overrides)
    listener = listen_on(host, port)
    url = url_of(listener)
    with contextlib.closing(listener):
        served = serve(listener, settings, lambda: _announce(url, settings, as_json))
    _summarise(served, as_json)


def _announce(url: str, settings: MockSettings, as_json: bool) -> None:
    from headrace.bench.mock.settings import shown

    told = shown(settings)
    if as_json:
        _say(json.dumps({"url": url, "settings": told}))
        return
    _say(f"headrace mock at {url}")
    _say("  " + "   ".join(f"{name}: {value}" for name, value in told.items()))
    _say("  lateness: /lateness   metrics: /metrics   health: /health   stop: Ctrl-C")


def _summarise(served: Mock, as_json: bool) -> None:
    from headrace.bench.mock.replies import late_ms

    late = late_ms(served)
    if as_json:
        answers = sum(served.answered.values())
        _say(json.dumps({"answers": answers, "tokens": served.tokens, "lateness": late}))
    elif late["count"]:
        _say(
            f"written late by p50 {late['p50_ms']:.3f} ms, p99 {late['p99_ms']:.3f} ms, at most "
            f"{late['max_ms']:.3f} ms ({late['count']} writes)"
        )
    else:
        _say("nobody asked for anything")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
