"""``headrace run``: a chain over the rows of a file."""

from __future__ import annotations

import asyncio
import gc
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from attrs import evolve, frozen

from headrace.cli.output import print_json
from headrace.cli.run_on import On, RayAddress, Workers, run_on
from headrace.cli.run_tell import Events, Lines, Silence, Tells, batch_of, line_of
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.cache import CacheSettings
    from headrace.chains.graph import Chain
    from headrace.chains.interrupts import Interrupts
    from headrace.chains.look import Look, Looker
    from headrace.chains.reading import RepeatedIds, Row
    from headrace.chains.running import Run
    from headrace.chains.walk import Came
    from headrace.chains.writing import Errors, Results

SOME_FAILED, OUT_OF_BUDGET = 3, 4
"""Exit statuses beside 0 and 1; a signal that stopped the run makes it 128 and the signal's number."""


def run(
    chain: Annotated[str, typer.Argument(help="A .yaml file, or package.module:name in Python.")],
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="A file, a folder or a pattern of names; or - for JSONL."
        ),
    ],
    output: Annotated[
        str,
        typer.Option("-o", "--output", help="A .jsonl, .csv, .tsv or .parquet file; or -, JSONL."),
    ] = "-",
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where what is done is kept; OUTPUT.run, if left out."),
    ] = None,
    shape: Annotated[
        Literal["nested", "flat", "value"],
        typer.Option(help="id, input and output; or their fields side by side; or the output."),
    ] = "nested",
    split_size: Annotated[
        str | None, typer.Option(help="Write files of this size at most, such as 256MB.")
    ] = None,
    with_usage: Annotated[
        bool, typer.Option("--with-usage", help="Write each row's tokens and US dollars too.")
    ] = False,
    id_column: Annotated[str, typer.Option(help="The column with a row's own id.")] = "id",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many rows only.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Take so many rows only, by chance.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same rows of --sample for the same seed.")] = 0,
    concurrency: Annotated[
        int, typer.Option(min=1, max=4096, help="Requests under way at each engine at most.")
    ] = 64,
    retries: Annotated[
        int, typer.Option(min=0, max=100, help="Further attempts where a failure may pass.")
    ] = 5,
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            min=1, help="For each provider and key whose engines have no limit of their own."
        ),
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(min=1, help="As that, prompts and answers together.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Rows for which a lazy engine runs before the next one; all."),
    ] = None,
    max_cost: Annotated[
        str | None,
        typer.Option(
            metavar="USD",
            help="Stop before so many US dollars are passed, what the run cost before included.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="A folder with answers for any run: what is there is not asked again."),
    ] = None,
    cache_max_age: Annotated[
        str | None, typer.Option(help="Ask again for answers older than that, such as 7d or 12h.")
    ] = None,
    cache_max_size: Annotated[
        str, typer.Option(help="Let go of those not used for longest where more are kept.")
    ] = "2GB",
    cache_sampled: Annotated[
        bool, typer.Option(help="Also for steps that do not say temperature: 0.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the first prompts and what it would cost, and ask nobody."
        ),
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show how it goes, on standard error.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Tell how it goes as lines of JSON, on standard error.")
    ] = False,
    on: On = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Run a chain over all rows. Run it again, and only what is not done is done.

    Results come in the order of the input. Rows that fail are in errors.jsonl in the run's folder,
    with the reason, and end the command with status 3. Ctrl-C finishes what is under way (status
    130; SIGTERM: 143); a second one stops at once. --max-cost ends it with status 4. In each case
    the same command goes on from there.
    """
    from headrace.chains.abilities import left_out
    from headrace.chains.choosing import sampled
    from headrace.chains.load import load_chain
    from headrace.chains.reading import RepeatedIds, read_rows
    from headrace.chains.running import RunSettings
    from headrace.chains.writing import Errors, results_at, schema_of_results, size_of

    found, engines = load_chain(chain)
    source = input

    def rows() -> Iterable[Row]:
        first = islice(read_rows(source, id_column=id_column), limit)
        return first if sample is None else sampled(first, sample, seed)

    settings = RunSettings(
        run_dir=run_dir or Path(f"{found.name if output == '-' else output}.run"),
        concurrency=concurrency,
        retries=retries,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        window=window,
        engines=engines,
        max_cost=_amount(max_cost),
        cache=_cache(found, cache, cache_max_age, cache_max_size, sampled=cache_sampled),
        input=input,
        output=output,
    )
    if dry_run:
        from headrace.chains.estimate import estimate

        print_json(estimate(found, settings, rows))
        return
    going = run_on(on, found, settings, workers=workers, ray_address=ray_address)
    split_bytes = None if split_size is None else size_of(split_size, "split_size")
    read_rows(source)  # refuses what is no input before anything is written
    _check_output(input, output, settings.run_dir, shape, with_usage=with_usage)
    for line in left_out(going.abilities):
        typer.echo(line, err=True)
    _make(settings.run_dir)
    if input == "-" and going.takes_turns:
        source = _kept_input(settings.run_dir)
    writing = Writing(
        results_at(output, shape, split_bytes=split_bytes, schema=schema_of_results(found)),
        Errors(settings.run_dir / "errors.jsonl"),
        RepeatedIds(settings.run_dir),
        _teller(going, progress=progress, as_json=as_json),
        with_usage=with_usage,
    )
    status = _done(
        going,
        rows,
        writing,
        Counted(source, sample or limit) if progress or as_json else None,
        quiet=as_json,
    )
    if status:
        raise typer.Exit(status)


def _cache(
    chain: Chain, folder: Path | None, max_age: str | None, max_size: str, *, sampled: bool
) -> CacheSettings | None:
    from headrace.chains.cache import CacheSettings, is_cached, read_age, read_size
    from headrace.chains.nodes import Step

    if folder is None:
        return None
    settings = CacheSettings(
        folder=folder,
        max_age_s=None if max_age is None else read_age(max_age),
        max_bytes=read_size(max_size),
        sampled=sampled,
    )
    left_out = [n.id for n in chain.nodes if isinstance(n, Step) and not is_cached(n, settings)]
    if left_out:
        typer.echo(
            f"not cached: {', '.join(left_out)}: without temperature: 0 (--cache-sampled does it), "
            "or with tools",
            err=True,
        )
    return settings


def _check_output(input: str, output: str, run_dir: Path, shape: str, *, with_usage: bool) -> None:
    from headrace.chains.reading import is_within

    for option, path in (("output", Path(output)), ("run_dir", run_dir / "errors.jsonl")):
        if str(path) != "-" and is_within(path, input):
            raise LLMInvalidRequestError(
                f"{option}: {str(path)!r} would be read with the input {input!r}; write it elsewhere",
                param=option,
            )
    if with_usage and shape == "value":
        raise LLMInvalidRequestError(
            "with_usage is given, and shape is 'value', which has no place for it; it must be nested "
            "or flat",
            param="with_usage",
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LLMInvalidRequestError(
            f"run_dir is {str(folder)!r}, which cannot be made: {error.strerror}", param="run_dir"
        ) from error


def _kept_input(folder: Path) -> str:
    """Standard input as a file, which can be gone through once for each engine."""
    path = folder / "input.jsonl"
    with path.open("wb") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
    return str(path)


def _done(
    going: Run,
    rows: Callable[[], Iterable[Row]],
    writing: Writing,
    counted: Counted | None,
    *,
    quiet: bool,
) -> int:
    """The status with which the command ends."""
    import uvloop

    from headrace.chains.interrupts import Interrupts
    from headrace.chains.look import Looker

    interrupts, looker = Interrupts(quiet=quiet), Looker(going)
    # What is loaded by now stays; looking through it again and again is a tenth of a row's cost.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        with suppress(asyncio.CancelledError):
            uvloop.run(_run(going, rows, writing, interrupts, looker, counted))
    except BaseException:
        writing.tells.end()
        writing.abandon()
        raise
    writing.tells.end()
    if going.stopped:
        writing.abandon()
    else:
        writing.finish()
    status = _status(going, interrupts, writing.errors)
    if isinstance(writing.tells, Events):
        _tell_end(writing.tells, going, looker.whole(), writing, status)
    else:
        _tell(going, looker.whole(), writing)
    return status


@frozen
class Counted:
    """The input whose rows are counted on the way, of which ``most`` are taken."""

    source: str
    most: int | None


class Writing:
    """Where what became of each row goes."""

    def __init__(
        self,
        results: Results,
        errors: Errors,
        repeats: RepeatedIds,
        tells: Tells,
        *,
        with_usage: bool,
    ) -> None:
        self.results, self.errors, self.repeats, self.tells = results, errors, repeats, tells
        self._with_usage = with_usage

    def add(self, row: Row, came: Came) -> None:
        self.repeats.see(row)
        if self._with_usage:
            row = evolve(row, beside={"usage": came.used.plain()})
        for item in came.items:
            self.results.add(row, item.value)
        for failed in came.failed:
            self.errors.add(row, failed)
            self.tells.failed(row, failed)

    def finish(self) -> None:
        self.errors.finish()
        self.results.finish()

    def abandon(self) -> None:
        self.results.abandon()
        self.errors.abandon()


async def _run(
    going: Run,
    rows: Callable[[], Iterable[Row]],
    writing: Writing,
    interrupts: Interrupts,
    looker: Looker,
    counted: Counted | None,
) -> None:
    shown = asyncio.create_task(_show(going, looker, writing.tells, counted))
    try:
        with interrupts.heard_by(going):
            async with aclosing(going.over(rows)) as over:
                async for row, came in over:
                    writing.add(row, came)
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


async def _show(going: Run, looker: Looker, tells: Tells, counted: Counted | None) -> None:
    from headrace.chains.choosing import rows_in

    if counted is not None:
        there = await asyncio.to_thread(rows_in, counted.source)
        most = counted.most
        going.rows_known = there if there is None or most is None else min(there, most)
    tells.begin(looker.look())
    while True:
        await asyncio.sleep(tells.every_s)
        tells.shows(looker.look())


def _teller(going: Run, *, progress: bool, as_json: bool) -> Tells:
    settings = going.settings
    if as_json:
        return Events(
            chain=going.chain.name,
            input=settings.input,
            output=settings.output,
            run_dir=str(settings.run_dir),
            nodes=[node.id for node in going.chain.nodes],
        )
    if not progress:
        return Silence()
    # Results that go to the same terminal would be written through the view.
    if sys.stderr.isatty() and not (settings.output == "-" and sys.stdout.isatty()):
        from headrace.cli.run_view import View

        return View()
    return Lines()


def _status(going: Run, interrupts: Interrupts, errors: Errors) -> int:
    if interrupts.status is not None:
        return interrupts.status
    if going.stopped:
        return OUT_OF_BUDGET if going.why_stopped == "max_cost" else 1
    return SOME_FAILED if errors.count else 0


def _tell(going: Run, look: Look, writing: Writing) -> None:
    errors = writing.errors
    typer.echo(line_of(look), err=True)
    if (repeated := writing.repeats.told()) is not None:
        typer.echo(repeated, err=True)
    said = goes_on(going)
    if said is not None:
        typer.echo(said, err=True)
        for batch in look.batches:
            typer.echo(f"{batch_of(batch)}; it goes on there, and is picked up then", err=True)
    elif errors.count:
        typer.echo(f"what failed, and why: {errors.path}", err=True)


def _tell_end(events: Events, going: Run, look: Look, writing: Writing, status: int) -> None:
    from headrace.chains.look import plain_look
    from headrace.chains.spending import plain_spent

    events.event(
        "end",
        status=status,
        reason=going.why_stopped,
        goes_on=goes_on(going),
        errors=str(writing.errors.path),
        repeated_ids=writing.repeats.count,
        **plain_look(look),
        spent={step: plain_spent(each) for step, each in going.spending.by_step.items()},
    )


def goes_on(going: Run) -> str | None:
    """How a run that was stopped goes on; None where it was not."""
    if not going.stopped:
        return None
    words = ["headrace", *sys.argv[1:]]
    rows = going.standing.rows
    if going.why_stopped != "max_cost":
        return (
            f"stopped after {rows} rows; the same command goes on from there: {shlex.join(words)}"
        )
    limit = going.settings.max_cost
    assert limit is not None
    return (
        f"stopped after {rows} rows, before --max-cost {limit:f} was passed; with more it goes on from "
        f"there: {shlex.join(_with_max_cost(words, 2 * limit or Decimal(1)))}"
    )


def _with_max_cost(words: list[str], limit: Decimal) -> list[str]:
    name, changed = "--max-cost", list(words)
    for at, word in enumerate(words):
        if word == name and at + 1 < len(words):
            changed[at + 1] = f"{limit:f}"
        elif word.startswith(f"{name}="):
            changed[at] = f"{name}={limit:f}"
    return changed


def _amount(said: str | None) -> Decimal | None:
    if said is None:
        return None
    try:
        amount = Decimal(said)
    except ArithmeticError:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise LLMInvalidRequestError(
            f"max_cost is {said!r}; US dollars from 0 on are needed, such as 2.50", param="max_cost"
        )
    return amount
