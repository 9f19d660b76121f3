"""Leaving a call, wherever it is: its places come back, its upstream closes, its record is left."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.record import Marks
from headrace.net.scripted import ScriptedAnswer
from headrace.traffic.call import CallSheet
from traffic.chance import scripted_by_chance
from traffic.play import (
    ASK,
    PATIENT,
    Stage,
    answer,
    broken,
    is_idle,
    play,
    refusal,
)

HANG = ScriptedAnswer(fault="hang")
BUSY = refusal(429, ("retry-after", "30"))
LONG = answer(*"abcdef", gap_s=10)


def cancelled(stage):
    """The last record, of a call that was cancelled."""
    record = stage.records[-1]
    assert (record.error_kind, record.status) == ("LLMCancelledError", 499)
    assert record.timeline.done == stage.clock.monotonic()
    return record


async def leave_after(stage, seconds, lane, *others, **how):
    task = asyncio.ensure_future(stage.text(lane, *others, **how))
    await stage.clock.advance(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def kinds(record):
    return [attempt.error_kind for attempt in record.attempts]


def test_in_the_queue():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([LONG], max_running=1, limits=PATIENT)
        running = asyncio.ensure_future(stage.text(lane))
        await stage.clock.advance(1)
        await leave_after(stage, 2, lane)
        record = cancelled(stage)
        assert record.timeline.admitted is None
        assert record.attempts == ()
        assert (lane.admission.running, lane.admission.waiting) == (1, 0)
        await stage.clock.advance(100)
        assert await running == "abcdef"
        assert is_idle(lane)

    play(main)


def test_waiting_for_the_answer_to_begin():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([HANG], limits=PATIENT)
        await leave_after(stage, 5, lane)
        assert kinds(cancelled(stage)) == ["LLMCancelledError"]
        assert is_idle(lane)
        assert stage.clock.sleepers == 0

    play(main)


def test_waiting_to_ask_again():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([BUSY], limits=PATIENT)
        await leave_after(stage, 5, lane)
        assert kinds(cancelled(stage)) == ["LLMRateLimitError"]
        assert stage.sent() == 1
        assert is_idle(lane)
        assert stage.clock.sleepers == 0

    play(main)


def test_in_the_middle_of_the_answer():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([LONG], limits=PATIENT)
        await leave_after(stage, 25, lane)
        record = cancelled(stage)
        assert record.chunks == 2
        assert kinds(record) == ["LLMCancelledError"]
        assert stage.transports["first"].replies[0].closed_early
        assert is_idle(lane)

    play(main)


def test_at_the_second_attempt():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([BUSY, HANG], limits=PATIENT)
        await leave_after(stage, 40, lane)
        assert kinds(cancelled(stage)) == ["LLMRateLimitError", "LLMCancelledError"]
        assert is_idle(lane)

    play(main)


def test_at_the_second_backend():
    async def main():
        stage = Stage(auto=False)
        lanes = [stage.lane([refusal(500)], "a"), stage.lane([HANG], "b", limits=PATIENT)]
        await leave_after(stage, 5, *lanes)
        record = cancelled(stage)
        assert record.backend == "b"
        assert kinds(record) == ["LLMProviderError", "LLMCancelledError"]
        assert [lane.stats().cancelled for lane in lanes] == [0, 1]
        assert all(map(is_idle, lanes))

    play(main)


@pytest.mark.parametrize("taken", [1, 3])
def test_by_closing_the_generator(taken):
    async def main():
        stage = Stage()
        lane = stage.lane([LONG], limits=PATIENT)
        sheet = CallSheet(call_id="c", operation="chat", queued=0.0)
        run = stage.traffic.run(ASK, lane, sheet, Marks())
        for _ in range(taken):
            await anext(run)
        await run.aclose()
        assert kinds(cancelled(stage)) == ["LLMCancelledError"]
        assert stage.transports["first"].replies[0].closed_early
        assert is_idle(lane)

    play(main)


def test_a_cancelled_call_counts_neither_as_success_nor_as_failure():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([HANG] * 9, limits=PATIENT)
        for _ in range(9):
            await leave_after(stage, 1, lane)
        stats = lane.stats()
        assert (stats.requests, stats.cancelled, stats.successes, stats.failures) == (9, 9, 0, {})
        assert stats.circuit == "closed"

    play(main)


@given(data=st.data())
def test_at_any_moment(data):
    """Calls of every fate, cancelled at any moment: nothing is held, open or unrecorded after."""
    fates = [answer(), LONG, HANG, BUSY, refusal(500), refusal(400), broken(), broken(b": x\n\n")]

    async def main():
        stage = Stage(auto=False, seed=data.draw(st.integers()))
        lanes = scripted_by_chance(stage, data, fates, "ab")
        others = lanes[1 : data.draw(st.integers(1, 2))]
        tasks = []
        for _ in range(data.draw(st.integers(1, 8))):
            tasks.append(asyncio.ensure_future(stage.text(lanes[0], *others)))
            await stage.clock.advance(data.draw(st.sampled_from([0, 0, 1, 5])))
            if data.draw(st.booleans()):
                data.draw(st.sampled_from(tasks)).cancel()
        for task in tasks:
            for _ in range(data.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(map(is_idle, lanes))
        assert stage.clock.sleepers == 0
        assert len(stage.records) == len(tasks) - sum(
            task.cancelled() and not any(r.call_id == f"call-{n}" for r in stage.records)
            for n, task in enumerate(tasks, 1)
        )
        for transport in stage.transports.values():
            assert all(reply.ended for reply in transport.replies)
        for lane in lanes:
            stats = lane.stats()
            ended = stats.successes + stats.cancelled + sum(stats.failures.values())
            assert stats.requests == ended
        assert stage.tally.snapshot(1.0).running == stage.tally.snapshot(1.0).queued == 0

    play(main)
