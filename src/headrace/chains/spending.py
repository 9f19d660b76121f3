"""What a run's calls used and cost, by the records that they leave: retries and further asks too.

A step's work on one value is a bill: every call made for it is on it, also those that came to
nothing. Bills add up by step, and so by engine and run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

from attrs import asdict, define, evolve, fields

from headrace.chains.journal import Done
from headrace.contracts.record import Attempt, CallRecord
from headrace.contracts.responses import LLMResponse, Usage

# Whoever got so far may have begun to answer, and to count.
_ANSWERED = 200


@define
class Spent:
    """Calls and what they used.

    ``retries`` are attempts beyond a call's first and calls that follow on one without an answer,
    ``failed`` those calls. ``usd`` is
    what is known to have been paid; ``unpriced`` answers have no known price, and of ``untold``
    attempts, which broke off while they were answered, nobody said what they used. ``seconds`` is
    how long the calls took, from when they were sent, one added to the other.
    """

    calls: int = 0
    retries: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    untold: int = 0
    seconds: float = 0.0

    def take(self, record: CallRecord) -> None:
        """One more call."""
        self.calls += 1
        self.retries += max(0, len(record.attempts) - 1)
        line = record.timeline
        begun = line.admitted if line.sent is None else line.sent
        if begun is not None and line.done is not None:
            self.seconds += line.done - begun
        if record.error_kind is not None:
            self.failed += 1
        if record.usage is not None:
            self.prompt_tokens += record.usage.prompt_tokens or 0
            self.completion_tokens += record.usage.completion_tokens or 0
            if record.price_usd is None:
                self.unpriced += 1
            else:
                self.usd += record.price_usd
        elif record.error_kind is None:
            self.unpriced += 1
        for attempt in record.attempts:
            if attempt.usage is not None:  # one that lost a race, which is not in the record's own
                self.prompt_tokens += attempt.usage.prompt_tokens or 0
                self.completion_tokens += attempt.usage.completion_tokens or 0
                self.usd += attempt.price_usd or Decimal(0)
            elif _broke_off(attempt) and (
                record.usage is None or attempt is not record.attempts[-1]
            ):
                self.untold += 1

    def add(self, other: Spent) -> None:
        """All of ``other`` too."""
        for each in fields(Spent):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def _broke_off(attempt: Attempt) -> bool:
    return attempt.error_kind is not None and (
        attempt.status == _ANSWERED or attempt.error_kind == "LLMTimeoutError"
    )


@define
class Bill:
    """What the work of ``step`` on one value used so far; it counts among ``others`` of the step."""

    step: str
    spent: Spent
    others: Spent
    failed_last: bool = False

    def take(self, record: CallRecord) -> None:
        """One more call."""
        for each in (self.spent, self.others):
            each.take(record)
            each.retries += self.failed_last
        self.failed_last = record.error_kind is not None

    def has(self, came: LLMResponse) -> None:
        """An answer that came without a call, of a batch."""
        usage = came.usage if isinstance(came.usage, Usage) else Usage()
        told = Spent(
            calls=1,
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            usd=came.price_usd or Decimal(0),
            unpriced=int(came.price_usd is None),
        )
        self.spent.add(told)
        self.others.add(told)

    def on(self, done: Done) -> Done:
        """``done`` with all that its calls used. Where no record told of any (a client or a batch of
        somebody else's making), it is on the bill as it is."""
        spent = self.spent
        if not spent.calls:
            told = _spent_on(done)
            spent.add(told)
            self.others.add(told)
            return done
        unknown = spent.unpriced > 0 and not spent.usd
        usd = None if unknown else str(spent.usd)
        counted = (done.prompt_tokens, done.completion_tokens, done.price_usd)
        if counted == (spent.prompt_tokens, spent.completion_tokens, usd):
            return done  # one call, as nearly always: it has told all
        return evolve(
            done,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            price_usd=usd,
        )


def _spent_on(done: Done) -> Spent:
    return Spent(
        calls=1,
        failed=int(done.failed),
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        usd=Decimal(done.price_usd or 0),
        unpriced=int(done.price_usd is None),
    )


_bill: ContextVar[Bill | None] = ContextVar("bill", default=None)


class Spending:
    """What was spent by step; it takes the records of the calls that are made on its bills."""

    def __init__(self) -> None:
        self.by_step: dict[str, Spent] = {}
        self.running: dict[str, int] = {}
        """How many values each step is being asked for now."""

    def __call__(self, record: CallRecord) -> None:
        bill = _bill.get()
        if bill is None:
            return
        bill.take(record)

    def of(self, step: str) -> Spent:
        """What the step of that id spent."""
        found = self.by_step.get(step)
        if found is None:
            found = self.by_step[step] = Spent()
        return found

    @property
    def all(self) -> Spent:
        """What all of them spent."""
        return total(self.by_step)

    @contextmanager
    def bill(self, step: str) -> Iterator[Bill]:
        """What is called within is on this bill."""
        bill = Bill(step, Spent(), self.of(step))
        before = _bill.set(bill)
        self.running[step] = self.running.get(step, 0) + 1
        try:
            yield bill
        finally:
            self.running[step] -= 1
            _bill.reset(before)


def total(by_step: Mapping[str, Spent]) -> Spent:
    """All of them together."""
    whole = Spent()
    for each in by_step.values():
        whole.add(each)
    return whole


def plain_spent(spent: Spent) -> dict[str, Any]:
    """``spent`` for JSON; money as text, so that no digit is lost."""
    return {**asdict(spent), "usd": f"{spent.usd:f}", "seconds": round(spent.seconds, 3)}


def spent_of(plain: Mapping[str, Any]) -> Spent:
    """What ``plain_spent`` wrote."""
    known = {each.name for each in fields(Spent)}
    told = {name: value for name, value in plain.items() if name in known}
    return Spent(**{**told, "usd": Decimal(told.get("usd", "0"))})
