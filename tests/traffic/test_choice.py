"""Several lanes for one model: who is asked first, who is left to rest, and who is tried again."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMAuthError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMRateLimitError,
)
from headrace.net.scripted import ManualClock, ScriptedAnswer
from headrace.traffic.fallback import Alternative
from headrace.traffic.health import Health
from headrace.traffic.lane import Lane
from headrace.traffic.retry import RetryBudget
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice
from headrace.traffic.routing.policies import Ordered, Weighted
from traffic.play import Stage, answer, is_idle, play, refusal

BUSY = refusal(429, ("retry-after", "2"))


def member(stage: Stage, answers, name: str, **settings) -> Lane:
    """A lane as a route has it: with its health, and with a budget of its own."""
    lane = stage.lane(answers, name, **{"retry": None, "max_running": 256, **settings})
    return evolve(lane, health=Health(stage.clock), budget=lane.budget or RetryBudget(stage.clock))


def ordered(*lanes: Lane) -> Choice[Alternative]:
    candidates = [Candidate(way=Alternative(lane=lane)) for lane in lanes]
    return Choice("m", candidates, Ordered(), ManualClock())


def weighted(*shares: tuple[Lane, float], seed: int = 1) -> Choice[Alternative]:
    candidates = [Candidate(way=Alternative(lane=lane), weight=weight) for lane, weight in shares]
    return Choice("m", candidates, Weighted(candidates, Random(seed)), ManualClock())


def names(ways) -> list[str]:
    return [way.lane.name for way in ways]


async def ask(stage: Stage, choice) -> str | LLMError:
    """One call by ``choice``: who answered, or how it failed."""
    first, *others = choice.in_turn().ways
    try:
        await stage.text(first.lane, *others)
    except LLMError as error:
        return error
    return stage.records[-1].backend or ""


async def storm(stage: Stage, choice, *, rate: float, seconds: float) -> list[str | LLMError]:
    """So many calls a second, whether or not those before have ended."""
    calls = []
    for _ in range(int(rate * seconds)):
        calls.append(asyncio.ensure_future(ask(stage, choice)))
        await stage.clock.sleep(1 / rate)
    return await asyncio.gather(*calls)


def slow(given: ScriptedAnswer, after_s: float = 0.02) -> ScriptedAnswer:
    return evolve(given, after_s=after_s)


def always(given: ScriptedAnswer):
    return lambda _: given


def test_an_ordered_choice_asks_the_first_while_it_is_well():
    async def main():
        stage = Stage()
        a, b = member(stage, always(answer()), "a"), member(stage, always(answer()), "b")
        choice = ordered(a, b)
        assert [await ask(stage, choice) for _ in range(20)] == ["a"] * 20
        assert names(choice.in_turn().ways) == ["a", "b"]

    play(main)


@given(
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 99),
)
def test_each_gets_its_share_in_any_stretch_of_calls(weights, seed):
    stage = Stage()
    lanes = [member(stage, [], str(place)) for place in range(len(weights))]
    choice = weighted(*zip(lanes, weights, strict=True), seed=seed)
    total, rounds = sum(weights), 4
    got = Counter(names(choice.in_turn().ways)[0] for _ in range(total * rounds))
    for place, weight in enumerate(weights):
        # Where in its turn the choice begins is left to chance, so each end may be cut off.
        assert abs(got[str(place)] - weight * rounds) <= 2
        assert weight or not got[str(place)]
    assert sorted(names(choice.in_turn().ways)) == sorted(lane.name for lane in lanes)


def test_shares_are_spread_evenly_and_not_in_blocks():
    stage = Stage()
    a, b = member(stage, [], "a"), member(stage, [], "b")
    choice = weighted((a, 3), (b, 1))
    firsts = "".join(names(choice.in_turn().ways)[0] for _ in range(40))
    assert "bb" not in firsts
    assert "aaaa" not in firsts.strip("a")


def test_processes_do_not_all_begin_with_the_same_one():
    stage = Stage()
    a, b = member(stage, [], "a"), member(stage, [], "b")
    begun = {names(weighted((a, 1), (b, 1), seed=seed).in_turn().ways)[0] for seed in range(20)}
    assert begun == {"a", "b"}


def test_the_share_of_one_that_is_ill_goes_to_the_others_and_the_spare_is_asked_last():
    async def main():
        stage = Stage()
        choice = weighted(
            (member(stage, always(refusal(500)), "a"), 2),
            (member(stage, always(answer()), "b"), 2),
            (member(stage, always(answer()), "spare"), 0),
        )
        answered = Counter([await ask(stage, choice) for _ in range(100)])
        # What fails first at the ill one goes on to the next in order.
        assert answered["b"] == 100
        assert stage.sent("a") == 5
        assert names(choice.in_turn().ways) == ["b", "spare", "a"]

    play(main)


def test_an_always_bad_one_costs_few_calls_and_no_answer():
    async def main():
        stage = Stage()
        bad = member(stage, always(slow(refusal(500))), "bad")
        good = member(stage, always(slow(answer())), "good")
        answered = await storm(stage, ordered(bad, good), rate=100, seconds=10)
        assert answered == ["good"] * 1000
        assert stage.sent("bad") <= 10
        assert stage.sent("good") == 1000
        assert is_idle(bad)

    play(main)


def test_one_that_fails_more_often_than_not_is_left_to_rest_though_never_many_in_a_row():
    async def main():
        stage = Stage()
        turn = iter(range(10_000))
        flaky = member(stage, lambda _: answer() if next(turn) % 3 == 0 else refusal(500), "flaky")
        good = member(stage, always(answer()), "good")
        choice = ordered(flaky, good)
        assert "flaky" in [await ask(stage, choice) for _ in range(12)]
        assert not flaky.health.well
        assert flaky.stats().circuit == "closed"
        before = stage.sent("flaky")
        assert [await ask(stage, choice) for _ in range(50)] == ["good"] * 50
        assert stage.sent("flaky") == before

    play(main)


def test_a_rare_failure_changes_nothing():
    async def main():
        stage = Stage()
        turn = iter(range(10_000))
        a = member(stage, lambda _: refusal(500) if next(turn) % 3 == 0 else answer(), "a")
        b = member(stage, always(answer()), "b")
        choice = ordered(a, b)
        for _ in range(100):
            await ask(stage, choice)
            await stage.clock.sleep(0.05)
        assert a.health.well
        assert stage.sent("a") == 100

    play(main)


def test_a_rested_one_is_tried_by_one_call_and_then_has_its_turn_again():
    async def main():
        stage = Stage()
        ill = True
        a = member(stage, lambda _: slow(refusal(500) if ill else answer(), 0.5), "a")
        b = member(stage, always(answer()), "b")
        choice = ordered(a, b)
        for _ in range(5):
            await ask(stage, choice)
        assert stage.sent("a") == 5
        ill = False
        await stage.clock.sleep(29)
        assert await ask(stage, choice) == "b"
        await stage.clock.sleep(2)
        together = await asyncio.gather(*(ask(stage, choice) for _ in range(20)))
        assert (together.count("a"), together.count("b")) == (1, 19)
        assert [await ask(stage, choice) for _ in range(5)] == ["a"] * 5
        assert a.stats().circuit == "closed"

    play(main)


def test_rests_grow_while_every_try_fails():
    async def main():
        stage = Stage()
        asked: list[float] = []

        def failing(_):
            asked.append(stage.clock.monotonic())
            return refusal(500)

        a = member(stage, failing, "a", breaker=None)
        choice = ordered(a, member(stage, always(answer()), "b"))
        while stage.clock.monotonic() < 100:
            await ask(stage, choice)
            await stage.clock.sleep(0.1)
        tries = asked[9:]
        gaps = [round(later - earlier) for earlier, later in pairwise(tries)]
        assert gaps[:5] == [2, 4, 8, 16, 30]

    play(main)


def test_one_that_asks_for_patience_is_given_it_by_all_but_a_few_tries():
    async def main():
        stage = Stage()
        asked: list[float] = []

        def busy(_):
            asked.append(stage.clock.monotonic())
            return slow(BUSY, 0.002)

        a = member(stage, busy, "a")
        choice = ordered(a, member(stage, always(slow(answer())), "b"))
        answered = await storm(stage, choice, rate=100, seconds=10)
        assert answered == ["b"] * 1000
        assert len(asked) + stage.sent("b") <= 1.1 * 1000
        for window in range(5):
            assert sum(2 * window <= at < 2 * window + 2 for at in asked) <= 3

    play(main)


@pytest.mark.parametrize("breaker", ["as usual", None])
def test_where_all_fail_a_call_does_not_cost_an_attempt_at_each(breaker):
    async def main():
        stage = Stage()
        settings = {"breaker": None} if breaker is None else {}
        lanes = [
            member(stage, always(slow(refusal(500))), name, **settings) for name in ("a", "b", "c")
        ]
        answered = await storm(stage, ordered(*lanes), rate=50, seconds=20)
        assert not any(isinstance(each, str) for each in answered)
        attempts = sum(stage.sent(name) for name in ("a", "b", "c"))
        # A tenth more at most, beside the few that found each of them out and the floor of 20 in 10 s.
        assert attempts <= 1.1 * 1000 + 2 * 3 * 20
        assert any(
            "retry budget" in note for each in answered for note in getattr(each, "__notes__", ())
        )

    play(main)


def test_a_refused_key_is_one_more_reason_to_ask_another_first():
    async def main():
        stage = Stage()
        a = member(stage, always(refusal(401)), "a")
        choice = ordered(a, member(stage, always(answer()), "b"))
        assert [await ask(stage, choice) for _ in range(200)] == ["b"] * 200
        assert stage.sent("a") == 10

    play(main)


def test_what_is_wrong_with_a_request_says_nothing_about_the_next():
    async def main():
        stage = Stage()
        a = member(stage, always(refusal(400, code="context_length_exceeded")), "a")
        choice = ordered(a, member(stage, always(answer()), "b"))
        assert [await ask(stage, choice) for _ in range(50)] == ["b"] * 50
        assert stage.sent("a") == 50
        assert a.health.well

    play(main)


def test_what_began_before_it_fell_ill_does_not_make_it_well():
    async def main():
        stage = Stage()
        answers = iter([slow(answer(), 1.0), *[refusal(500)] * 5])
        a = member(stage, lambda _: next(answers), "a")
        choice = ordered(a, member(stage, always(answer()), "b"))
        early = asyncio.ensure_future(ask(stage, choice))
        await asyncio.sleep(0)
        for _ in range(5):
            await ask(stage, choice)
        assert not a.health.well
        assert await early == "a"
        assert not a.health.well
        assert await ask(stage, choice) == "b"

    play(main)


def test_a_call_that_nobody_waits_for_any_more_leaves_the_try_to_another():
    async def main():
        stage = Stage()
        answers = iter([BUSY, slow(answer(), 60), answer()])
        a = member(stage, lambda _: next(answers), "a")
        choice = ordered(a, member(stage, always(answer()), "b"))
        assert await ask(stage, choice) == "b"
        await stage.clock.sleep(3)
        trying = asyncio.ensure_future(ask(stage, choice))
        await stage.clock.sleep(0.5)
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        assert not a.health.well
        await stage.clock.sleep(2)
        assert await ask(stage, choice) == "a"

    play(main)


@pytest.mark.parametrize(
    ("error", "rests"),
    [
        (LLMRateLimitError("busy", retry_after_s=5), True),
        (LLMProviderError("ill", retry_after_s=5), True),
        (LLMRateLimitError("busy"), False),
        (LLMAuthError("no"), False),
        (LLMInvalidRequestError("wrong", retry_after_s=5), False),
    ],
)
def test_only_who_says_how_long_rests_at_the_first_failure(error, rests):
    stage = Stage()
    health = Health(stage.clock)
    health.failed(health.era, error)
    assert health.well is not rests
    if rests:
        assert health.until == stage.clock.monotonic() + 5
