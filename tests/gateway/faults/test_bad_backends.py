"""Backends that fail, each in its way, one of several for a model: what callers and backends see."""

from __future__ import annotations

import asyncio
import statistics
import time

from gateway.faults.caller import ask, request, streamed
from gateway.faults.conftest import FULL
from gateway.faults.upstream import Upstream, always, begun, good, hanging, refused
from gateway.served import Served

FIRST_TOKEN_S = 0.3
IDLE_S = 0.3
STORM_S = 10 if FULL else 4.5
STORM_RATE = 500 if FULL else 40

PLAYS = {
    "bad": always(refused(500)),
    "busy": always(refused(429, b"Retry-After: 2\r\n")),
    "ill": always(refused(500)),
    "ill_too": always(refused(503)),
    "never_shut": always(refused(500)),
    "never_shut_too": always(refused(500)),
    "hanging": hanging,
    "begun": begun,
    "backup": good,
}
BACKENDS = {
    "hanging": {"first_token_timeout_ms": 300, "breaker_failures": 0},
    "begun": {"idle_timeout_ms": 300, "breaker_failures": 0},
    "never_shut": {"breaker_failures": 0},
    "never_shut_too": {"breaker_failures": 0},
}


def route(name: str, *backends: str) -> dict[str, object]:
    return {"name": name, "backends": [{"backend": backend} for backend in backends]}


ROUTES = [
    route("one-bad", "bad", "backup"),
    route("one-busy", "busy", "backup"),
    route("both-ill", "ill", "ill_too"),
    route("both-ill-for-ever", "never_shut", "never_shut_too"),
    route("one-hangs", "hanging", "backup"),
    route("one-falls-silent", "begun", "backup"),
]


async def many(front: Served, model: str, count: int, at_once: int) -> list[int]:
    """The statuses of so many requests, ``at_once`` of them side by side."""
    left, statuses = iter(range(count)), []

    async def one_after_another() -> None:
        for _ in left:
            status, _, _ = await ask(front, request("chat", model, stream=False))
            statuses.append(status)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return statuses


def test_an_always_bad_backend_costs_no_request_and_is_hardly_asked(
    front: Served, upstream: Upstream
) -> None:
    before = upstream.hits.copy()
    statuses = asyncio.run(many(front, "one-bad", 1000, at_once=4))
    assert statuses == [200] * 1000
    assert upstream.hits["bad"] - before["bad"] <= 10
    assert upstream.hits["backup"] - before["backup"] == 1000


def test_one_that_asks_for_patience_is_tried_now_and_then(
    front: Served, upstream: Upstream
) -> None:
    """A storm of requests at a steady rate, whether or not those before were answered."""

    async def storm() -> list[int]:
        calls = []
        begin = time.monotonic()
        for number in range(int(STORM_S * STORM_RATE)):
            await asyncio.sleep(begin + number / STORM_RATE - time.monotonic())
            asked = ask(front, request("chat", "one-busy", stream=False))
            calls.append(asyncio.ensure_future(asked))
        return [status for status, _, _ in await asyncio.gather(*calls)]

    before = upstream.hits.copy()
    seen = len(upstream.times.get("busy", ()))
    statuses = asyncio.run(storm())
    assert statuses == [200] * len(statuses)
    times = upstream.times["busy"][seen:]
    hits = len(times) + upstream.hits["backup"] - before["backup"]
    assert hits <= 1.1 * len(statuses)
    for begin in times:
        assert sum(begin <= at < begin + 2 for at in times) <= 3, times


def test_where_both_fail_a_request_costs_hardly_more_than_one_attempt(
    front: Served, upstream: Upstream
) -> None:
    before = upstream.hits.copy()
    statuses = asyncio.run(many(front, "both-ill", 500, at_once=10))
    assert set(statuses) <= {502, 503}
    # Five each to find them out, and the ten that were under way then.
    assert (upstream.hits - before).total() <= 2 * (5 + 10)


def test_the_same_holds_where_no_breaker_opens(front: Served, upstream: Upstream) -> None:
    before = upstream.hits.copy()
    statuses = asyncio.run(many(front, "both-ill-for-ever", 500, at_once=10))
    assert set(statuses) <= {502, 503}
    # One each, ten more that found them out, ten under way then, and the floor of 20 in 10 s each.
    assert (upstream.hits - before).total() <= 500 + 2 * (10 + 10) + 2 * 20


def test_a_hang_before_the_first_byte_costs_the_first_token_limit_and_no_more(
    front: Served, upstream: Upstream
) -> None:
    async def main() -> list[float]:
        took = []
        for _ in range(5):
            begin = time.monotonic()
            assert await streamed(front, "chat", "one-hangs") == ("fine", "whole")
            took.append(time.monotonic() - begin)
        return took

    took = asyncio.run(main())
    assert min(took) >= FIRST_TOKEN_S * 0.99
    assert statistics.median(took) <= FIRST_TOKEN_S + 0.2


def test_silence_in_the_middle_of_a_stream_ends_it_as_an_error(
    front: Served, upstream: Upstream
) -> None:
    async def main() -> None:
        before = upstream.hits["backup"]
        for face in ("chat", "completions", "messages", "responses", "gemini"):
            begin = time.monotonic()
            assert await streamed(front, face, "one-falls-silent") == ("once", "error")
            assert time.monotonic() - begin >= IDLE_S * 0.99
        assert upstream.hits["backup"] == before

    asyncio.run(main())
