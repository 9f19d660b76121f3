"""What a worker says of a partition: how it stands, what it spent, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import asdict, evolve, field, fields, frozen
from msgspec import json

from headrace.chains.pace import EngineGoneError
from headrace.chains.runs import NAME, Earlier, read_run
from headrace.chains.spending import Spent, plain_spent, spent_of
from headrace.chains.standing import BatchStanding, NodeStanding, Standing
from headrace.contracts import errors
from headrace.contracts.errors import LLMError, LLMUnavailableError

State: TypeAlias = Literal["running", "done", "stopped", "failed"]


@frozen(kw_only=True)
class Report:
    """A partition at one moment. ``spent`` and ``usd_at_most`` are of all attempts at it, and
    ``reason`` says why it stopped; ``error`` names what it failed with."""

    state: State = "running"
    standing: Standing = field(factory=Standing)
    spent: Mapping[str, Spent] = field(factory=dict)
    usd_at_most: Decimal = Decimal(0)
    reason: str | None = None
    error: str | None = None


def report_to_plain(report: Report) -> bytes:
    """``report`` on its way."""
    return json.encode(
        {
            **asdict(report, recurse=False),
            "standing": asdict(report.standing),
            "spent": {step: plain_spent(each) for step, each in report.spent.items()},
            "usd_at_most": f"{report.usd_at_most:f}",
        }
    )


def report_from_plain(data: bytes) -> Report:
    """What ``report_to_plain`` wrote."""
    plain: dict[str, Any] = json.decode(data)
    standing = plain["standing"]
    nodes = {node: NodeStanding(**each) for node, each in standing.pop("nodes").items()}
    batches = {name: BatchStanding(**each) for name, each in standing.pop("batches").items()}
    plain["standing"] = Standing(**standing, nodes=nodes, batches=batches)
    plain["spent"] = {step: spent_of(each) for step, each in plain["spent"].items()}
    plain["usd_at_most"] = Decimal(plain["usd_at_most"])
    return Report(**plain)


def before_at(folder: Path) -> Earlier:
    """What was spent on the partition in ``folder`` until now."""
    if not (folder / NAME).exists():
        return Earlier()
    note = read_run(folder)
    return note.earlier.and_then(note.now)


def sum_of(standings: Iterable[Standing]) -> Standing:
    """All of them together."""
    whole = Standing()
    for each in standings:
        for name in (name.name for name in fields(Standing)):
            if name not in ("nodes", "batches"):
                setattr(whole, name, getattr(whole, name) + getattr(each, name))
        whole.batches |= each.batches
        for node, stands in each.nodes.items():
            of = whole.of(node)
            for name in (name.name for name in fields(NodeStanding)):
                setattr(of, name, getattr(of, name) + getattr(stands, name))
    return whole


def since(spent: Spent, before: Spent | None) -> Spent:
    """``spent`` without what was spent ``before``."""
    if before is None:
        return evolve(spent)
    return Spent(
        **{
            each.name: getattr(spent, each.name) - getattr(before, each.name)
            for each in fields(Spent)
        }
    )


def failure(report: Report) -> LLMError:
    """The error that a partition failed with."""
    assert report.error is not None
    kind = EngineGoneError if report.error == EngineGoneError.__name__ else None
    found = kind or getattr(errors, report.error, None)
    if not (isinstance(found, type) and issubclass(found, LLMError)):
        return LLMUnavailableError(f"{report.error}: {report.reason}")
    made: LLMError = found(report.reason or "")
    return made
