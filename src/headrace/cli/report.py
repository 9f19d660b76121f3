"""``headrace report``: a saved report once more, on the terminal or in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import console


def report(
    path: Annotated[
        Path, typer.Argument(help="The report.json of a load test, or the folder that holds it.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, as it is saved.")
    ] = False,
) -> None:
    """Show the report of a load test again, or write it in another form."""
    from headrace.bench.report.console import show
    from headrace.bench.report.files import read
    from headrace.bench.report.saved import write_report

    found = read(path)
    if as_json:
        typer.echo(write_report(found).decode(), nl=False)
        return
    show(found, console())
