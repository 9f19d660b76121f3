"""``headrace engines``: what of our engines runs on this machine; start, stop and read one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import console, print_json, table_of

if TYPE_CHECKING:
    from headrace.backends.managed.opening import Opened
    from headrace.contracts.engines import EngineConfig, ServerSnapshot

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HEADRACE_CONFIG", help="YAML file with engines in it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_FOLLOW_S = 0.2

engines = typer.Typer(
    help="List, start and stop engines, or read their logs.", no_args_is_help=True
)


@engines.command("list")
def list_engines(config: Config = None, as_json: Json = False) -> None:
    """List the engines that run on this machine, and those of a file that do not."""
    from headrace.backends.managed.opening import is_started_here
    from headrace.contracts.engines import ServerSnapshot

    running = asyncio.run(_standing())
    shown = {each.name for each in running}
    named = () if config is None else entries_of(config)
    found = running + [
        ServerSnapshot(
            name=each.name,
            model=each.model,
            backend=each.backend,
            url=each.endpoint,
            reused=not is_started_here(each),
        )
        for each in named
        if each.name not in shown
    ]
    if as_json:
        print_json(found)
        return
    out = console()
    if not found:
        out.print("no engine runs here that headrace started; --config names a file with engines")
        return
    table = table_of("engine", "program", "model", "state", "at", "process", "up", "memory")
    for each in found:
        table.add_row(
            each.name,
            each.backend,
            each.model,
            "not ours" if each.reused else "left behind" if each.left_behind else each.state,
            each.url or "-",
            str(each.pid or "-"),
            _lasting(each.uptime_s),
            "-" if each.memory_bytes is None else f"{each.memory_bytes / 1e6:.0f} MB",
        )
    out.print(table)


@engines.command()
def start(
    name: Annotated[str, typer.Argument(help="The engine's name in the file.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Start an engine and leave it running, until headrace engines stop ends it."""
    from headrace.client.registry import unknown_engine
    from headrace.contracts.errors import LLMInvalidRequestError

    if config is None:
        raise LLMInvalidRequestError(
            "no file says what the engine is: name one with --config or HEADRACE_CONFIG",
            param="config",
        )
    named = {each.name: each for each in entries_of(config)}
    if name not in named:
        raise unknown_engine(name, list(named))
    snapshot = asyncio.run(_start(named[name]))
    if as_json:
        print_json(snapshot)
    else:
        console().print(f"{name} answers at {snapshot.url}")


@engines.command()
def stop(
    name: Annotated[str | None, typer.Argument(help="The engine's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every engine that runs.")] = False,
    as_json: Json = False,
) -> None:
    """End an engine, whoever uses it, and wait until it has ended."""
    from headrace.backends.managed import standing
    from headrace.client.registry import unknown_engine
    from headrace.contracts.errors import LLMInvalidRequestError

    if (name is None) is not everything:
        raise LLMInvalidRequestError("name one engine, or say --all", param="name")
    known = standing.running()
    if name is not None and name not in known:
        raise unknown_engine(name, known)
    ended = known if name is None else [name]
    for each in ended:
        asyncio.run(standing.stop(each))
    if as_json:
        print_json({"stopped": ended})
    else:
        console().print(f"ended: {', '.join(ended) or 'none ran'}")


@engines.command()
def logs(
    name: Annotated[str, typer.Argument(help="The engine's name.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="So many, from the end.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what it says from now on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the end of what an engine's program said, also of one that has ended."""
    from headrace.backends.managed.standing import log_files
    from headrace.client.registry import unknown_engine

    found = log_files()
    if name not in found:
        raise unknown_engine(name, list(found))
    path = found[name]
    whole = path.read_bytes()
    last = whole.decode(errors="replace").splitlines()[-lines:]
    if as_json:
        print_json({"log": str(path), "lines": last})
        return
    for line in last:
        typer.echo(line)
    if follow:
        _follow(path, len(whole))


def entries_of(path: Path) -> tuple[EngineConfig, ...]:
    """The engines of a configuration, or of a file that has engines alone."""
    from headrace.backends.managed.opening import check_engine
    from headrace.contracts.engine_entries import read_engines
    from headrace.gateway.config import read_text
    from headrace.gateway.engines_config import EngineEntry

    found = read_engines(read_text(path), str(path), EngineEntry)
    for each in found:
        check_engine(each)
    return found


@asynccontextmanager
async def opened(
    configs: Sequence[EngineConfig],
) -> AsyncGenerator[list[Opened], None]:
    """The backend of each; those that were started are ended at the end, where nobody keeps them."""
    from headrace.backends.managed.opening import key_of_engine, open_engine
    from headrace.net.clock import World
    from headrace.net.pool import PooledTransport
    from headrace.stores.credentials import Credentials

    transport, credentials = PooledTransport(), Credentials()
    world = World(transport=transport)
    backends = [
        open_engine(config, world, key=key_of_engine(config, credentials)) for config in configs
    ]
    try:
        yield backends
    finally:
        await asyncio.gather(*(each.aclose() for each in backends))
        await transport.aclose()


def _follow(path: Path, begin: int) -> None:
    with path.open("rb") as file:
        file.seek(begin)
        while True:
            piece = file.read()
            if piece:
                sys.stdout.write(piece.decode(errors="replace"))
                sys.stdout.flush()
            else:
                time.sleep(_FOLLOW_S)


async def _standing() -> list[ServerSnapshot]:
    from headrace.backends.managed.standing import standing
    from headrace.net.pool import PooledTransport

    transport = PooledTransport()
    try:
        return await standing(transport)
    finally:
        await transport.aclose()


async def _start(config: EngineConfig) -> ServerSnapshot:
    from headrace.backends.local.folders.engine import FolderEngine
    from headrace.backends.managed.engine import Managed
    from headrace.contracts.errors import LLMInvalidRequestError

    async with opened((config,)) as (engine,):
        if isinstance(engine, FolderEngine):
            raise LLMInvalidRequestError(
                f"engine {config.name!r} is a child of who uses it and ends with that, so it cannot "
                "be left running; serve it by a gateway: headrace serve with this file",
                param="name",
            )
        if not isinstance(engine, Managed) or config.endpoint is not None:
            raise LLMInvalidRequestError(
                f"engine {config.name!r} is run by somebody else ({config.endpoint or config.backend}); "
                "there is nothing to start",
                param="name",
            )
        await engine.keep()
        return engine.snapshot()


def _lasting(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
