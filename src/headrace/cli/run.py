"""``headrace run``: a chain over the rows of a file."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.output import print_json
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.graph import Chain
    from headrace.chains.reading import Row
    from headrace.chains.run import Run
    from headrace.chains.standing import BatchStanding, Standing
    from headrace.chains.writing import Errors, Results

_SOME_FAILED = 3
_LOOKS_EVERY_S = 0.5
_SHOWN_FIRST = 3


def run(
    chain: Annotated[str, typer.Argument(help="A .yaml file, or package.module:name in Python.")],
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="A .jsonl or .csv file, or - for JSONL.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="A .jsonl or .csv file, or - for JSONL.")
    ] = "-",
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where what is done is kept; OUTPUT.run, if left out."),
    ] = None,
    shape: Annotated[
        Literal["nested", "flat", "value"],
        typer.Option(help="id, input and output; or their fields side by side; or the output."),
    ] = "nested",
    id_column: Annotated[str, typer.Option(help="The column with a row's own id.")] = "id",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many rows only.")] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=4096, help="Requests under way at each engine at most.")
    ] = 64,
    retries: Annotated[
        int, typer.Option(min=0, max=100, help="Further attempts where a failure may pass.")
    ] = 5,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Rows for which a lazy engine runs before the next one; all."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first prompts, and ask nobody.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show how it goes, on standard error.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON, on standard error.")
    ] = False,
) -> None:
    """Run a chain over all rows. Run it again, and only what is not done is done.

    Results come in the order of the input. Rows that fail are in errors.jsonl in the run's folder,
    with the reason, and end the command with status 3. Ctrl-C finishes what is under way; a second
    one stops at once. Either way the same command goes on from there.
    """
    import uvloop

    from headrace.chains.load import load_chain
    from headrace.chains.reading import read_rows
    from headrace.chains.run import Run, RunSettings
    from headrace.chains.writing import Errors, results_at

    found, engines = load_chain(chain)
    source = input

    def rows() -> Iterable[Row]:
        return islice(read_rows(source, id_column=id_column), limit)

    if dry_run:
        _show_first(found, rows())
        return
    folder = run_dir or Path(f"{found.name if output == '-' else output}.run")
    settings = RunSettings(
        run_dir=folder,
        concurrency=concurrency,
        retries=retries,
        window=window,
        engines=engines,
    )
    going = Run(found, settings)
    if output == input != "-":
        raise LLMInvalidRequestError("output is the input; name another file", param="output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LLMInvalidRequestError(
            f"run_dir is {str(folder)!r}, which cannot be made: {error.strerror}", param="run_dir"
        ) from error
    if input == "-" and going.takes_turns:
        source = str(folder / "input.jsonl")  # it is gone through once for each engine
        with Path(source).open("wb") as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
    results = results_at(output, shape)
    errors = Errors(folder / "errors.jsonl")
    began = time.monotonic()
    # What is loaded by now stays; looking through it again and again is a tenth of a row's cost.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        with _interrupts(going):
            uvloop.run(_run(going, rows, results, errors, progress=progress))
    except BaseException:
        results.abandon()
        errors.abandon()
        raise
    if going.stopped:
        results.abandon()
        errors.abandon()
        typer.echo(
            f"stopped after {going.standing.rows} rows; the same command goes on from there",
            err=True,
        )
        for batch in going.standing.batches.values():
            typer.echo(f"{_of_batch(batch)}; it goes on there and is picked up then", err=True)
        raise typer.Exit(130)
    results.finish()
    errors.finish()
    _tell(going.standing, errors, time.monotonic() - began, as_json=as_json)
    if errors.count:
        raise typer.Exit(_SOME_FAILED)


async def _run(
    going: Run,
    rows: Callable[[], Iterable[Row]],
    results: Results,
    errors: Errors,
    *,
    progress: bool,
) -> None:
    shown = asyncio.create_task(_show(going.standing)) if progress else None
    try:
        async for row, came in going.over(rows):
            for item in came.items:
                results.add(row, item.value)
            for failed in came.failed:
                errors.add(row, failed)
    finally:
        if shown is not None:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)


async def _show(standing: Standing) -> None:
    terminal = sys.stderr.isatty()
    began = time.monotonic()
    try:
        while True:
            await asyncio.sleep(_LOOKS_EVERY_S if terminal else 10 * _LOOKS_EVERY_S)
            line = _line(standing, time.monotonic() - began)
            sys.stderr.write(f"\r\x1b[2K{line}" if terminal else f"{line}\n")
            sys.stderr.flush()
    finally:
        if terminal:
            sys.stderr.write("\r\x1b[2K")


def _line(standing: Standing, seconds: float) -> str:
    waiting = [_of_batch(each) for each in standing.batches.values()]
    if waiting:
        return "; ".join(waiting)
    return (
        f"{standing.rows} rows, {standing.rows / max(seconds, 1e-9):.0f} rows/s, "
        f"{standing.made} asked, {standing.reused} done before, {standing.failed} failed, "
        f"{standing.completion_tokens / max(seconds, 1e-9):.0f} tok/s"
    )


def _of_batch(batch: BatchStanding) -> str:
    over = batch.done + batch.failed
    return (
        f"{batch.step}: batch {batch.id} at {batch.provider} is {batch.phase}, "
        f"{over} of {batch.total} done"
    )


def _tell(standing: Standing, errors: Errors, seconds: float, *, as_json: bool) -> None:
    if as_json:
        from attrs import asdict

        told = {**asdict(standing), "seconds": round(seconds, 3), "errors": str(errors.path)}
        import json

        typer.echo(json.dumps(told), err=True)
        return
    typer.echo(_line(standing, seconds), err=True)
    if errors.count:
        typer.echo(f"what failed, and why: {errors.path}", err=True)


def _show_first(chain: Chain, rows: Iterable[Row]) -> None:
    from headrace.chains.nodes import Step
    from headrace.chains.values import Item

    first = chain.path.places[0]
    if not isinstance(first, Step):
        print_json({"chain": chain.name, "nodes": [node.id for node in chain.nodes]})
        return
    shown = []
    for row in islice(rows, _SHOWN_FIRST):
        item = Item(row.number, row.value, (), row.value, {})
        system = (
            None if first.system_template is None else first.system_template.render(item.seen())
        )
        shown.append(
            {"id": row.id, "system": system, "user": first.user_template.render(item.seen())}
        )
    print_json({"chain": chain.name, "nodes": [node.id for node in chain.nodes], "first": shown})


@contextmanager
def _interrupts(going: Run) -> Iterator[None]:
    """The first Ctrl-C asks the run to stop, the second is one."""

    def heard(*_: object) -> None:
        if going.stopped:
            raise KeyboardInterrupt
        going.stop()
        sys.stderr.write("\nfinishing what is under way; Ctrl-C again to stop at once\n")

    before = signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
