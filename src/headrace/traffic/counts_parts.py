"""What an endpoint did in one process, as a value that travels to another and adds up there.

As ``numbers.parts`` has it for calls: a part is what came since the part before it.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from headrace.numbers.parts import Spread, histogram_of, spread_of
from headrace.traffic.counts import Counts
from headrace.traffic.lane import Lane


class CountsPart(Struct, array_like=True, frozen=True):
    """What Counts counted."""

    requests: int
    successes: int
    cancelled: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    price_usd: Decimal
    priced: int
    failures: dict[str, int]
    latency: Spread
    last_error: str | None
    last_error_at: float | None


class EndpointPart(Struct, array_like=True, frozen=True):
    """The same of an endpoint by its name, and of each of its keys where there are several."""

    name: str
    counts: CountsPart
    keys: list[CountsPart]


def take_endpoint(lane: Lane) -> EndpointPart | None:
    """What was counted of ``lane`` since that was last taken; ``None`` where it was nothing."""
    parts = [_take(counts) for counts in _all_of(lane)]
    if not any(map(_is_something, parts)):
        return None
    return EndpointPart(lane.name, parts[0], parts[1:])


def add_endpoint(lane: Lane, part: EndpointPart) -> None:
    """Count what ``part`` holds as if it had been done by ``lane``."""
    # One that was given other keys meanwhile has none to which the old ones' counts belong.
    for counts, each in zip(_all_of(lane), (part.counts, *part.keys), strict=False):
        _add(counts, each)


def _all_of(lane: Lane) -> list[Counts]:
    return [lane.counts, *(() if lane.keys is None else (key.counts for key in lane.keys))]


def _is_something(part: CountsPart) -> bool:
    ended = part.successes + part.cancelled + len(part.failures)
    return bool(part.requests or ended or part.retries or part.priced or part.prompt_tokens)


def _take(counts: Counts) -> CountsPart:
    taken = counts.taken()
    return CountsPart(
        requests=taken.requests,
        successes=taken.successes,
        cancelled=taken.cancelled,
        retries=taken.retries,
        prompt_tokens=taken.prompt_tokens,
        completion_tokens=taken.completion_tokens,
        price_usd=taken.price_usd,
        priced=taken.priced,
        failures=taken.failures,
        latency=spread_of(taken.latency),
        last_error=taken.last_error,
        last_error_at=taken.last_error_at,
    )


def _add(counts: Counts, part: CountsPart) -> None:
    mine = counts.sums
    mine.requests += part.requests
    mine.successes += part.successes
    mine.cancelled += part.cancelled
    mine.retries += part.retries
    mine.prompt_tokens += part.prompt_tokens
    mine.completion_tokens += part.completion_tokens
    mine.price_usd += part.price_usd
    mine.priced += part.priced
    for kind, number in part.failures.items():
        mine.failures[kind] = mine.failures.get(kind, 0) + number
    mine.latency.merge(histogram_of(part.latency))
    if part.last_error is not None and (part.last_error_at or 0) >= (mine.last_error_at or 0):
        mine.last_error, mine.last_error_at = part.last_error, part.last_error_at
