"""A load test's counts as values that travel to another process or machine, to be added up there."""

from __future__ import annotations

from msgspec import Struct

from headrace.numbers.histogram import LogHistogram
from headrace.numbers.load_figures import Sums


class ErrorsPart(Struct, array_like=True):
    """Failures of one kind and status; ``first`` is when the example's was."""

    kind: str
    status: int | None
    count: int
    first: float
    example: str


class Odds(Struct):
    """The few counts that stand for themselves."""

    warmup: int = 0
    cooldown: int = 0
    sent_beside: int = 0
    never_sent: int = 0
    longest_wait_s: float = 0.0
    pieces: int = 0
    coalesced: int = 0
    first_together: int = 0
    all_tokens: int = 0
    by_pieces: int = 0
    no_tokens: int = 0
    strange_counts: int = 0
    failed_beside: int = 0


class SumsPart(Struct):
    """A Sums."""

    ok: int
    failed: int
    cut: int
    sent: int
    good: int
    input_tokens: int
    output_tokens: int
    begin: float | None
    end: float | None
    itl: dict[str, object]
    beyond: dict[str, dict[str, object]]


class TallyPart(Struct):
    """A LoadTally."""

    rows: dict[str, object]
    sums: list[tuple[str | None, SumsPart]]
    course: dict[str, object]
    schedule_lag: dict[str, object]
    read_lag: dict[str, object]
    loop_lag: dict[str, object]
    errors: list[ErrorsPart]
    odds: Odds


def sums_part(s: Sums) -> SumsPart:
    """``s`` as it travels."""
    return SumsPart(
        ok=s.ok,
        failed=s.failed,
        cut=s.cut,
        sent=s.sent,
        good=s.good,
        input_tokens=s.input_tokens,
        output_tokens=s.output_tokens,
        begin=s.begin,
        end=s.end,
        itl=s.itl.to_plain(),
        beyond={name: h.to_plain() for name, h in s.beyond.items()},
    )


def sums_of_part(p: SumsPart) -> Sums:
    """What ``sums_part`` wrote."""
    return Sums(
        ok=p.ok,
        failed=p.failed,
        cut=p.cut,
        sent=p.sent,
        good=p.good,
        input_tokens=p.input_tokens,
        output_tokens=p.output_tokens,
        begin=p.begin,
        end=p.end,
        itl=LogHistogram.from_plain(p.itl),
        beyond={name: LogHistogram.from_plain(h) for name, h in p.beyond.items()},
    )
