"""The door of an engine: who runs, who waits, who is sent away, whatever the order of events."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMRateLimitError
from headrace.traffic.admission import Admission

FOREVER = 3600.0


def door(**settings):
    return Admission(**{"max_running": 2, "max_waiting": 10, "timeout_s": FOREVER, **settings})


async def settle():
    """Give every task that can go on the turns to do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def enter_all(admission, sizes, entered):
    """A task for each size, started in order; each notes its number in ``entered`` once inside."""

    async def one(number, tokens, places):
        await admission.enter(tokens, places)
        entered.append(number)

    tasks = []
    for number, (tokens, places) in enumerate(sizes):
        tasks.append(asyncio.create_task(one(number, tokens, places)))
        await settle()
    return tasks


async def give_up(tasks):
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, LLMRateLimitError):
            await task


def test_there_is_room_for_so_many_and_the_rest_wait():
    async def scene():
        admission, entered = door(), []
        tasks = await enter_all(admission, [(0, 1)] * 4, entered)
        assert entered == [0, 1]
        assert (admission.running, admission.waiting) == (2, 2)
        admission.leave()
        await settle()
        assert entered == [0, 1, 2]
        assert (admission.running, admission.waiting) == (2, 1)
        await give_up(tasks)

    asyncio.run(scene())


def test_a_newcomer_does_not_overtake_those_who_wait():
    async def scene():
        admission, entered = door(max_tokens=100), []
        tasks = await enter_all(admission, [(60, 1), (90, 1), (10, 1)], entered)
        # The third would fit, but the second came before it.
        assert entered == [0]
        assert not admission.fits(1)
        admission.leave(60)
        await settle()
        assert entered == [0, 1, 2]
        await give_up(tasks)

    asyncio.run(scene())


def test_tokens_are_counted_as_well_as_places():
    async def scene():
        admission, entered = door(max_running=10, max_tokens=100), []
        tasks = await enter_all(admission, [(50, 1), (50, 1), (1, 1)], entered)
        assert entered == [0, 1]
        assert admission.tokens == 100
        admission.leave(50)
        await settle()
        assert entered == [0, 1, 2]
        assert admission.tokens == 51
        await give_up(tasks)

    asyncio.run(scene())


def test_several_answers_take_several_places():
    async def scene():
        admission, entered = door(max_running=4), []
        tasks = await enter_all(admission, [(0, 3), (0, 2), (0, 1)], entered)
        assert entered == [0]
        admission.leave(0, 3)
        await settle()
        assert entered == [0, 1, 2]
        assert admission.running == 3
        await give_up(tasks)

    asyncio.run(scene())


@pytest.mark.parametrize(("tokens", "places"), [(1000, 1), (0, 5), (1000, 5)])
def test_what_is_larger_than_everything_runs_alone(tokens, places):
    async def scene():
        admission, entered = door(max_tokens=100), []
        tasks = await enter_all(admission, [(1, 1), (tokens, places), (1, 1)], entered)
        assert entered == [0]
        admission.leave(1)
        await settle()
        assert entered == [0, 1]
        admission.leave(tokens, places)
        await settle()
        assert entered == [0, 1, 2]
        await give_up(tasks)

    asyncio.run(scene())


def test_a_full_queue_sends_the_next_away_with_a_time_to_come_back():
    async def scene():
        admission, entered = door(max_running=1, max_waiting=1), []
        tasks = await enter_all(admission, [(0, 1), (0, 1)], entered)
        with pytest.raises(LLMRateLimitError) as caught:
            await admission.enter()
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after_s >= 1
        assert (admission.running, admission.waiting) == (1, 1)
        await give_up(tasks)

    asyncio.run(scene())


def test_with_no_queue_at_all_one_runs_and_the_next_is_sent_away():
    async def scene():
        admission = door(max_running=1, max_waiting=0)
        await admission.enter()
        with pytest.raises(LLMRateLimitError):
            await admission.enter()
        admission.leave()
        await admission.enter()

    asyncio.run(scene())


def test_who_waits_too_long_is_sent_away_and_leaves_no_trace():
    async def scene():
        admission = door(max_running=1, timeout_s=0.01)
        await admission.enter(5)
        with pytest.raises(LLMRateLimitError) as caught:
            await admission.enter(7)
        assert caught.value.code == "queue_timeout"
        assert caught.value.retry_after_s >= 1
        assert (admission.running, admission.waiting, admission.tokens) == (1, 0, 5)
        admission.leave(5)
        assert (admission.running, admission.tokens) == (0, 0)

    asyncio.run(scene())


def test_the_time_to_come_back_grows_with_the_queue_and_what_was_served():
    async def asked(served_s, waiting):
        admission = door(max_running=1, max_waiting=waiting)
        for _ in range(50):
            await admission.enter()
            admission.leave(served_s=served_s)
        tasks = await enter_all(admission, [(0, 1)] * (1 + waiting), [])
        with pytest.raises(LLMRateLimitError) as caught:
            await admission.enter()
        await give_up(tasks)
        return caught.value.retry_after_s

    assert asyncio.run(asked(0.01, 0)) == 1
    assert asyncio.run(asked(4.0, 0)) == 4
    assert asyncio.run(asked(4.0, 1)) == 8
    assert asyncio.run(asked(100.0, 9)) == 30


def test_who_leaves_the_queue_is_passed_over():
    async def scene():
        admission, entered = door(max_running=1), []
        tasks = await enter_all(admission, [(0, 1)] * 3, entered)
        tasks[1].cancel()
        await settle()
        assert admission.waiting == 1
        admission.leave()
        await settle()
        assert entered == [0, 2]
        await give_up(tasks)

    asyncio.run(scene())


def test_who_leaves_in_the_moment_of_being_admitted_gives_the_place_on():
    async def scene():
        admission, entered = door(max_running=1), []
        tasks = await enter_all(admission, [(0, 1)] * 3, entered)
        admission.leave()  # admits the second ...
        tasks[1].cancel()  # ... which has gone before it hears of it
        await settle()
        assert entered == [0, 2]
        assert (admission.running, admission.waiting) == (1, 0)
        await give_up(tasks)

    asyncio.run(scene())


def test_a_large_one_that_leaves_lets_the_small_ones_behind_it_in():
    async def scene():
        admission, entered = door(max_running=9, max_tokens=100), []
        tasks = await enter_all(admission, [(60, 1), (90, 1), (30, 1)], entered)
        assert entered == [0]
        tasks[1].cancel()
        await settle()
        assert entered == [0, 2]
        await give_up(tasks)

    asyncio.run(scene())


def test_a_large_one_that_waits_too_long_lets_the_small_ones_behind_it_in():
    async def scene():
        admission = door(max_running=9, max_tokens=100, timeout_s=0.05)
        await admission.enter(60)
        large = asyncio.create_task(admission.enter(90))
        await settle()
        await asyncio.sleep(0.02)
        small = asyncio.create_task(admission.enter(30))
        with pytest.raises(LLMRateLimitError):
            await large
        await small
        assert (admission.running, admission.tokens) == (2, 90)

    asyncio.run(scene())


SIZES = st.tuples(st.integers(0, 120), st.integers(1, 4))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), SIZES),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("leave and cancel"), st.integers(0, 30)),
        st.tuples(st.just("settle"), st.none()),
    ),
    max_size=40,
)


@given(events=EVENTS, max_running=st.integers(1, 4), max_waiting=st.integers(0, 5))
def test_whatever_happens_the_door_keeps_its_promises(events, max_running, max_waiting):
    """Bounds hold, the order is kept, nobody waits without a reason, and all is given back."""

    async def scene():
        admission = door(max_running=max_running, max_waiting=max_waiting, max_tokens=100)
        sizes, tasks, inside, order = [], [], [], []

        async def one(number):
            await admission.enter(*sizes[number])
            inside.append(number)
            order.append(number)

        def leave(pick):
            if inside:
                number = inside.pop(pick % len(inside))
                admission.leave(*sizes[number])

        def cancel(pick):
            waiting = [task for task in tasks if not task.done()]
            if waiting:
                waiting[pick % len(waiting)].cancel()

        def check_bounds():
            if admission.running > max_running or admission.tokens > 100:
                # Only what is too large for an empty engine may pass a bound, and it runs alone.
                assert len(inside) <= 1
            assert admission.waiting <= max_waiting

        async def check_at_rest():
            await settle()
            assert admission.running == sum(sizes[number][1] for number in inside)
            assert admission.tokens == sum(sizes[number][0] for number in inside)
            assert order == sorted(order)
            waiting = [number for number, task in enumerate(tasks) if not task.done()]
            assert len(waiting) == admission.waiting
            if waiting:
                tokens, places = sizes[waiting[0]]
                assert inside
                assert (
                    admission.running + places > max_running or admission.tokens + tokens > 100
                ), "the first in the queue fits and still waits"

        for event, value in events:
            if event == "come":
                sizes.append(value)
                tasks.append(asyncio.create_task(one(len(sizes) - 1)))
                await asyncio.sleep(0)
            if event.startswith("leave"):
                leave(value)
            if event.endswith("cancel"):
                cancel(value)
            if event == "settle":
                await check_at_rest()
            check_bounds()
        await check_at_rest()
        await give_up([task for task in tasks if not task.done()])
        for number in list(inside):
            inside.remove(number)
            admission.leave(*sizes[number])
        for task in tasks:
            with suppress(asyncio.CancelledError, LLMRateLimitError):
                await task
        assert (admission.running, admission.tokens, admission.waiting) == (0, 0, 0)

    asyncio.run(scene())
