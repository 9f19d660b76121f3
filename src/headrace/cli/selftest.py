"""``headrace selftest``: up to where load-test figures of this machine can be trusted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.bench.load.selftest import Lateness, Step

_PATIENCE_S = 20.0


def selftest(
    streams: Annotated[
        str | None, typer.Option(help="Streams at once to try, as 1,32,256. [default: 1 to 512]")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(help="Requests a second to try. [default: 50 to 1600]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Drive a server of known delays at rising load, and say what this machine measures well.

    It takes about a minute. Do it before you judge a server, on the machine that will send the load.
    """
    from headrace.bench.load import selftest as test
    from headrace.bench.load.run import load
    from headrace.cli.output import print_json

    wanted = _numbers(streams, "--streams") or list(test.STREAMS)
    paces = _numbers(rates, "--rates") or list(test.RATES)
    with _mock() as (url, told, own_core):
        if not as_json:
            typer.echo(_opening(own_core))
            typer.echo(_HEAD)
        found = test.selftest(
            url,
            load,
            told,
            streams=wanted,
            rates=paces,
            watch=(lambda step: None) if as_json else (lambda step: typer.echo(_line(step))),
        )
    if as_json:
        print_json(found)
        return
    typer.echo("")
    for sentence in test.conclusion(found):
        typer.echo(sentence)


_HEAD = (
    f"{'load':16} {'pieces/s':>9} {'TTFT p50':>9} {'p99':>8} {'ITL p50':>8} {'p99':>8} "
    f"{'off by':>7} {'CPU':>6} {'mock p99':>9}  verdict"
)


def _opening(own_core: bool) -> str:
    from headrace.bench.load.selftest import ITL_MS, TOKENS, TTFT_MS

    where = "on a core of its own" if own_core else "on the same core: there is but one"
    return (
        f"A mock server {where}: first token after {TTFT_MS:g} ms, {TOKENS} tokens, one every "
        f"{ITL_MS:g} ms; times in ms."
    )


def _line(step: Step) -> str:
    def of(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    said = "good" if step.good else "mock late" if step.server_late else "wrong"
    return (
        f"{step.what:16} {step.chunks_per_s:9,.0f} {of(step.ttft_p50, '.2f'):>9} "
        f"{of(step.ttft_p99, '.2f'):>8} {of(step.itl_p50, '.2f'):>8} {of(step.itl_p99, '.2f'):>8} "
        f"{of(step.off, '.1%'):>7} {of(step.cpu_share, '.0%'):>6} {step.server_p99_ms:9.2f}  "
        f"{step.verdict}, {said}"
    )


@contextlib.contextmanager
def _mock() -> Iterator[tuple[str, _Told, bool]]:
    """A mock server as a child, on another core than ours where there is one."""
    from headrace.bench.load.selftest import ITL_MS, TOKENS, TTFT_MS

    command = [sys.executable, "-m", "headrace", "mock", "--port", "0", "--json", "--exact"]
    command += ["--ttft", f"{TTFT_MS:g}ms", "--itl", f"{ITL_MS:g}ms", "--tokens", str(TOKENS)]
    before = _cores()
    own_core = len(before) > 1
    if own_core:
        os.sched_setaffinity(0, {before[-1]})  # a child begins where its parent is
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
    finally:
        if own_core:
            os.sched_setaffinity(0, before[:-1])
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        yield url, _Told(url), own_core
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if own_core:
            os.sched_setaffinity(0, before)


def _cores() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux: the system places the two
        return [0]


class _Told:
    """The mock's lateness since it was last asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: dict[int, int] = {}
        self._zeros = 0

    def __call__(self) -> Lateness:
        from headrace.bench.load.selftest import Lateness
        from headrace.numbers.histogram import LogHistogram

        with urllib.request.urlopen(f"{self._url}/lateness", timeout=_PATIENCE_S) as answer:  # noqa: S310  our own child's
            told = LogHistogram.from_plain(json.load(answer)["histogram_s"])
        since = LogHistogram()
        for bucket, n in told.buckets.items():
            if n > self._before.get(bucket, 0):
                since.buckets[bucket] = n - self._before.get(bucket, 0)
        since.zeros = told.zeros - self._zeros
        since.count = since.zeros + sum(since.buckets.values())
        since.minimum, since.maximum = told.minimum, told.maximum
        self._before, self._zeros = dict(told.buckets), told.zeros
        p50, p99 = since.quantiles((0.5, 0.99))
        return Lateness(p50_ms=(p50 or 0.0) * 1000, p99_ms=(p99 or 0.0) * 1000)


def _numbers(text: str | None, flag: str) -> list[int]:
    from headrace.contracts.errors import LLMInvalidRequestError

    if text is None:
        return []
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise LLMInvalidRequestError(
            f"{flag} is {text!r}; whole numbers with commas between them are expected, as 1,32,256"
        ) from error
    if min(numbers) < 1 or numbers != sorted(numbers):
        raise LLMInvalidRequestError(
            f"{flag} is {text!r}; numbers from 1 up, ascending, are expected"
        )
    return numbers
