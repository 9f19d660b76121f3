"""``headrace runs``: the runs of chains in a folder, how they stand, what they cost, what failed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import console, print_json, table_of
from headrace.cli.run_tell import dollars
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.runs import RunNote
    from headrace.chains.spending import Spent

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="DIR", help="The run's folder; the latest run below this one, if left out."
    ),
]
_LOOKS_EVERY_S = 0.5

runs = typer.Typer(
    help="List runs of chains, and tell what they did, cost and failed at.", no_args_is_help=True
)


@runs.command("list")
def list_runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", help="Where to look; here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs in a folder and below, the latest first."""
    found = _found(folders or [Path()])
    if as_json:
        print_json([_plain(each) for each in found])
        return
    out = console()
    if not found:
        out.print("there is no run here: headrace run keeps one beside its output")
        return
    table = table_of("run", "chain", "state", "rows>", "failed>", "paid>", "started", "took>")
    for note in found:
        spent = _all(note)
        of = "" if note.rows is None else f"/{note.rows}"
        table.add_row(
            str(note.folder),
            note.chain,
            note.now.state,
            f"{note.now.standing.get('rows', 0)}{of}",
            str(note.now.standing.get("failed", 0)),
            _paid(spent),
            note.now.started[:19].replace("T", " "),
            f"{note.now.seconds:.0f} s",
        )
    out.print(table)


@runs.command()
def show(folder: Folder = None, as_json: Json = False) -> None:
    """Tell how a run stands: its nodes, and what each step and engine used and cost."""
    note = _one(folder)
    if as_json:
        print_json(_plain(note))
        return
    out = console()
    now = note.now
    reason = "" if now.reason is None else f" ({now.reason})"
    out.print(f"{note.folder}: {note.chain}, {now.state}{reason}")
    out.print(f"from {note.input or 'Python'} to {note.output or 'Python'}")
    out.print(
        f"started {now.started}, "
        + (f"ended {now.ended}" if now.ended else f"last seen after {now.seconds:.0f} s")
    )
    of = "" if note.rows is None else f" of {note.rows}"
    standing = now.standing
    out.print(
        f"{standing.get('rows', 0)}{of} rows, {standing.get('results', 0)} results, "
        f"{standing.get('failed', 0)} failed, {standing.get('reused', 0)} done before"
    )
    nodes = table_of("node", "done>", "done before>", "failed>")
    for node in note.nodes:
        stood = standing.get("nodes", {}).get(node)
        if stood is not None:
            nodes.add_row(node, *(str(stood[each]) for each in ("done", "reused", "failed")))
    out.print(nodes)
    out.print("this attempt")
    out.print(_table(note, now.spent))
    if note.earlier.attempts:
        times = "attempt" if note.earlier.attempts == 1 else "attempts"
        out.print(f"{note.earlier.attempts} earlier {times}")
        out.print(_table(note, note.earlier.spent))


@runs.command()
def errors(
    folder: Folder = None,
    examples: Annotated[int, typer.Option(min=0, help="Rows shown of each reason.")] = 3,
    as_json: Json = False,
) -> None:
    """Tell what failed, by node and reason."""
    note = _one(folder)
    groups = _grouped(_errors_of(note.folder), examples)
    if as_json:
        print_json(groups)
        return
    out = console()
    if not groups:
        out.print("nothing failed")
    for group in groups:
        out.print(f"{group['count']} x {group['node']}: {group['error']}: {group['reason']}")
        for example in group["examples"]:
            out.print(f"    row {example['id']!r}: {example['message']}")


@runs.command()
def tail(folder: Folder = None, as_json: Json = False) -> None:
    """Follow a run of another process until it ends."""
    note, before, told = _one(folder), None, 0
    while True:
        for line in _errors_of(note.folder, told):
            told += 1
            shown = {name: line[name] for name in ("id", "row", "node", "error")}
            if as_json:
                _event("row_error", **shown)
            else:
                typer.echo("row {id!r} failed at {node}: {error}".format(**shown))
        if before != note.now:
            if as_json:
                _event("progress", **_plain(note))
            else:
                typer.echo(_line(note, before))
            before = note.now
        if note.now.state != "running":
            return
        time.sleep(_LOOKS_EVERY_S)
        note = _one(note.folder)


def _event(event: str, **told: Any) -> None:
    typer.echo(json.dumps({"event": event, **told}, ensure_ascii=False))


def _line(note: RunNote, before: Any) -> str:
    now, standing = note.now, note.now.standing
    earlier_s, earlier_rows = (
        (0.0, 0) if before is None else (before.seconds, before.standing.get("rows", 0))
    )
    rows = standing.get("rows", 0)
    pace = (rows - earlier_rows) / max(now.seconds - earlier_s, 1e-9)
    of = "" if note.rows is None else f" of {note.rows}"
    reason = "" if now.reason is None else f" ({now.reason})"
    return (
        f"{now.state}{reason}: {rows}{of} rows, {pace:.0f} rows/s, {standing.get('failed', 0)} failed, "
        f"{_paid(_all(note))} paid"
    )


def _found(folders: list[Path]) -> list[RunNote]:
    from headrace.chains.runs import read_run, runs_under

    notes = [read_run(each) for each in runs_under(folders)]
    return sorted(notes, key=lambda note: note.now.started, reverse=True)


def _one(folder: Path | None) -> RunNote:
    from headrace.chains.runs import read_run

    if folder is not None:
        return read_run(folder)
    found = _found([Path()])
    if not found:
        raise LLMInvalidRequestError(
            "there is no run below this folder; name the folder of one", param="dir"
        )
    return found[0]


def _all(note: RunNote) -> Spent:
    """What the run cost in all its attempts."""
    from headrace.chains.spending import total

    return total(note.earlier.and_then(note.now).spent)


def _paid(spent: Spent) -> str:
    if spent.unpriced and not spent.usd:
        return "unknown"
    return f"{dollars(spent.usd)}{' and more' if spent.unpriced or spent.untold else ''}"


def _table(note: RunNote, by_step: Any) -> Any:
    from headrace.chains.runs import by_engine
    from headrace.chains.spending import total

    table = table_of(
        "step", "engine", "calls>", "retries>", "tokens in>", "out>", "paid>", "s/call>"
    )

    def add(step: str, engine: str, spent: Spent) -> None:
        table.add_row(
            step,
            engine,
            str(spent.calls),
            str(spent.retries),
            str(spent.prompt_tokens),
            str(spent.completion_tokens),
            _paid(spent),
            f"{spent.seconds / spent.calls:.3f}" if spent.calls else "-",
        )

    for step, spent in by_step.items():
        add(step, note.steps.get(step, "-"), spent)
    engines = by_engine(note.steps, by_step)
    if len(engines) > 1:
        for engine, spent in engines.items():
            add("all steps of", engine, spent)
    if len(by_step) > 1:
        add("all", "", total(by_step))
    return table


def _plain(note: RunNote) -> dict[str, Any]:
    from attrs import asdict

    from headrace.chains.runs import by_engine
    from headrace.chains.spending import plain_spent

    def spent(by_step: Any) -> dict[str, Any]:
        return {
            "by_step": {step: plain_spent(each) for step, each in by_step.items()},
            "by_engine": {
                name: plain_spent(each) for name, each in by_engine(note.steps, by_step).items()
            },
        }

    plain = asdict(note)
    plain["folder"] = str(note.folder)
    plain["spent"] = plain_spent(_all(note))
    for part, of in (("now", note.now), ("earlier", note.earlier)):
        plain[part]["spent"] = spent(of.spent)
        plain[part]["usd_at_most"] = f"{of.usd_at_most:f}"
    return plain


def _errors_of(folder: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """What failed, from the one numbered ``after`` on; of a run that has not ended, until now."""
    for name in ("errors.jsonl.part", "errors.jsonl"):
        try:
            file = (folder / name).open("rb")
        except FileNotFoundError:
            continue
        with file:
            for line in islice(file, after, None):
                if line.endswith(b"\n"):  # else it is still being written
                    yield json.loads(line)
        return


def _grouped(failed: Iterator[dict[str, Any]], examples: int) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in failed:
        reason = _reason(line["message"])
        key = line["node"], line["error"], reason
        group = groups.setdefault(
            key,
            {
                "node": line["node"],
                "error": line["error"],
                "reason": reason,
                "count": 0,
                "examples": [],
            },
        )
        group["count"] += 1
        if len(group["examples"]) < examples:
            shown = {name: line[name] for name in ("id", "row", "message")}
            group["examples"].append(shown)
    return sorted(groups.values(), key=lambda group: -group["count"])


def _reason(message: str) -> str:
    """What is the same in the messages of many rows: not their numbers and values."""
    import re

    return re.sub(
        r"'[^']*'|\"[^\"]*\"|\d+(\.\d+)?", "…", message.splitlines()[0] if message else ""
    )
