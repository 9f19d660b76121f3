"""Chains from Python: ``run`` and ``run_iter`` anywhere, ``arun`` inside an event loop."""

from __future__ import annotations

import tempfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from attrs import evolve, frozen

from headrace.chains.graph import Chain
from headrace.chains.load import load_chain
from headrace.chains.reading import Row, read_rows, rows_of
from headrace.chains.running import Run, RunSettings
from headrace.chains.standing import Standing
from headrace.chains.walk import Failed, Used
from headrace.client.portal import Portal
from headrace.client.registry import get_engine_config
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

Rows: TypeAlias = Iterable[Mapping[str, Any]] | str | Path
"""Rows that are there, or the file that they are in."""


@frozen
class Result:
    """What became of one row: its ``values``, and the ``errors`` of what came to nothing.

    ``used`` are the tokens and dollars of its answers, whichever run asked for them.
    """

    id: str | int
    values: tuple[Any, ...]
    errors: tuple[Failed, ...]
    used: Used

    @property
    def value(self) -> Any:
        """The first of its values; None where there is none."""
        return self.values[0] if self.values else None

    @property
    def error(self) -> Failed | None:
        """The first of its errors; None where there is none."""
        return self.errors[0] if self.errors else None


def run(
    chain: Chain | str | Path,
    rows: Rows,
    *,
    run_dir: Path | str | None = None,
    settings: RunSettings | None = None,
    on_standing: Callable[[Standing], None] | None = None,
    **more: Any,
) -> list[Result]:
    """What ``chain`` makes of each of ``rows``, in their order.

    ``chain`` may be a YAML file or ``package.module:name``, ``rows`` a file. ``run_dir`` keeps what
    is done, so that a run that broke off goes on; without it nothing is kept. ``more`` are fields of
    RunSettings. Also works where an event loop runs already, which it then blocks.
    """
    return list(
        run_iter(chain, rows, run_dir=run_dir, settings=settings, on_standing=on_standing, **more)
    )


def run_iter(
    chain: Chain | str | Path,
    rows: Rows,
    *,
    run_dir: Path | str | None = None,
    settings: RunSettings | None = None,
    on_standing: Callable[[Standing], None] | None = None,
    **more: Any,
) -> Generator[Result, None, None]:
    """As ``run``, each result as soon as those before it are there; closing it ends the run."""
    # Not the portal of the clients: functions of the chain may call one of those and wait.
    portal = Portal()
    try:
        with portal.iterate(
            lambda: _results(chain, rows, run_dir, settings, on_standing, more)
        ) as results:
            yield from results
    finally:
        portal.close()


async def arun(
    chain: Chain | str | Path,
    rows: Rows,
    *,
    run_dir: Path | str | None = None,
    settings: RunSettings | None = None,
    on_standing: Callable[[Standing], None] | None = None,
    **more: Any,
) -> AsyncIterator[Result]:
    """As ``run_iter``, inside an event loop.

    Where engines take turns, all of ``rows`` are held, or ``settings.window`` of them.
    """
    results = _results(chain, rows, run_dir, settings, on_standing, more)
    async with aclosing(results):
        async for each in results:
            yield each


async def _results(
    chain: Chain | str | Path,
    rows: Rows,
    run_dir: Path | str | None,
    settings: RunSettings | None,
    on_standing: Callable[[Standing], None] | None,
    more: Mapping[str, Any],
) -> AsyncGenerator[Result, None]:
    with _settings(run_dir, settings, more) as chosen:
        found, engines = _found(chain, chosen)
        going = Run(found, evolve(chosen, engines=engines))
        over = going.over(_again(rows, more_than_once=going.takes_turns))
        async with aclosing(over):
            async for row, came in over:
                if on_standing is not None:
                    on_standing(going.standing)
                values = tuple(item.value for item in came.items)
                yield Result(row.id, values, came.failed, came.used)


def _found(
    chain: Chain | str | Path, settings: RunSettings
) -> tuple[Chain, tuple[EngineConfig, ...]]:
    """The chain, and its engines where ``settings`` name none."""
    if not isinstance(chain, Chain):
        found, engines = load_chain(str(chain))
        return found, settings.engines or engines
    if settings.engines or settings.clients is not None:
        return chain, settings.engines
    names = [each for each in chain.engines() if "/" not in each]
    return chain, tuple(get_engine_config(each) for each in names)


@contextmanager
def _settings(
    run_dir: Path | str | None, settings: RunSettings | None, more: Mapping[str, Any]
) -> Iterator[RunSettings]:
    if settings is not None:
        if run_dir is not None or more:
            first = "run_dir" if run_dir is not None else sorted(more)[0]
            raise LLMInvalidRequestError(
                f"{first!r} was given beside settings; set it there", param=first
            )
        yield settings
    elif run_dir is not None:
        yield RunSettings(run_dir=Path(run_dir), **more)
    else:
        with tempfile.TemporaryDirectory(prefix="headrace-run-") as folder:
            yield RunSettings(run_dir=Path(folder), **more)


def _again(rows: Rows, *, more_than_once: bool) -> Callable[[], Iterable[Row]]:
    """``rows`` from the first on, each time it is called."""
    if isinstance(rows, str | Path):
        return lambda: read_rows(rows)
    comes_once = iter(rows) is rows
    kept = list(rows) if comes_once and more_than_once else rows
    return lambda: rows_of(kept)
