"""Who is asked first: by load, by time, by cost, by what a caller puts first; and within whose limits."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMCapabilityError
from headrace.net.scripted import ManualClock
from headrace.numbers.pace import FRESH_S
from traffic.routes import POLICIES, answered, asking, backend, choice, falls_ill, names

CLOCK = ManualClock()


def first(chosen) -> str:
    return names(chosen)[0]


def test_the_least_busy_is_asked_first_and_the_others_by_their_load():
    some = [backend(CLOCK, name, busy=busy) for name, busy in (("a", 3), ("b", 1), ("c", 2))]
    assert names(choice(CLOCK, some, "least_busy").choose(asking())) == ["b", "c", "a"]


def test_a_larger_one_may_have_more_before_it_is_the_busier():
    small, large = backend(CLOCK, "small", busy=2), backend(CLOCK, "large", busy=5, weight=4)
    route = choice(CLOCK, [small, large], "least_busy")
    assert first(route.choose(asking())) == "large"
    large.way.lane.admission.running = 12
    assert first(route.choose(asking())) == "small"


def test_what_others_have_in_the_engine_s_own_queue_counts_where_it_is_known():
    a, b = backend(CLOCK, "a", engine_load=lambda _: 7), backend(CLOCK, "b", busy=2)
    assert names(choice(CLOCK, [a, b], "least_busy").choose(asking())) == ["b", "a"]


def test_idle_ones_share_what_comes():
    some = [backend(CLOCK, name) for name in "abc"]
    route = choice(CLOCK, some, "least_busy")
    got = Counter(first(route.choose(asking())) for _ in range(300))
    assert all(60 < got[name] < 140 for name in "abc")


def test_the_quickest_by_its_late_answers_is_asked_first():
    some = [backend(CLOCK, n, took_s=s) for n, s in (("a", 0.9), ("b", 0.2), ("c", 0.5))]
    chosen = choice(CLOCK, some, "lowest_latency").choose(asking())
    assert names(chosen) == ["b", "c", "a"]
    assert chosen.decision.reason == "about the quickest: its answers take 200 ms"
    told = [each.values["latency_s"] for each in chosen.decision.candidates]
    assert told == pytest.approx([0.2, 0.5, 0.9])


def test_of_two_that_are_about_as_quick_the_less_busy_is_asked():
    some = [backend(CLOCK, "a", took_s=0.50, busy=4), backend(CLOCK, "b", took_s=0.52, busy=1)]
    assert first(choice(CLOCK, some, "lowest_latency").choose(asking())) == "b"


def test_one_that_was_never_measured_is_tried_by_one_call_at_a_time():
    clock = ManualClock()
    known, new = backend(clock, "known", took_s=0.1), backend(clock, "new")
    route = choice(clock, [known, new], "lowest_latency")
    assert first(route.choose(asking())) == "new"
    new.way.lane.admission.running = 1
    assert first(route.choose(asking())) == "known"
    new.way.lane.admission.running = 0
    for _ in range(3):
        answered(new, clock, 2.0)
    assert first(route.choose(asking())) == "known"


def test_a_slow_one_is_measured_again_by_few_calls_and_wins_once_it_is_quick():
    async def main():
        quick, slow = backend(clock, "quick", took_s=0.2), backend(clock, "slow", took_s=2.0)
        route = choice(clock, [quick, slow], "lowest_latency")
        got: Counter[str] = Counter()
        for _ in range(600):
            await clock.advance(1.0)
            name = first(route.choose(asking()))
            got[name] += 1
            answered(quick if name == "quick" else slow, clock, 0.2 if name == "quick" else 2.0)
        assert 5 <= got["slow"] <= 600 / 20
        late: Counter[str] = Counter()
        for _ in range(600):
            await clock.advance(1.0)
            name = first(route.choose(asking()))
            late[name] += 1
            answered(quick if name == "quick" else slow, clock, 0.2 if name == "quick" else 0.01)
        assert late["slow"] > 300

    clock = ManualClock()
    asyncio.run(main())


def test_the_cheapest_for_this_call_is_asked_first_and_one_of_unknown_price_last():
    some = [backend(CLOCK, n, usd_per_token=p) for n, p in (("a", None), ("b", 3e-6), ("c", 1e-6))]
    chosen = choice(CLOCK, some, "lowest_cost").choose(asking())
    assert names(chosen) == ["c", "b", "a"]
    assert "may cost $" in chosen.decision.reason
    assert "cost_usd" not in chosen.decision.candidates[2].values


@pytest.mark.parametrize(
    ("priority", "expected"),
    [("latency", "quick"), ("quality", "good"), ("cost", "cheap"), ("balanced", "even")],
)
def test_a_task_profile_says_what_comes_first(priority, expected):
    some = [
        backend(CLOCK, "quick", took_s=0.1, usd_per_token=9e-6, quality=0.2),
        backend(CLOCK, "good", took_s=2.0, usd_per_token=9e-6, quality=0.9),
        backend(CLOCK, "cheap", took_s=2.0, usd_per_token=1e-6, quality=0.2),
        backend(CLOCK, "even", took_s=0.15, usd_per_token=1.5e-6, quality=0.8),
    ]
    route = choice(CLOCK, some, "task_profile")
    assert first(route.choose(asking(profile={"priority": priority}))) == expected


def test_a_call_without_a_profile_is_balanced():
    some = [
        backend(CLOCK, "good", took_s=2.0, usd_per_token=9e-6, quality=0.9),
        backend(CLOCK, "even", took_s=0.15, usd_per_token=1.5e-6, quality=0.8),
    ]
    assert first(choice(CLOCK, some, "task_profile").choose(asking())) == "even"


@pytest.mark.parametrize("policy", POLICIES)
def test_who_is_ill_is_asked_last_tried_after_its_rest_and_the_reason_says_so(policy):
    async def main():
        clock = ManualClock()
        some = [
            backend(clock, "a", took_s=0.1, usd_per_token=1e-6, quality=0.9),
            backend(clock, "b", took_s=0.5, usd_per_token=5e-6, quality=0.5, busy=3),
        ]
        route = choice(clock, some, policy)
        falls_ill(some[0], for_s=30)
        chosen = route.choose(asking())
        assert names(chosen) == ["b", "a"]
        assert chosen.decision.candidates[1].why_not == "is ill"
        await clock.advance(31)
        tried = route.choose(asking())
        assert names(tried) == ["a", "b"]
        assert "tried again" in tried.decision.reason
        assert names(route.choose(asking())) == ["b", "a"]

    asyncio.run(main())


costs = st.one_of(st.none(), st.floats(1e-7, 1e-4))
times = st.one_of(st.none(), st.floats(0.01, 10))


@given(
    policy=st.sampled_from(POLICIES),
    some=st.lists(st.tuples(costs, times, st.sets(st.sampled_from("xy"))), min_size=1, max_size=5),
    max_cost=st.one_of(st.none(), st.floats(0, 0.02)),
    max_ms=st.one_of(st.none(), st.integers(1, 10_000)),
    tags=st.sets(st.sampled_from("xy")),
    words=st.integers(0, 300),
    max_tokens=st.integers(1, 500),
    ill=st.sets(st.integers(0, 4)),
    allow=st.booleans(),
)
def test_no_policy_passes_a_limit_of_the_caller_s(
    policy, some, max_cost, max_ms, tags, words, max_tokens, ill, allow
):
    clock = ManualClock()
    backends = [
        backend(clock, str(i), usd_per_token=cost, took_s=time, tags=frozenset(has))
        for i, (cost, time, has) in enumerate(some)
    ]
    for place in ill:
        if place < len(backends):
            falls_ill(backends[place])
    asked = asking(
        "word " * words,
        max_tokens=max_tokens,
        profile={"max_cost_usd": max_cost, "max_latency_ms": max_ms, "tags": tuple(tags)},
    )
    tokens = asked.prompt_tokens() + max_tokens
    within = set()
    for i, (cost, time, has) in enumerate(some):
        cost_holds = max_cost is None or (allow if cost is None else cost * tokens <= max_cost)
        time_holds = max_ms is None or (allow if time is None else time * 1000 <= max_ms)
        if cost_holds and time_holds and tags <= has:
            within.add(str(i))
    # Sums of floats: who is on the very edge may be either.
    assume(
        max_cost is None or all(c is None or abs(c * tokens - max_cost) > 1e-9 for c, *_ in some)
    )
    assume(max_ms is None or all(t is None or abs(t * 1000 - max_ms) > 1e-6 for _, t, _ in some))
    route = choice(clock, backends, policy, allow_unknown=allow)
    if within:
        assert set(names(route.choose(asked))) == within
    else:
        with pytest.raises(LLMCapabilityError) as refused:
            route.choose(asked)
        assert refused.value.status == 400
        assert refused.value.param.startswith("task_profile")


def refusal(some, **profile) -> LLMCapabilityError:
    with pytest.raises(LLMCapabilityError) as refused:
        choice(CLOCK, some).choose(asking(max_tokens=100, profile=profile))
    assert refused.value.code == "limit_not_held"
    return refused.value


def test_a_refusal_names_the_limit_and_who_comes_nearest_to_it():
    some = [
        backend(CLOCK, "a", usd_per_token=1e-5, took_s=2.0, tags=frozenset({"eu"})),
        backend(CLOCK, "b", usd_per_token=2e-5, took_s=1.0),
    ]
    error = refusal(some, max_cost_usd=0.0005)
    assert error.param == "task_profile.max_cost_usd"
    for word in ("0.0005", "cheapest", "a, may cost $0.0011", "100 of answer", "max_tokens"):
        assert word in str(error)
    error = refusal(some, max_latency_ms=500)
    assert error.param == "task_profile.max_latency_ms"
    for word in ("500", "quickest", "b", "95%", "1000 ms"):
        assert word in str(error)
    error = refusal(some, tags=("us",))
    assert (error.param, "us" in str(error), "eu" in str(error)) == (
        "task_profile.tags",
        True,
        True,
    )


def test_where_each_breaks_another_limit_the_refusal_tells_of_each():
    some = [
        backend(CLOCK, "dear", usd_per_token=1e-4, took_s=0.1),
        backend(CLOCK, "slow", usd_per_token=1e-7, took_s=9.0),
    ]
    error = refusal(some, max_cost_usd=0.001, max_latency_ms=1000)
    assert error.param == "task_profile"
    assert "dear may cost" in str(error)
    assert "slow takes 9000 ms" in str(error)


def test_what_nobody_can_tell_holds_no_limit_unless_the_route_says_so():
    some = [backend(CLOCK, "a")]
    assert "known price" in str(refusal(some, max_cost_usd=1.0))
    assert "measured" in str(refusal(some, max_latency_ms=60_000))
    trusting = choice(CLOCK, some, allow_unknown=True)
    assert names(trusting.choose(asking(profile={"max_cost_usd": 1, "max_latency_ms": 9}))) == ["a"]


def test_one_that_was_slow_long_ago_may_be_asked_again_where_unknown_ones_may():
    async def main():
        clock = ManualClock()
        some = [backend(clock, "a", took_s=5.0)]
        asked = asking(profile={"max_latency_ms": 1000})
        with pytest.raises(LLMCapabilityError):
            choice(clock, some, allow_unknown=True).choose(asked)
        await clock.advance(FRESH_S + 1)
        assert names(choice(clock, some, allow_unknown=True).choose(asked)) == ["a"]
        with pytest.raises(LLMCapabilityError):
            choice(clock, some).choose(asked)

    asyncio.run(main())


def test_an_answer_without_a_bound_is_reckoned_with_the_route_s():
    some = [backend(CLOCK, "a", usd_per_token=1e-5)]
    asked = asking(max_tokens=None, profile={"max_cost_usd": 0.02})
    assert names(choice(CLOCK, some, unbounded=1000).choose(asked)) == ["a"]
    with pytest.raises(LLMCapabilityError, match="4000 of answer"):
        choice(CLOCK, some, unbounded=4000).choose(asked)


def test_several_answers_cost_as_often():
    some = [backend(CLOCK, "a", usd_per_token=1e-5)]
    with pytest.raises(LLMCapabilityError, match="300 of answer"):
        choice(CLOCK, some).choose(asking(n=3, profile={"max_cost_usd": 0.002}))
    assert names(choice(CLOCK, some).choose(asking(profile={"max_cost_usd": 0.002}))) == ["a"]
