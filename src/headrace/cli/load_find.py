"""``headrace load --find``: the highest rate that a target holds within its promises."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from headrace.bench.load.find import Limits
    from headrace.contracts.load import LoadPlan
    from headrace.contracts.load_find import Found, Trial
    from headrace.contracts.load_report import LoadReport

BROKEN = 3


def search(plan: LoadPlan, given: Mapping[str, Any]) -> None:
    """Search, print what was found, and save it where ``--out`` says."""
    from importlib.metadata import version

    from headrace.bench.load.find import find
    from headrace.bench.report.saved import plan_without_secrets
    from headrace.bench.report.search import show_found, trial_line
    from headrace.cli.output import console, print_json

    last: list[LoadReport] = []

    def run(each: LoadPlan) -> LoadReport:
        last[:] = [_driven(each, given)]
        return last[0]

    def watch(trial: Trial) -> None:
        if not given["no_progress"]:
            typer.echo(trial_line(trial), err=True)

    found = find(
        plan, plan.promises, run, limits=_limits(given), watch=watch, version=version("headrace")
    )
    if given["as_json"]:
        from attrs import evolve

        print_json(evolve(found, plan=plan_without_secrets(found.plan)))
    else:
        show_found(found, console())
    if given["out"] is not None:
        _save(found, last, given["out"])
    if found.rate is None:
        raise typer.Exit(BROKEN)


def _driven(plan: LoadPlan, given: Mapping[str, Any]) -> LoadReport:
    """The run of one round; a terminal shows it while it lasts."""
    from headrace.bench.load.run import load

    if given["no_progress"] or not sys.stderr.isatty():
        return load(plan)
    from headrace.cli.load import shown

    return shown(plan, load)


def _limits(given: Mapping[str, Any]) -> Limits:
    from headrace.bench.load.find import Limits

    names = {
        "find_from": "least",
        "find_to": "most",
        "find_precision": "precision",
        "find_longest": "longest_s",
        "warmup": "warmup_s",
    }
    return Limits(**{ours: given[flag] for flag, ours in names.items() if given[flag] is not None})


def _save(found: Found, last: list[LoadReport], folder: Path) -> None:
    """The search as JSON, and the report of its last trial with the knee drawn in it."""
    from attrs import evolve

    from headrace.bench.report import files
    from headrace.bench.report.rates import points_of
    from headrace.bench.report.saved import plan_without_secrets
    from headrace.bench.report.writing import ReportNotWritten, write_file
    from headrace.contracts.convert import to_json

    path = folder / "find.json"
    said = to_json(evolve(found, plan=plan_without_secrets(found.plan)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, said)
        written = [path]
        if last:
            written += files.write_all(last[0], folder, points=points_of(found))
    except (OSError, ReportNotWritten) as error:
        # What was searched for minutes is not lost for want of room.
        typer.echo(f"headrace: the search is not saved in {folder}: {error}", err=True)
        if not path.exists():
            typer.echo(said.decode())
        raise typer.Exit(1) from error
    typer.echo(f"saved in {folder}: {', '.join(p.name for p in written)}", err=True)
