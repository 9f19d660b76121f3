"""What ``headrace run`` tells on standard error while it goes on: lines, or events as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from headrace.chains.look import Look
    from headrace.chains.reading import Row
    from headrace.chains.standing import BatchStanding
    from headrace.chains.walk import Failed


class Tells(Protocol):
    """Whoever tells how a run goes. ``every_s`` is how often it wants to look."""

    every_s: float

    def begin(self, look: Look) -> None: ...

    def shows(self, look: Look) -> None: ...

    def failed(self, row: Row, failed: Failed) -> None: ...

    def end(self) -> None:
        """Nothing more comes, but what the command says last."""


class Silence:
    """Tells nothing."""

    every_s = 60.0

    def begin(self, look: Look) -> None: ...

    def shows(self, look: Look) -> None: ...

    def failed(self, row: Row, failed: Failed) -> None: ...

    def end(self) -> None: ...


class Lines(Silence):
    """A line now and then, for what is no terminal."""

    every_s = 5.0

    def shows(self, look: Look) -> None:
        sys.stderr.write(f"{line_of(look)}\n")
        sys.stderr.flush()


class Events:
    """One JSON object a line. A row's error is named, and what it holds is left to errors.jsonl."""

    every_s = 2.0

    def __init__(self, **started: Any) -> None:
        self._started = started

    def begin(self, look: Look) -> None:
        self.event("start", **self._started, rows_known=look.rows_known)

    def shows(self, look: Look) -> None:
        from headrace.chains.look import plain_look

        self.event("progress", **plain_look(look))

    def failed(self, row: Row, failed: Failed) -> None:
        self.event("row_error", id=row.id, row=row.number, node=failed.node, error=failed.error)

    def end(self) -> None: ...

    def event(self, event: str, **told: Any) -> None:
        """One line."""
        sys.stderr.write(json.dumps({"event": event, **told}, ensure_ascii=False) + "\n")
        sys.stderr.flush()


def line_of(look: Look) -> str:
    """``look`` in one line."""
    of = "" if look.rows_known is None else f" of {look.rows_known}"
    said = [
        f"{look.rows}{of} rows",
        f"{look.rows_a_second:.0f} rows/s",
        f"{look.made} asked",
        f"{look.reused} done before",
        f"{look.failed} failed",
        f"{look.tokens_a_second:.0f} tok/s",
    ]
    if look.retries:
        said.append(f"{look.retries} retries")
    return "; ".join([", ".join(said + cost_of(look)), *map(batch_of, look.batches)])


def batch_of(batch: BatchStanding) -> str:
    """A batch that is under way, in words."""
    over = batch.done + batch.failed
    return (
        f"{batch.step}: batch {batch.id} at {batch.provider} is {batch.phase}, "
        f"{over} of {batch.total} done"
    )


def cost_of(look: Look) -> list[str]:
    """What was paid and is to be paid, in words; nothing where no price is known."""
    said = []
    if look.usd or look.usd_to_go:
        said.append(f"{dollars(look.usd)} paid")
        if look.usd_to_go:
            said.append(f"about {dollars(look.usd_to_go)} to go")
    if look.usd_before:
        said.append(f"{dollars(look.usd_before)} before")
    if look.unpriced and (look.usd or look.usd_before):
        said.append(f"{look.unpriced} answers of unknown price")
    return said


def dollars(usd: Any) -> str:
    """An amount, with so many digits that a small one is seen."""
    return f"${usd:.2f}" if usd >= 1 else f"${float(usd):.4g}"
