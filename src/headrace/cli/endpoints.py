"""``headrace endpoints``: make, change and remove a running gateway's endpoints, and see what they did."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from headrace.cli.output import console, print_json, table_of
from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError

Url = Annotated[
    str | None,
    typer.Option(envvar="HEADRACE_URL", help="The server. [default: http://127.0.0.1:8000]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="FIELD=VALUE, a field of backends in docs/configuration.md, its value as in YAML. "
        "Repeatable.",
    ),
]
KeyEnv = Annotated[
    list[str] | None,
    typer.Option(help="A variable of this shell that holds a key for it. Repeatable."),
]

endpoints = typer.Typer(
    help="Make, change and remove a running gateway's endpoints, and see what they did. The admin key "
    "is read from HEADRACE_ADMIN_KEY.",
    no_args_is_help=True,
)


@endpoints.command("list")
def list_(url: Url = None, as_json: AsJson = False) -> None:
    """List the endpoints."""
    found = _ask(url, "GET", "")["endpoints"]
    if as_json:
        print_json(found)
        return
    table = table_of("name", "kind", "source", "provider", "models", "keys>", "at once>", "queue>")
    for each in found:
        table.add_row(
            each["name"],
            each["kind"],
            each["source"],
            each.get("provider") or "",
            ", ".join(each.get("models") or ()),
            _text(each.get("keys")),
            _text(each.get("max_concurrent_requests")),
            _text(each.get("queue_size")),
        )
    console().print(table)


@endpoints.command()
def add(
    name: Name,
    provider: Annotated[str | None, typer.Option(help="A row of the provider table.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Up to and including /v1.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A name it answers to, * and ? as wildcards. Repeatable."),
    ] = None,
    key_env: KeyEnv = None,
    set_: Set = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make an endpoint; it is kept until the server ends."""
    body: dict[str, Any] = {"name": name, **_fields(set_), **_keys(key_env)}
    given = {"provider": provider, "base_url": base_url, "models": model}
    body |= {field: value for field, value in given.items() if value}
    _tell(_ask(url, "POST", "", body), f"{name} is there, until the server ends", as_json)


@endpoints.command()
def change(
    name: Name, key_env: KeyEnv = None, set_: Set = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Change fields of an endpoint, for the requests that begin from now on."""
    body = {**_fields(set_), **_keys(key_env)}
    if not body:
        raise LLMInvalidRequestError("nothing is to change: give --set or --key-env", param="set")
    told = _ask(url, "PATCH", f"/{_quoted(name)}", body)
    _tell(told, f"{name} is changed, until the server ends", as_json)


@endpoints.command()
def remove(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Remove an endpoint; requests under way finish."""
    told = _ask(url, "DELETE", f"/{_quoted(name)}")
    _tell(told, f"{name} is removed, until the server ends", as_json)


@endpoints.command()
def stats(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Show what an endpoint did, in all of the server's processes."""
    _show(_ask(url, "GET", f"/{_quoted(name)}/stats"), as_json)


@endpoints.command()
def reset(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Have an endpoint count from nothing, and show what it did until now."""
    _show(_ask(url, "POST", f"/{_quoted(name)}/reset_stats"), as_json)


def _fields(given: list[str] | None) -> dict[str, Any]:
    from headrace.contracts._yaml import read_yaml

    found = {}
    for each in given or ():
        field, equals, value = each.partition("=")
        if not equals or not field:
            raise LLMInvalidRequestError(
                f"--set is {each!r}, must be FIELD=VALUE such as max_concurrent_requests=8",
                param="set",
            )
        if field in ("api_key", "api_keys"):
            raise LLMInvalidRequestError(
                f"{field} on a command line is seen by everybody on this machine; put it into a "
                "variable and name that by --key-env",
                param="set",
            )
        found[field] = read_yaml(value)
    return found


def _keys(names: list[str] | None) -> dict[str, Any]:
    keys = []
    for name in names or ():
        if not os.environ.get(name):
            raise LLMAuthError(f"--key-env is {name!r}, and there is no such variable", param=name)
        keys.append(os.environ[name])
    if not keys:
        return {}
    return {"api_key": keys[0]} if len(keys) == 1 else {"api_keys": keys}


def _ask(url: str | None, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    import uvloop

    return uvloop.run(_asked(url, method, path, body))


async def _asked(
    url: str | None, method: str, path: str, body: Mapping[str, Any] | None
) -> dict[str, Any]:
    from headrace.net.pool import PooledTransport
    from headrace.net.proxy import ENVIRONMENT, find_proxies, through
    from headrace.net.transport import HttpRequest, TimeLimits, parse_url
    from headrace.stores.secret import Secret, redact_error
    from headrace.wire import json as wire_json
    from headrace.wire import openai_chat

    base = url or f"http://127.0.0.1:{os.environ.get('HEADRACE_PORT') or 8000}"
    base = base.rstrip("/").removesuffix("/v1")
    given = os.environ.get("HEADRACE_ADMIN_KEY")
    headers = [("accept", "application/json"), ("content-type", "application/json")]
    key = Secret(given, source="HEADRACE_ADMIN_KEY") if given else None
    if key is not None:
        headers.append(("authorization", f"Bearer {key.reveal()}"))
    transport = PooledTransport()
    try:
        reply = await through(transport, find_proxies(ENVIRONMENT, os.environ), base).send(
            HttpRequest(
                method=method,
                url=parse_url(f"{base}/endpoints{path}"),
                headers=tuple(headers),
                body=b"" if body is None else wire_json.encode(body),
            ),
            TimeLimits(connect_s=10.0, first_byte_s=60.0, idle_s=60.0),
        )
        try:
            answer = await reply.read(16 << 20)
        finally:
            await reply.aclose()
        if reply.status not in (200, 201):
            error = openai_chat.read_error(reply.status, answer, reply.headers)
            redact_error(error, (key,))
            raise error
        told = wire_json.decode_reply(answer)
        assert isinstance(told, dict)
        return told
    finally:
        await transport.aclose()


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _tell(told: Mapping[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        typer.echo(words)


def _show(stats: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(stats)
        return
    out, latency = console(), stats.get("latency") or {}
    failed = ", ".join(f"{n} {kind}" for kind, n in stats["failures"].items()) or "none"
    table = table_of("", ">")
    for name, value in (
        ("requests", stats["requests"]),
        ("answered", stats["successes"]),
        ("failed", failed),
        ("cancelled", stats["cancelled"]),
        ("retries", stats["retries"]),
        ("running", stats["running"]),
        ("waiting", stats["waiting"]),
        ("prompt tokens", stats["prompt_tokens"]),
        ("completion tokens", stats["completion_tokens"]),
        ("cost in US dollars", stats.get("price_usd") or "unknown"),
        ("median latency", _seconds(latency.get("p50_s"))),
        ("95% latency", _seconds(latency.get("p95_s"))),
        ("circuit", stats.get("circuit") or "none"),
        ("last error", stats.get("last_error") or "none"),
        ("since", _instant(stats.get("since"))),
    ):
        table.add_row(name, str(value))
    out.print(table)
    if not stats.get("keys"):
        return
    keys = table_of("key>", "asked>", "answered>", "failed>", "running>", "waiting>", "now")
    for key in stats["keys"]:
        rests = f"rests for {key['rests_s']:.0f} s" if key["rests_s"] else "open"
        keys.add_row(
            str(key["key"]),
            str(key["requests"]),
            str(key["successes"]),
            str(sum(key["failures"].values())),
            str(key["running"]),
            str(key["waiting"]),
            "refused" if key["refused"] else rests,
        )
    out.print()
    out.print(keys)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _seconds(value: float | None) -> str:
    return "too few calls" if value is None else f"{value:.3f} s"


def _instant(value: float | None) -> str:
    from datetime import datetime, timezone

    if value is None:
        return "unknown"
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
