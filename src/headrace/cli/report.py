"""``headrace report``: a saved report once more, on the terminal or in another form."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headrace.bench.report.files import Form
    from headrace.bench.report.rates import RatePoint
    from headrace.contracts.load_report import LoadReport


def report(
    path: Annotated[
        Path, typer.Argument(help="The report.json of a load test, or the folder that holds it.")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write the page with all charts to this file.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a line for each request to this file.")
    ] = None,
    hdr: Annotated[
        Path | None,
        typer.Option(help="Write HdrHistogram's text of each time (.hgrm) into this folder."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as for a pull request.")
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="With --markdown: another saved report to stand beside.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, as it is saved.")
    ] = False,
) -> None:
    """Show the report of a load test again, or write it in another form."""
    from headrace.bench.report import files
    from headrace.bench.report.console import show
    from headrace.contracts.errors import LLMInvalidRequestError

    if markdown and as_json:
        raise LLMInvalidRequestError("--markdown and --json exclude one another; give one")
    if baseline is not None and not markdown:
        raise LLMInvalidRequestError("--baseline is for --markdown; give both")
    found = files.read(path)
    beside = None if baseline is None else files.read(baseline)
    written = [
        *([] if html is None else files.write_as(found, "html", html)),
        *([] if csv is None else files.write_as(found, "csv", csv)),
        *([] if hdr is None else files.write_all(found, hdr, ["hdr"])),
    ]
    if as_json:
        from headrace.bench.report.saved import write_report

        typer.echo(write_report(found), nl=False)
    elif markdown:
        from headrace.bench.report.markdown import markdown as in_markdown

        typer.echo(in_markdown(found, beside))
    elif written:
        for each in written:
            typer.echo(str(each))
    else:
        show(found, console())


@contextmanager
def interrupts_wait() -> Iterator[list[int]]:
    """While it lasts, the first Ctrl-C is put on the list that is given; the second one ends all."""

    def note(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        typer.echo("the report is being saved; Ctrl-C again leaves it unsaved", err=True)

    asked: list[int] = []
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def hand_over(
    found: LoadReport,
    folder: Path | None,
    forms: Iterable[Form] | None = None,
    *,
    points: Sequence[RatePoint] = (),
    as_json: bool = False,
) -> bool:
    """Print a run's report and save it in ``folder``; whether all of it could be saved.

    A file that cannot be written is told on standard error. Where that is the JSON, from which all
    others can be made, it goes to standard output, so that the run was not for nothing.
    """
    from headrace.bench.report import files
    from headrace.bench.report.console import show
    from headrace.bench.report.saved import FILE_NAME, write_report
    from headrace.bench.report.writing import ReportNotWritten

    written: list[Path] = []
    failed: ReportNotWritten | None = None
    if folder is not None:
        # Before it is shown: who reads the terminal may be gone by then (``| head``).
        try:
            written = files.write_all(
                found, folder, files.FORMS if forms is None else forms, points
            )
        except ReportNotWritten as error:
            failed = error
    if as_json:
        typer.echo(write_report(found), nl=False)
    else:
        show(found, console())
    if written:
        typer.echo(f"saved in {folder}: {', '.join(path.name for path in written)}", err=True)
    if failed is None:
        return True
    typer.echo(f"headrace: {failed}", err=True)
    if not as_json and all(path.name != FILE_NAME for path in failed.written):
        typer.echo(write_report(found), nl=False)
    return False
