"""When things are written: at absolute instants, whatever the loop's lateness. Time is moved by hand."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop

from headrace.bench.mock.schedule import KernelAlarm, LoopAlarm, Schedule
from headrace.bench.mock.settings import SlowStart

from .asking import texts
from .by_hand import Hand, ask, play


def test_lateness_never_adds_up():
    async def act(mock, hand: Hand, port):
        answer = await ask(port)
        await hand.until_set()
        for _ in range(100):
            hand.wake(late_s=0.003)
        due = [1000.05 + n * 0.01 for n in range(100)]
        assert hand.set_for == pytest.approx(due, abs=1e-9)
        assert len(texts(await answer.read())) == 100
        late = mock.lateness
        assert late.count == 100
        assert (late.minimum, late.maximum) == pytest.approx((0.003, 0.003), abs=1e-9)

    play(act, ttft="50ms", itl="10ms", tokens=100)


def test_a_lateness_of_several_tokens_is_made_up_for():
    async def act(mock, hand: Hand, port):
        answer = await ask(port)
        await hand.until_set()
        hand.wake(late_s=0.035)
        # The first and the three that were due meanwhile.
        assert mock.tokens == 4
        hand.wake()
        assert hand.now == pytest.approx(1000.09)
        hand.wake()
        assert len(texts(await answer.read())) == 6

    play(act, ttft="50ms", itl="10ms", tokens=6)


def test_a_slot_passes_on_at_the_instant_at_which_it_was_due_to_be_free():
    async def act(mock, hand: Hand, port):
        first = await ask(port)
        await hand.until_set()
        second = await ask(port)
        while mock.waiting == 0:
            await asyncio.sleep(0.001)
        hand.wake(late_s=0.001)
        hand.wake(late_s=0.001)
        assert mock.waiting == 0
        assert hand.set_for == pytest.approx([1000.05, 1000.06, 1000.11], abs=1e-9)
        hand.wake()
        hand.wake()
        assert texts(await first.read()) == texts(await second.read())

    play(act, ttft="50ms", itl="10ms", tokens=2, slots=1)


def test_each_stream_beside_makes_the_gaps_longer():
    async def act(mock, hand: Hand, port):
        answers = [await ask(port)]
        await hand.until_set()
        answers.append(await ask(port))
        while mock.active < 2:
            await asyncio.sleep(0.001)
        for _ in range(3):
            hand.wake()
        # Two are served until both end together.
        assert hand.set_for == pytest.approx([1000.0, 1000.012, 1000.024], abs=1e-9)
        for answer in answers:
            assert len(texts(await answer.read())) == 3

    play(act, itl="10ms", itl_per_stream="2ms", tokens=3)


def test_a_slow_start_gets_faster_evenly():
    async def act(mock, hand: Hand, port):
        for age_s, wait_s in ((0, 0.3), (5, 0.2), (10, 0.1), (30, 0.1)):
            hand.now = mock.started + age_s
            answer = await ask(port)
            await hand.until_set()
            assert hand.set_for[-1] - hand.now == pytest.approx(wait_s, abs=1e-9)
            hand.wake()
            await answer.read()

    play(act, ttft="100ms", tokens=1, slow_start=SlowStart(factor=3, lasts="10s"))


def test_a_whole_answer_takes_as_long_as_its_stream():
    async def act(mock, hand: Hand, port):
        answer = await ask(port, stream=False)
        await hand.until_set()
        assert hand.set_for == pytest.approx([1000.05 + 9 * 0.01], abs=1e-9)
        hand.wake()
        assert b'"completion_tokens":10' in await answer.read()

    play(act, ttft="50ms", itl="10ms", tokens=10)


def test_what_is_due_at_one_instant_is_done_in_the_order_asked():
    done = []

    async def run():
        hand = Hand()
        schedule = Schedule(hand.alarm, clock=hand.clock)
        for name in "abc":
            schedule.at(1001.0, lambda due, name=name: done.append(name))
        schedule.at(1000.5, lambda due: done.append("first"))
        hand.wake()
        hand.wake()

    asyncio.run(run())
    assert done == ["first", "a", "b", "c"]


def test_time_that_stood_still_puts_all_off_alike():
    done = []

    async def run():
        hand = Hand()
        schedule = Schedule(hand.alarm, clock=hand.clock)
        for instant in (1001.0, 1002.0):
            schedule.at(instant, done.append)
        schedule.shift(0.5)
        hand.now = 1003.0
        hand.wake()

    asyncio.run(run())
    assert done == [1001.5, 1002.5]


@pytest.mark.parametrize("alarm", [KernelAlarm, LoopAlarm])
@pytest.mark.parametrize("spin_s", [0.0, 0.0001])
def test_nothing_is_done_before_its_instant(alarm, spin_s):
    if alarm is KernelAlarm and sys.platform != "linux":
        pytest.skip("timerfd is Linux's")
    early = []

    async def run():
        ended = asyncio.Event()
        schedule = Schedule(alarm, spin_s)
        left = [40]

        def act(due: float) -> float | None:
            early.append(schedule.clock() < due)
            left[0] -= 1
            if left[0] == 0:
                ended.set()
                return None
            return due + 0.0017

        schedule.at(schedule.clock() + 0.003, act)
        await asyncio.wait_for(ended.wait(), 20)
        schedule.close()

    uvloop.run(run())
    assert early == [False] * 40
