"""Who goes before whom."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMRateLimitError
from headrace.net.scripted import ManualClock
from headrace.traffic.admission import PASSED_OVER, Admission
from traffic.play import ASK, Stage, answer, is_idle, play

PRIORITIES = ("high", "normal", "low")


def door(**changes):
    return Admission(
        **{
            "max_running": 1,
            "max_waiting": 1000,
            "timeout_s": 1000,
            "clock": ManualClock(),
            **changes,
        }
    )


async def order_of(arrivals, admission):
    """The numbers of ``arrivals`` (priorities) in the order in which they were let in."""
    let_in = []
    await admission.enter()

    async def come(number, priority):
        await admission.enter(priority=priority)
        let_in.append(number)

    tasks = []
    for number, priority in enumerate(arrivals):
        tasks.append(asyncio.ensure_future(come(number, priority)))
        await asyncio.sleep(0)
    for _ in arrivals:
        admission.leave()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    admission.leave()
    assert (admission.running, admission.waiting) == (0, 0)
    return let_in


def test_high_goes_before_normal_and_normal_before_low():
    async def main():
        order = await order_of(["low", "normal", "high", "low", "normal", "high"], door())
        assert order == [2, 5, 1, 4, 0, 3]

    play(main)


@given(st.lists(st.sampled_from(PRIORITIES), max_size=60))
def test_within_one_priority_the_order_is_that_of_arrival(arrivals):
    async def main():
        order = await order_of(arrivals, door())
        assert sorted(order) == list(range(len(arrivals)))
        for priority in PRIORITIES:
            mine = [number for number in order if arrivals[number] == priority]
            assert mine == sorted(mine)

    play(main)


@given(st.lists(st.sampled_from(PRIORITIES), max_size=60))
def test_nobody_is_passed_over_for_ever(arrivals):
    """Of eight in a row at least one is who has waited longest, while he has waited longer."""

    async def main():
        order = await order_of(arrivals, door())
        for place in range(len(order) - PASSED_OVER):
            oldest = min(order[place:])
            assert oldest in order[place : place + PASSED_OVER + 1]

    play(main)


def test_a_low_one_gets_its_turn_though_high_ones_never_cease():
    async def main():
        admission = door()
        await admission.enter()
        low = asyncio.ensure_future(admission.enter(priority="low"))
        await asyncio.sleep(0)
        high = [asyncio.ensure_future(admission.enter(priority="high")) for _ in range(3)]
        turns = 0
        while not low.done():
            high.append(asyncio.ensure_future(admission.enter(priority="high")))
            await asyncio.sleep(0)
            admission.leave()
            await asyncio.sleep(0)
            turns += 1
        assert turns == PASSED_OVER + 1
        for task in high:
            task.cancel()
        await asyncio.gather(*high, return_exceptions=True)

    play(main)


def test_who_comes_again_goes_before_others_of_its_priority_and_is_never_one_too_many():
    async def main():
        admission, let_in = door(max_waiting=3), []
        await admission.enter()

        async def come(name, **how):
            await admission.enter(**how)
            let_in.append(name)

        tasks = []
        for name, how in {
            "first": {},
            "second": {},
            "high": {"priority": "high"},
            "again": {"again": True},
            "again too": {"again": True},
            "low again": {"again": True, "priority": "low"},
        }.items():
            tasks.append(asyncio.ensure_future(come(name, **how)))
            await asyncio.sleep(0)
        with pytest.raises(LLMRateLimitError, match="1 requests are running and 6 waiting"):
            await admission.enter(priority="high")
        for _ in tasks:
            admission.leave()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert let_in == ["high", "again", "again too", "first", "second", "low again"]

    play(main)


def test_the_priority_of_a_call_is_that_of_its_request():
    async def main():
        stage = Stage()
        texts = []
        lane = stage.lane([answer(gap_s=1) for _ in range(4)], max_running=1)

        async def call(priority):
            await stage.text(lane, request=evolve(ASK, priority=priority))
            texts.append(priority)

        async with asyncio.TaskGroup() as calls:
            for priority in ("normal", "low", "normal", "high"):
                calls.create_task(call(priority))
                await asyncio.sleep(0)
        assert texts == ["normal", "high", "normal", "low"]
        assert is_idle(lane)

    play(main)


def test_who_waits_too_long_is_sent_away_by_the_clock_that_was_given():
    async def main():
        clock = ManualClock(auto=True, monotonic=0.0)
        admission = door(clock=clock, timeout_s=7)
        await admission.enter()
        with pytest.raises(LLMRateLimitError, match="within 7 s") as caught:
            await admission.enter()
        assert clock.monotonic() == 7
        assert caught.value.code == "queue_timeout"
        assert caught.value.retry_after_s >= 1
        assert admission.waiting == 0

    play(main)


@given(data=st.data())
def test_whatever_happens_in_the_queue_no_place_is_lost(data):
    """Calls of any size come, are let in, leave, give up or are cancelled, in any order."""

    async def main():
        clock = ManualClock(monotonic=0.0)
        admission = Admission(
            max_running=3, max_waiting=5, timeout_s=10, max_tokens=100, clock=clock
        )
        held, tasks = [], []

        async def come(tokens, places, priority, again):
            try:
                await admission.enter(tokens, places, priority=priority, again=again)
            except LLMRateLimitError:
                return
            held.append((tokens, places))

        for _ in range(data.draw(st.integers(0, 40))):
            step = data.draw(st.sampled_from(["come", "come", "leave", "cancel", "wait"]))
            if step == "come":
                tasks.append(
                    asyncio.ensure_future(
                        come(
                            data.draw(st.integers(0, 120)),
                            data.draw(st.integers(1, 4)),
                            data.draw(st.sampled_from(PRIORITIES)),
                            data.draw(st.booleans()),
                        )
                    )
                )
            elif step == "leave" and held:
                admission.leave(*held.pop())
            elif step == "cancel" and tasks:
                data.draw(st.sampled_from(tasks)).cancel()
            elif step == "wait":
                await clock.advance(data.draw(st.sampled_from([1, 6])))
            if data.draw(st.booleans()):
                await asyncio.sleep(0)
                fits = admission.running <= 3 and admission.tokens <= 100
                assert fits or len(held) <= 1
        await clock.advance(0)
        while held or admission.waiting:
            if held:
                admission.leave(*held.pop())
            await clock.advance(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        while held:
            admission.leave(*held.pop())
        assert (admission.running, admission.tokens, admission.waiting) == (0, 0, 0)

    play(main)
