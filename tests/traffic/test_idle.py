"""Idle requests: behind everybody, in the way of nobody, for as long as it takes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.net.scripted import ManualClock
from headrace.traffic.admission import Admission
from headrace.traffic.limits import RateLimits
from traffic.play import play


def door(**changes):
    clock = changes.pop("clock", None) or ManualClock()
    return Admission(
        **{"max_running": 4, "max_waiting": 5, "timeout_s": 10, "clock": clock, **changes}
    )


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def come(admission, count, entered, name="idle", **how):
    """So many tasks that come in this order, each of which notes its name once inside."""

    async def one():
        await admission.enter(priority=name, **how)
        entered.append(name)

    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await settle()
    return tasks


async def give_up(tasks):
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("places", "idle"), [(1, 1), (2, 1), (4, 3), (32, 24)])
def test_idle_requests_leave_a_quarter_of_the_places(places, idle):
    async def main():
        admission, entered = door(max_running=places), []
        tasks = await come(admission, places + 4, entered)
        assert (admission.running, len(entered)) == (idle, idle)
        assert admission.waiting == 0
        assert places == 1 or admission.enter_now()
        await give_up(tasks)

    play(main)


def test_no_idle_request_goes_before_anybody_who_waits():
    async def main():
        admission, entered = door(max_running=1, max_waiting=100), []
        await admission.enter()
        tasks = await come(admission, 2, entered)
        tasks += await come(admission, 30, entered, name="low")
        for _ in range(32):
            admission.leave()
            await settle()
        assert entered == ["low"] * 30 + ["idle"] * 2

    play(main)


def test_idle_requests_fill_no_queue_and_are_never_too_late():
    async def main():
        clock = ManualClock()
        admission, entered = door(max_running=1, max_waiting=1, clock=clock), []
        await admission.enter()
        tasks = await come(admission, 50, entered)
        (live,) = await come(admission, 1, entered, name="normal")
        await clock.advance(1000)
        assert not any(task.done() for task in tasks)
        assert live.done()  # it was told that it waited too long
        assert live.exception() is not None
        await give_up(tasks)
        admission.leave()
        assert (admission.running, admission.waiting) == (0, 0)

    play(main)


def test_idle_requests_leave_a_quarter_of_the_tokens():
    async def main():
        admission, entered = door(max_running=100, max_tokens=100), []
        tasks = await come(admission, 10, entered, tokens=20)
        assert (len(entered), admission.tokens) == (3, 60)
        assert admission.enter_now(40)
        await give_up(tasks)

    play(main)


def test_idle_requests_leave_a_quarter_of_a_minutes_requests():
    async def main():
        clock = ManualClock()
        limits = RateLimits(clock, requests_per_minute=60)
        admission, entered = door(max_running=1000, limits=limits, clock=clock), []
        tasks = await come(admission, 100, entered)
        assert len(entered) == 45
        for _ in range(15):
            assert admission.enter_now()
        assert not admission.enter_now()
        await clock.advance(15 + 5)
        # Those fifteen are made up for first, and then it is one a second.
        assert len(entered) == 50
        await give_up(tasks)

    play(main)


def test_a_pause_holds_idle_requests_back_until_it_is_over():
    async def main():
        clock = ManualClock()
        admission, entered = door(clock=clock), []
        admission.pause(5)
        tasks = await come(admission, 2, entered)
        assert not entered
        await clock.advance(6)
        assert len(entered) == 2
        await give_up(tasks)

    play(main)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["idle", "live", "leave", "cancel"]), st.integers(0, 30)),
        max_size=40,
    ),
    places=st.integers(1, 6),
)
def test_whatever_happens_nobody_live_waits_while_there_is_room(events, places):
    async def main():
        admission = door(max_running=places, max_waiting=100, timeout_s=1e9)
        inside, tasks = [], []

        async def one(name):
            await admission.enter(priority=name)
            inside.append(name)

        for what, pick in events:
            if what in ("idle", "live"):
                name = "idle" if what == "idle" else "normal"
                tasks.append((name, asyncio.ensure_future(one(name))))
            elif what == "leave" and inside:
                inside.pop(pick % len(inside))
                admission.leave()
            elif what == "cancel" and tasks:
                tasks[pick % len(tasks)][1].cancel()
            await settle()
            open_names = [name for name, task in tasks if not task.done()]
            assert admission.running == len(inside) <= places
            if "normal" in open_names:
                assert admission.running == places
            if "idle" in open_names and "normal" not in open_names:
                spare = -(-places // 4)
                assert admission.running
                assert admission.running + 1 > places - spare
        await give_up([task for _, task in tasks])
        for _ in inside:
            admission.leave()
        assert (admission.running, admission.waiting) == (0, 0)

    play(main)
