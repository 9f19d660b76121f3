"""``headrace serve-functions``: Python functions behind HTTP."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer


def serve_functions(
    functions: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODULE:FUNCTION...",
            help="What is served, and under which name; its own, if left out.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8100,
    max_running: Annotated[
        int, typer.Option(min=1, help="Calls of a function that run at once.")
    ] = 4,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Calls that may wait; 429 for the next.")
    ] = 64,
    queue_s: Annotated[
        float, typer.Option(min=0.001, help="Longest wait for a place, in seconds; 429 after it.")
    ] = 30.0,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Longest call, in seconds; 504 after it.")
    ] = 60.0,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Largest request body; 413 above it.")
    ] = 32 << 20,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="HEADRACE_API_KEYS",
            help="A key that callers must show; needed to listen beyond this machine.",
            show_default=False,
        ),
    ] = None,
    tell_errors: Annotated[
        bool, typer.Option("--tell-errors", help="Tell callers the words of a function's errors.")
    ] = False,
) -> None:
    """Serve Python functions as models that are asked by plain values."""
    import uvloop
    from attrs import evolve

    from headrace.cli.serve import _listen, _url
    from headrace.gateway.config import Config, LoggingConfig, ServerConfig
    from headrace.gateway.functions import Function, FunctionServer
    from headrace.gateway.functions.app import settings_of
    from headrace.gateway.functions.serving import find, serve_on
    from headrace.gateway.guard import check_binding
    from headrace.gateway.logs import set_up
    from headrace.net.clock import SystemClock

    found = {}
    for named in functions:
        name, given = find(named)
        if name in found:
            raise typer.BadParameter(f"two functions are called {name!r}; name one as NAME=...")
        function = given if isinstance(given, Function) else Function(call=given)
        found[name] = evolve(function, tells_errors=function.tells_errors or tell_errors)
    keys = tuple(key for each in api_key or () for key in each.split(",") if key)
    server = ServerConfig(host=host, port=port, api_keys=keys, max_body_bytes=max_body_bytes)
    check_binding(server)
    logging = LoggingConfig()
    set_up(logging)
    served = FunctionServer(
        config=Config(server=server, logging=logging),
        functions=found,
        clock=SystemClock(),
        settings=settings_of(max_running, max_waiting, queue_s, timeout_s),
    )
    with contextlib.closing(_listen(host, port)) as listener:

        def announce() -> None:
            _say(f"headrace serves {', '.join(found)}")
            _say(f"  ask:    POST {_url(listener)}/models/{next(iter(found))}/infer")
            _say("  models: /models   metrics: /metrics   health: /health   stop: Ctrl-C")

        uvloop.run(serve_on(listener, served, announce))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
