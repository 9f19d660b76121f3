"""Leaving a hedged call, wherever it is: both attempts end, and nothing is held."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMError
from headrace.net.scripted import ScriptedAnswer
from traffic.chance import scripted_by_chance
from traffic.play import (
    EVENTS,
    OPENING,
    Stage,
    answer,
    broken,
    is_idle,
    play,
    refusal,
    said,
)
from traffic.test_hedge import (
    FILTERED,
    HANG,
    QUICK,
    SLOW,
    after,
    later,
    two,
)


class Lingering:
    """A backend that takes some turns of the loop to end what was asked of it."""

    def __init__(self, backend):
        self._backend, self.name = backend, backend.name

    async def stream(self, request, marks):
        async with aclosing(self._backend.stream(request, marks)) as pieces:
            try:
                async for piece in pieces:
                    yield piece
            finally:
                for _ in range(4):
                    await asyncio.sleep(0)


def turns_from_now(turns: int) -> asyncio.Future[None]:
    """Comes after so many turns of the loop; the clock moves by itself meanwhile."""
    loop = asyncio.get_running_loop()
    there: asyncio.Future[None] = loop.create_future()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            there.set_result(None)

    turn(turns)
    return there


@pytest.mark.parametrize("lingers", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    "scripts",
    [
        (SLOW, QUICK),
        (answer("late", after_s=6), HANG),
        (answer("late", after_s=6), answer("at once", after_s=1)),
        (later(refusal(500), 8), answer("second", after_s=5)),
        (SLOW, later(refusal(500), 2)),
        (ScriptedAnswer(headers=EVENTS, body=(OPENING,), fault="hang"), QUICK),
    ],
)
def test_a_caller_may_leave_in_every_turn_of_the_loop(lingers, times, scripts):
    """Whatever is under way: nothing is held, nothing open, no task left, and one record is."""

    async def left_after(turns: int) -> bool:
        stage = Stage()
        lanes = two(stage, *scripts, retry=None)
        if lingers:
            lanes = [evolve(lane, backend=Lingering(lane.backend)) for lane in lanes]
        task = asyncio.ensure_future(stage.text(*lanes, hedging=after(5)))
        await turns_from_now(turns)
        answered = task.done()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({task})
        assert all(map(is_idle, lanes))
        assert stage.clock.sleepers == 0
        assert len(stage.records) == (turns > 0)
        for transport in stage.transports.values():
            assert all(reply.ended for reply in transport.replies)
        for lane in lanes:
            s = lane.stats()
            assert s.requests == s.successes + s.cancelled + sum(s.failures.values())
        assert stage.tally.snapshot(1.0).running == stage.tally.snapshot(1.0).queued == 0
        return answered

    async def main():
        turns = 0
        while not await left_after(turns):
            turns += 1
        assert turns > 12

    play(main)


FATES = [
    *(answer(), QUICK, SLOW, HANG, answer(*"abc", gap_s=10), answer("late", after_s=6)),
    *(refusal(429, ("retry-after", "30")), refusal(500), later(refusal(500), 7), refusal(400)),
    *(broken(), broken(OPENING), broken(said("x")), FILTERED),
]


@given(data=st.data())
def test_calls_of_every_fate_that_are_left_at_any_moment_leave_nothing_behind(data):
    async def main():
        stage = Stage(auto=False, seed=data.draw(st.integers()))
        lanes = scripted_by_chance(stage, data, FATES, "abc")
        others = lanes[1 : data.draw(st.integers(1, 3))]
        same = data.draw(st.booleans())
        hedging = after(5, max_extra=data.draw(st.sampled_from([1.0, 0.5])), same_backend=same)
        tasks = []
        for _ in range(data.draw(st.integers(1, 8))):
            stream = data.draw(st.booleans())
            call = stage.text(lanes[0], *others, hedging=hedging, stream=stream)
            tasks.append(asyncio.ensure_future(call))
            await stage.clock.advance(data.draw(st.sampled_from([0, 0, 1, 5, 6])))
            if data.draw(st.booleans()):
                data.draw(st.sampled_from(tasks)).cancel()
        await stage.clock.advance(data.draw(st.sampled_from([0, 5, 40])))
        for task in tasks:
            for _ in range(data.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(e, str | LLMError | asyncio.CancelledError) for e in ends), ends
        assert all(map(is_idle, lanes))
        assert stage.clock.sleepers == 0
        for transport in stage.transports.values():
            assert all(reply.ended for reply in transport.replies)
        for lane in lanes:
            s = lane.stats()
            assert s.requests == s.successes + s.cancelled + sum(s.failures.values())
        for record in stage.records:
            begins = [attempt.begin for attempt in record.attempts]
            assert begins == sorted(begins)
            assert sum(attempt.hedged for attempt in record.attempts) <= 1
        assert stage.tally.snapshot(1.0).running == stage.tally.snapshot(1.0).queued == 0

    play(main)
