"""``headrace load``: drive a load against any of the known faces, and say what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.contracts.load_report import LoadReport

INVALID, BROKEN = 4, 3


def load(
    url: Annotated[
        str | None, typer.Argument(help="The target's base, such as http://127.0.0.1:8000.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with a whole plan; flags go before it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask for. [default: the first one listed]")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="chat, completions, responses, messages, embeddings or rerank. [default: chat]"
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="End after so many. [default: 100 without --duration]")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="So many callers in turn. [default: 10 without --rate]"),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second, whatever the server does.")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="short, medium, long, mixed, or all of them in turn.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What chance begins with.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a request may take.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the API key.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Append a line of JSON for each request to this file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the report's files into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Drive a load against a server and report what came of it."""
    from headrace.bench.load.run import load as drive

    given = dict(locals())
    from headrace.cli.load_plan import plans_of

    worst = 0
    for plan in plans_of(given):
        report = drive(plan)
        _show(report, out, as_json)
        worst = max(worst, _status(report))
    if worst:
        raise typer.Exit(worst)


def _show(report: LoadReport, out: Path | None, as_json: bool) -> None:
    from headrace.bench.report.console import show
    from headrace.bench.report.files import write_all
    from headrace.bench.report.saved import write_report
    from headrace.cli.output import console

    if as_json:
        typer.echo(write_report(report).decode(), nl=False)
    else:
        show(report, console())
    if out is not None:
        for path in write_all(report, out):
            typer.echo(f"wrote {path}", err=True)


def _status(report: LoadReport) -> int:
    if report.trust.verdict == "INVALID":
        return INVALID
    return BROKEN if any(each.kept is False for each in report.promises) else 0
