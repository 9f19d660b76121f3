"""``headrace serve``: the gateway, with the model in the box unless told otherwise."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.contracts.profiling import ProfileService
    from headrace.gateway.config import Config, ProfilesConfig
    from headrace.gateway.source import Source
    from headrace.stores.models import ModelFile


def serve(
    config: Annotated[
        Path | None,
        typer.Argument(envvar="HEADRACE_CONFIG", help="YAML file; every field has a default."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A known model's name, or the path of a GGUF file or of a model's folder."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 picks a free one. [default: 8000]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share the port and answer for remote backends. [default: 1]"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read the configuration, say whether it is right, exit.")
    ] = False,
) -> None:
    """Serve a real model on an OpenAI-compatible endpoint."""
    from headrace.gateway.logs import set_up
    from headrace.gateway.source import Source

    given = {
        ("engine", "model"): model,
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "workers"): workers,
    }
    source = Source(
        path=config,
        overrides={place: value for place, value in given.items() if value is not None},
    )
    text = source.text()
    settings = source.config(text)
    if check:
        typer.echo("the configuration is right")
        return
    set_up(settings.logging)
    listener = _listen(settings.server.host, settings.server.port)
    if settings.server.workers > 1:
        listener = _share(listener)
    with contextlib.closing(listener):
        file = _fetch(settings.engine.model) if settings.engine.enabled else None
        _run(settings, file, listener, source, text)


def _listen(host: str, port: int) -> socket.socket:
    """Bind first: a port that is taken should be known before a model is fetched or loaded."""
    from headrace.contracts.errors import LLMInvalidRequestError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as refused:
        listener.close()
        raise LLMInvalidRequestError(
            f"cannot listen on {host}:{port}: {refused.strerror or refused}; choose another port "
            "with --port or HEADRACE_PORT (0 picks a free one)",
            param="server.port",
        ) from refused
    listener.set_inheritable(False)
    return listener


def _share(listener: socket.socket) -> socket.socket:
    """The same port by a socket that lets others of ours be bound to it, where that is to be had.

    Only now that it is known to be free: such a socket would join another server's without a word.
    """
    from headrace.gateway.workers.supervisor import shares_port

    if not shares_port():
        return listener
    address = listener.getsockname()
    listener.close()
    shared = socket.socket(listener.family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(address)
    shared.set_inheritable(False)
    return shared


def _fetch(model: str) -> ModelFile:
    from headrace.cli.progress import shown
    from headrace.stores.models import ModelStore

    with shown() as progress:
        return ModelStore().find(model, progress)


def _run(
    settings: Config,
    file: ModelFile | None,
    listener: socket.socket,
    source: Source,
    text: str | None,
) -> None:
    import uvloop

    from headrace.gateway.server import serve_on
    from headrace.gateway.workers.supervisor import supervise

    workers = settings.server.workers
    started = time.monotonic()

    def announce(models: list[str]) -> None:
        _say()
        by = "" if workers == 1 else f" by {workers} workers"
        _say(f"headrace serves {', '.join(models)}{by} ({time.monotonic() - started:.1f} s)")
        _say(f"  chat:     {_url(listener)}/v1/chat/completions")
        first = (
            "page:     {}/   metrics: /metrics" if settings.server.page else "metrics:  {}/metrics"
        )
        _say(f"  {first.format(_url(listener))}   health: /health   API: /openapi.json")
        _say(f"  talk:     headrace chat --url {_url(listener)}      stop: Ctrl-C")

    async def run() -> None:
        # The supervisor has them, where there are workers: they are there once.
        async with _profiles(settings.profiles) as profiles:
            if workers == 1:
                await serve_on(listener, settings, file, announce, source, profiles=profiles)
            else:
                await supervise(listener, settings, file, announce, source, text, profiles)

    uvloop.run(run())


def _profiles(
    settings: ProfilesConfig,
) -> contextlib.AbstractAsyncContextManager[ProfileService | None]:
    """Who makes profiles, while it is entered; nobody unless that is wanted."""
    if not settings.enabled:
        return contextlib.nullcontext()
    from headrace.bench.profile.service import Profiles
    from headrace.stores.models.store import default_cache

    roots = [Path(root).expanduser().absolute() for root in settings.roots]
    return Profiles(
        Path(settings.folder).expanduser(),
        roots or [Path.cwd(), default_cache()],
        keep=settings.keep,
        most_waiting=settings.max_queued,
        patience_s=settings.stop_timeout_ms / 1000,
        may_run_code=settings.allow_remote_code,
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str = "") -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
