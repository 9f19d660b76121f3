"""Single requests gather for a while and are asked together; each gets its own result, or error."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.net.scripted import ManualClock
from headrace.traffic.batch import BatchWindow

WRONG = LLMInvalidRequestError("this one is wrong", param="input")
MUDDLED = LLMBadResponseError("the answer cannot be read")


class Engine:
    """Answers ``item`` with ``"re item"`` after ``takes_s``; an item that is an error is its answer.

    ``batches`` are what it was asked, with the instant; ``left`` counts questions broken off.
    """

    def __init__(self, clock, takes_s=0.0):
        self.clock, self.takes_s = clock, takes_s
        self.batches = []
        self.left = self.running = self.most_running = 0

    async def __call__(self, items):
        self.batches.append((self.clock.monotonic(), list(items)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.clock.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1
        for item in items:
            if isinstance(item, Exception):
                raise item
        return [f"re {item}" for item in items]

    @property
    def asked(self):
        return [items for _, items in self.batches]


def stage(takes_s=0.0, auto=False, **settings):
    clock = ManualClock(monotonic=0.0, auto=auto)
    engine = Engine(clock, takes_s)
    return clock, engine, BatchWindow(ask=engine, clock=clock, **settings)


def play(test):
    """Run an async test function to its end, where nothing may be left running."""

    def run():
        async def whole():
            await test()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others

        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


@play
async def test_those_who_come_within_the_window_are_asked_together_when_the_first_has_waited():
    clock, engine, window = stage(max_wait_s=0.01)
    first = asyncio.create_task(window.submit("a"))
    await clock.advance(0.006)
    second = asyncio.create_task(window.submit("b"))
    await clock.advance(0.003)
    assert engine.asked == []
    await clock.advance(0.001)
    assert engine.batches == [(0.01, ["a", "b"])]
    assert await first == "re a"
    assert await second == "re b"


@play
async def test_a_full_batch_does_not_wait():
    clock, engine, window = stage(max_batch_size=3, max_wait_s=10.0)
    tasks = [asyncio.create_task(window.submit(item)) for item in "abcd"]
    await clock.advance(0.0)
    assert engine.batches == [(0.0, ["a", "b", "c"])]
    await clock.advance(10.0)
    assert engine.batches[1:] == [(10.0, ["d"])]
    assert [await task for task in tasks] == ["re a", "re b", "re c", "re d"]


@play
async def test_without_a_wait_everyone_is_asked_at_once():
    clock, engine, window = stage(max_wait_s=0.0)
    task = asyncio.create_task(window.submit("a"))
    await clock.advance(0.0)
    assert engine.batches == [(0.0, ["a"])]
    assert await task == "re a"


@play
async def test_a_batch_weighs_no_more_than_its_size_and_keeps_the_order():
    clock, engine, window = stage(max_batch_size=4)
    weights = {"a": 2, "b": 1, "c": 2, "d": 1, "e": 9, "f": 1}
    tasks = [asyncio.create_task(window.submit(item, w)) for item, w in weights.items()]
    await clock.advance(1.0)
    # The one that is larger than a batch goes by itself.
    assert engine.asked == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    assert await asyncio.gather(*tasks) == [f"re {item}" for item in weights]


@play
async def test_while_the_backend_is_busy_the_next_batch_gathers():
    clock, engine, window = stage(takes_s=1.0, max_wait_s=0.01)
    tasks = [asyncio.create_task(window.submit("a"))]
    await clock.advance(0.01)
    for item in "bcd":
        tasks.append(asyncio.create_task(window.submit(item)))
        await clock.advance(0.2)
    assert engine.asked == [["a"]]
    await clock.advance(1.0)
    assert engine.batches == [(0.01, ["a"]), (1.01, ["b", "c", "d"])]
    await clock.advance(1.0)
    assert await asyncio.gather(*tasks) == ["re a", "re b", "re c", "re d"]
    assert engine.most_running == 1


@play
async def test_several_batches_are_asked_side_by_side_where_that_is_allowed():
    clock, engine, window = stage(takes_s=1.0, max_batch_size=1, max_asking=2)
    tasks = [asyncio.create_task(window.submit(item)) for item in "abc"]
    await clock.advance(0.5)
    assert engine.asked == [["a"], ["b"]]
    await clock.advance(2.0)
    assert engine.most_running == 2
    assert await asyncio.gather(*tasks) == ["re a", "re b", "re c"]


@pytest.mark.parametrize("failure", [WRONG, MUDDLED])
def test_a_failing_batch_fails_only_who_is_to_blame(failure):
    @play
    async def run():
        clock, engine, window = stage()
        tasks = [asyncio.create_task(window.submit(item)) for item in ("a", failure, "c")]
        await clock.advance(0.01)
        good, bad, also_good = await asyncio.gather(*tasks, return_exceptions=True)
        assert (good, also_good) == ("re a", "re c")
        assert (type(bad), bad.message, bad.param) == (
            type(failure),
            failure.message,
            failure.param,
        )
        assert engine.asked == [["a", failure, "c"], ["a"], [failure], ["c"]]

    run()


@pytest.mark.parametrize(
    "failure",
    [
        LLMUnavailableError("gone", retry_after_s=2.0),
        LLMTimeoutError("too slow"),
        LLMOverloadedError("too busy"),
        LLMRateLimitError("too many", retry_after_s=3.0),
        LLMAuthError("no such key"),
    ],
)
def test_a_failure_of_the_backends_own_is_everybodys_and_is_not_asked_again(failure):
    @play
    async def run():
        clock, engine, window = stage()
        tasks = [asyncio.create_task(window.submit(item)) for item in ("a", failure)]
        await clock.advance(0.01)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [type(failure)] * 2
        assert [error.retry_after_s for error in errors] == [failure.retry_after_s] * 2
        assert len(engine.batches) == 1
        # Each has one of their own: the gateway writes the request's id into it.
        assert len({id(error) for error in (*errors, failure)}) == 3

    run()


@play
async def test_an_error_that_is_none_of_ours_reaches_everyone():
    clock, _, window = stage()
    tasks = [asyncio.create_task(window.submit(item)) for item in ("a", ZeroDivisionError("x"))]
    await clock.advance(0.01)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ZeroDivisionError] * 2


@play
async def test_one_who_leaves_before_the_question_is_not_asked_and_harms_nobody():
    clock, engine, window = stage()
    tasks = [asyncio.create_task(window.submit(item)) for item in "abc"]
    await clock.advance(0.005)
    tasks[0].cancel()
    await clock.advance(0.005)
    assert engine.batches == [(0.01, ["b", "c"])]
    assert await asyncio.gather(*tasks[1:]) == ["re b", "re c"]


@play
async def test_one_who_has_left_takes_no_room_in_the_batch():
    clock, engine, window = stage(max_batch_size=3, max_wait_s=1.0)
    leaver = asyncio.create_task(window.submit("a", 2))
    tasks = [asyncio.create_task(window.submit("b"))]
    await clock.advance(0.0)
    assert engine.asked == [["a", "b"]]
    await leaver
    leaver = asyncio.create_task(window.submit("c", 2))
    await clock.advance(0.1)
    leaver.cancel()
    await clock.advance(0.1)
    tasks += [asyncio.create_task(window.submit(item)) for item in "de"]
    await clock.advance(0.1)
    assert len(engine.asked) == 1  # two of three, and time left
    tasks.append(asyncio.create_task(window.submit("f")))
    await clock.advance(0.0)
    assert engine.asked[1:] == [["d", "e", "f"]]
    assert await asyncio.gather(*tasks) == ["re b", "re d", "re e", "re f"]


@play
async def test_one_who_has_left_is_not_asked_again_for_anothers_fault():
    clock, engine, window = stage(takes_s=1.0, max_wait_s=0.0)
    tasks = [asyncio.create_task(window.submit(item)) for item in ("a", "b", WRONG)]
    await clock.advance(0.5)
    tasks[1].cancel()
    await clock.advance(10.0)
    assert engine.asked == [["a", "b", WRONG], ["a"], [WRONG]]
    assert await tasks[0] == "re a"
    with pytest.raises(LLMInvalidRequestError):
        await tasks[2]


@play
async def test_one_who_leaves_during_the_question_harms_nobody():
    clock, engine, window = stage(takes_s=1.0)
    tasks = [asyncio.create_task(window.submit(item)) for item in "ab"]
    await clock.advance(0.5)
    tasks[0].cancel()
    await clock.advance(1.0)
    assert await tasks[1] == "re b"
    assert (engine.left, len(engine.batches)) == (0, 1)


@play
async def test_a_question_that_nobody_waits_for_any_more_is_broken_off():
    clock, engine, window = stage(takes_s=100.0)
    tasks = [asyncio.create_task(window.submit(item)) for item in "ab"]
    await clock.advance(0.5)
    for task in tasks:
        task.cancel()
    late = asyncio.create_task(window.submit("c"))
    await clock.advance(0.5)
    assert engine.left == 1
    assert engine.asked == [["a", "b"], ["c"]]
    await clock.advance(100.0)
    assert await late == "re c"


@play
async def test_when_all_have_left_nothing_is_asked():
    clock, engine, window = stage()
    task = asyncio.create_task(window.submit("a"))
    await clock.advance(0.005)
    task.cancel()
    await clock.advance(1.0)
    assert engine.batches == []
    again = asyncio.create_task(window.submit("b"))
    await clock.advance(0.01)
    assert await again == "re b"


@play
async def test_one_too_many_is_told_to_come_back():
    clock, engine, window = stage(max_waiting=2)
    tasks = [asyncio.create_task(window.submit(item)) for item in "ab"]
    await clock.advance(0.0)
    with pytest.raises(LLMRateLimitError) as caught:
        await window.submit("c")
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_s == 1.0
    await clock.advance(0.01)
    assert await asyncio.gather(*tasks) == ["re a", "re b"]
    assert engine.asked == [["a", "b"]]


@play
async def test_closing_ends_what_is_asked_and_fails_who_waits():
    clock, engine, window = stage(takes_s=1.0, max_batch_size=1)
    tasks = [asyncio.create_task(window.submit(item)) for item in "ab"]
    await clock.advance(0.5)
    await window.aclose()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [LLMUnavailableError] * 2
    assert engine.left == 1
    with pytest.raises(LLMUnavailableError):
        await window.submit("c")


arrivals = st.lists(
    st.fixed_dictionaries(
        {
            "after_s": st.sampled_from([0.0, 0.001, 0.004, 0.02]),
            "weight": st.integers(1, 6),
            "wrong": st.booleans(),
            "patience_s": st.sampled_from([None, None, None, 0.005, 0.03]),
        }
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=arrivals,
    size=st.integers(1, 5),
    wait_s=st.sampled_from([0.0, 0.01]),
    takes_s=st.sampled_from([0.0, 0.015]),
    asking=st.integers(1, 2),
)
def test_everyone_gets_their_own_however_they_come_and_go(arrivals, size, wait_s, takes_s, asking):
    @play
    async def run():
        clock, engine, window = stage(
            takes_s, auto=True, max_batch_size=size, max_wait_s=wait_s, max_asking=asking
        )
        items, tasks, came, leaving = [], [], [], []
        for place, each in enumerate(arrivals):
            if each["after_s"]:
                await clock.sleep(each["after_s"])
            item = LLMInvalidRequestError(str(place)) if each["wrong"] else place
            items.append(item)
            came.append(clock.monotonic())
            tasks.append(asyncio.create_task(window.submit(item, each["weight"])))
            if each["patience_s"] is not None:

                async def leave(task=tasks[-1], patience_s=each["patience_s"]):
                    await clock.sleep(patience_s)
                    task.cancel()

                leaving.append(asyncio.create_task(leave()))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await clock.sleep(1.0)

        for place, (item, result, each) in enumerate(zip(items, results, arrivals, strict=True)):
            if isinstance(result, asyncio.CancelledError):
                assert each["patience_s"] is not None
            elif each["wrong"]:
                assert isinstance(result, LLMInvalidRequestError)
                assert result.message == str(place)
            else:
                assert result == f"re {item}"
        weights = {id(item): each["weight"] for item, each in zip(items, arrivals, strict=True)}
        for batch in engine.asked:
            assert len(batch) == 1 or sum(weights[id(item)] for item in batch) <= size
        assert engine.most_running <= asking
        # First come, first asked, and nobody's first question is asked twice.
        first = [item for batch in engine.asked for item in batch]
        order = [next(i for i, item in enumerate(items) if item is one) for one in first]
        once = list(dict.fromkeys(order))
        if asking == 1 and not any(each["wrong"] for each in arrivals):
            assert order == once == sorted(once)
        if not takes_s and not any(each["wrong"] for each in arrivals):
            asked_at = {id(item): at for at, batch in engine.batches for item in batch}
            for item, at in zip(items, came, strict=True):
                assert asked_at.get(id(item), at) <= at + wait_s + 1e-9

    run()
