"""The transport that plays a script and the clock that is moved by hand."""

from __future__ import annotations

import asyncio
import time

import pytest

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.net.clock import SystemClock, World
from headrace.net.scripted import ManualClock, Piece, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import NO_LIMITS, HttpRequest, TimeLimits, Url

REQUEST = HttpRequest(url=Url(host="scripted"))


def test_requests_get_the_answers_in_turn_and_are_kept(run):
    async def main():
        transport = ScriptedTransport(
            [
                ScriptedAnswer(body=b"one", headers=(("X-A", "1"), ("x-a", "2"))),
                ScriptedAnswer(status=429, body=(b"t", b"wo")),
            ]
        )
        first = await transport.send(REQUEST, NO_LIMITS)
        second = await transport.send(REQUEST, NO_LIMITS)
        assert (first.status, first.headers, await first.read(10)) == (200, {"x-a": "1, 2"}, b"one")
        assert (second.status, [piece async for piece in second]) == (429, [b"t", b"wo"])
        assert transport.requests == [REQUEST, REQUEST]
        with pytest.raises(AssertionError, match="no answer to request 3: GET"):
            await transport.send(REQUEST, NO_LIMITS)

    run(main)


def test_the_answer_can_depend_on_the_request(run):
    async def main():
        transport = ScriptedTransport(lambda r: ScriptedAnswer(body=r.method.encode()))
        assert await (await transport.send(REQUEST, NO_LIMITS)).read(10) == b"GET"

    run(main)


@pytest.mark.parametrize(
    ("answer", "limits", "error", "at"),
    [
        (ScriptedAnswer(fault="refuse"), NO_LIMITS, LLMUnavailableError, 0),
        (ScriptedAnswer(fault="reset", after_s=1), NO_LIMITS, LLMUnavailableError, 1),
        (ScriptedAnswer(fault="hang"), TimeLimits(first_byte_s=7), LLMTimeoutError, 7),
        (ScriptedAnswer(after_s=9), TimeLimits(first_byte_s=7), LLMTimeoutError, 7),
        (ScriptedAnswer(body=b"x", fault="reset"), NO_LIMITS, LLMUnavailableError, 0),
        (ScriptedAnswer(body=b"x", fault="cut"), NO_LIMITS, LLMBadResponseError, 0),
        (ScriptedAnswer(fault="cut"), NO_LIMITS, LLMBadResponseError, 0),
        (ScriptedAnswer(body=b"x", fault="hang"), TimeLimits(idle_s=5), LLMTimeoutError, 5),
        (
            ScriptedAnswer(body=(b"x", Piece(data=b"y", after_s=6))),
            TimeLimits(idle_s=5),
            LLMTimeoutError,
            5,
        ),
        (
            ScriptedAnswer(body=(b"x", Piece(data=b"y", after_s=6)), after_s=2),
            TimeLimits(total_s=4),
            LLMTimeoutError,
            4,
        ),
    ],
)
def test_a_fault_comes_as_its_error_at_its_time(run, answer, limits, error, at):
    async def main():
        clock = ManualClock(monotonic=0.0, auto=True)
        transport = ScriptedTransport([answer], clock)
        with pytest.raises(error):
            await (await transport.send(REQUEST, limits)).read(10)
        assert clock.monotonic() == at

    run(main)


def test_what_the_caller_closes_or_leaves_before_the_end_is_noted(run):
    async def main():
        script = [ScriptedAnswer(body=(b"a", Piece(data=b"b", after_s=100)))] * 3
        clock = ManualClock()
        transport = ScriptedTransport(script, clock)
        closed = await transport.send(REQUEST, NO_LIMITS)
        await closed.aclose()
        with pytest.raises(LLMCancelledError):
            await closed.read(10)
        cancelled = await transport.send(REQUEST, NO_LIMITS)
        task = asyncio.ensure_future(cancelled.read(10))
        await clock.advance(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        whole = await transport.send(REQUEST, NO_LIMITS)
        task = asyncio.ensure_future(whole.read(10))
        await clock.advance(100)
        assert await task == b"ab"
        await transport.aclose()
        assert [r.closed_early for r in transport.replies] == [True, True, False]
        assert transport.closed

    run(main)


def test_an_advance_wakes_every_sleeper_at_its_own_instant_and_in_order(run):
    async def main():
        clock, woken = ManualClock(monotonic=0.0, wall=100.0), []

        async def sleeper(name, *naps):
            for nap in naps:
                await clock.sleep(nap)
                woken.append((name, clock.monotonic(), clock.wall()))

        tasks = [asyncio.ensure_future(sleeper("a", 3, 4)), asyncio.ensure_future(sleeper("b", 2))]
        await clock.advance(1)
        assert (woken, clock.monotonic(), clock.sleepers) == ([], 1.0, 2)
        await clock.advance(5)
        assert woken == [("b", 2.0, 102.0), ("a", 3.0, 103.0)]
        await clock.advance(10)
        assert woken[2:] == [("a", 7.0, 107.0)]
        assert clock.monotonic() == 16.0
        await asyncio.gather(*tasks)

    run(main)


def test_an_automatic_clock_moves_only_when_everybody_sleeps(run):
    async def main():
        clock, seen = ManualClock(monotonic=0.0, auto=True), []

        async def busy():
            for _ in range(100):
                await asyncio.sleep(0)
            seen.append(clock.monotonic())
            await clock.sleep(60)
            seen.append(clock.monotonic())

        async def quick():
            await clock.sleep(1)
            seen.append(clock.monotonic())

        await asyncio.gather(busy(), quick())
        assert seen == [0.0, 1.0, 60.0]

    run(main)


def test_a_cancelled_sleeper_does_not_hold_time_up(run):
    async def main():
        clock = ManualClock(monotonic=0.0, auto=True)
        task = asyncio.ensure_future(clock.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await clock.sleep(20)
        assert clock.monotonic() == 20.0
        assert clock.sleepers == 0

    run(main)


def test_a_timer_rings_at_its_instant_unless_it_was_called_off(run):
    async def main():
        clock, rung = ManualClock(monotonic=0.0), []
        clock.call_later(3, lambda: rung.append(clock.monotonic()))
        clock.call_later(2, lambda: rung.append(clock.monotonic()))
        clock.call_later(1, lambda: rung.append("never")).cancel()
        await clock.advance(2)
        assert rung == [2.0]
        await clock.advance(2)
        assert rung == [2.0, 3.0]
        assert clock.sleepers == 0

    run(main)


def test_a_world_has_the_systems_clock_unless_given_another(run):
    async def main():
        world = World(transport=ScriptedTransport([]))
        assert isinstance(world.clock, SystemClock)
        before, wall = time.monotonic(), time.time()
        await world.clock.sleep(0.001)
        assert world.clock.monotonic() >= before + 0.0005
        assert abs(world.clock.wall() - wall) < 60

    run(main)
