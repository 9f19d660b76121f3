"""``headrace warmup``: the engines of a file, started before somebody needs them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from headrace.backends.managed.opening import Opened
    from headrace.contracts.engines import EngineConfig
    from headrace.contracts.errors import LLMError


def warmup(
    file: Annotated[Path, typer.Argument(help="YAML file with engines in it.")],
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Leave them running; headrace engines stop ends them."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Those that are lazy, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start every engine that is not lazy, wait until each answers, and say where.

    They run until this command is ended (Ctrl-C), unless others use them by then, or --detach is
    given. An engine whose program is not installed is told of with the line that installs it, and
    the others start.
    """
    from headrace.cli.engines import entries_of

    found = entries_of(file)
    meant = [each for each in found if everything or not each.lazy]
    if not meant:
        _say(f"{file}: all of its {len(found)} engines are lazy, which start when they are used")
        return
    _tell_warnings()
    if not asyncio.run(_warm(meant, detach=detach, as_json=as_json)):
        raise typer.Exit(1)


async def _warm(meant: list[EngineConfig], *, detach: bool, as_json: bool) -> bool:
    """Whether all that are installed answered."""
    from headrace.backends.managed.launch import ProgramMissingError
    from headrace.cli.engines import opened

    async with _until_told() as told, opened(meant) as engines:
        begun = [asyncio.create_task(_begin(each, detach=detach)) for each in engines]
        ready = asyncio.gather(*begun)
        end = asyncio.create_task(told.wait())
        with _progress(meant, begun):
            both: set[asyncio.Future[Any]] = {end, ready}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if told.is_set():
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
            return False
        came = ready.result()
        _show(meant, came, as_json=as_json)
        if not detach and any(isinstance(each, str) for each in came):
            _say("stop: Ctrl-C")
            await end
        end.cancel()
    return all(isinstance(each, (str, ProgramMissingError)) for each in came)


async def _begin(opened: Opened, *, detach: bool) -> str | LLMError:
    """Where it answers, or why it does not."""
    from headrace.backends.managed.engine import Managed
    from headrace.backends.remote import Remote
    from headrace.contracts.errors import LLMError, LLMInvalidRequestError

    if isinstance(opened, Remote):
        return opened.base_url
    try:
        if detach and opened.config.endpoint is None:
            if not isinstance(opened, Managed):
                raise LLMInvalidRequestError(
                    f"engine {opened.name!r} is a child of who uses it and ends with that: leave out "
                    "--detach",
                    param="detach",
                )
            await opened.keep()
        return await opened.ensure_running()
    except LLMError as failure:
        return failure


def _show(meant: list[EngineConfig], came: list[str | LLMError], *, as_json: bool) -> None:
    from headrace.backends.managed.launch import ProgramMissingError

    rows: list[dict[str, str | None]] = []
    for config, said in zip(meant, came, strict=True):
        url = said if isinstance(said, str) else None
        error = None if isinstance(said, str) else str(said)
        rows.append({"name": config.name, "url": url, "error": error})
        if error is not None:
            _say(f"{'warning' if isinstance(said, ProgramMissingError) else 'error'}: {error}")
        elif not as_json:
            typer.echo(f"{config.name}  {url}")
    if as_json:
        print_json(rows)
    sys.stdout.flush()


@asynccontextmanager
async def _until_told() -> AsyncGenerator[asyncio.Event, None]:
    """What is set by Ctrl-C or SIGTERM."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _progress(
    meant: list[EngineConfig], begun: list[asyncio.Task[str | LLMError]]
) -> Iterator[None]:
    """A line for each that is still awaited, while the block lasts; on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        for config, task in zip(meant, begun, strict=True):
            line = bar.add_task(f"{config.name}: {config.model}", total=1)
            task.add_done_callback(partial(_done, bar, line))
        yield


def _done(bar: Progress, line: TaskID, _: object) -> None:
    bar.update(line, completed=1)


def _tell_warnings() -> None:
    """What is noted of their settings, on standard error; what failed is told at the end."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    logging.getLogger("headrace").addHandler(handler)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
