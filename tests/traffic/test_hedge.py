"""A second request where the first token is late."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMContentFilterError,
    LLMError,
    LLMProviderError,
    LLMTimeoutError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import TaskProfile
from headrace.net.scripted import ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.numbers import timeline
from headrace.traffic.breaker import BreakerPolicy
from headrace.traffic.fallback import Alternative
from headrace.traffic.health import Health
from headrace.traffic.hedge import HedgePolicy, Hedging
from traffic.play import EVENTS, OPENING, Stage, answer, broken, event, is_idle, play, refusal, said

PATIENT = TimeLimits(first_byte_s=None, idle_s=None)
HANG = ScriptedAnswer(fault="hang")
SLOW = answer("slow", after_s=60)
QUICK = answer("quick", after_s=1)
FILTERED = ScriptedAnswer(
    status=400, body=b'{"error": {"message": "", "code": "content_filter"}}', after_s=8
)


def later(what: ScriptedAnswer, seconds: float) -> ScriptedAnswer:
    return ScriptedAnswer(
        status=what.status, headers=what.headers, body=what.body, after_s=seconds, fault=what.fault
    )


def after(seconds: float, **policy: object) -> Hedging:
    """Every call is hedged after so long."""
    return Hedging(HedgePolicy(after_s=seconds, **{"max_extra": 1.0, **policy}))


def outcomes(stage):
    return [record.hedge and record.hedge.outcome for record in stage.records]


def attempts(record):
    return [(a.backend, a.hedged, a.error_kind) for a in record.attempts]


def two(stage, first, second, **settings):
    settings = {"limits": PATIENT, "total_s": None, **settings}
    return [stage.lane([first], "a", **settings), stage.lane([second], "b", **settings)]


def test_the_second_one_answers_where_it_is_first_and_the_late_one_is_left_at_once():
    async def main():
        stage = Stage()
        lanes = two(stage, SLOW, QUICK)
        marks = Marks()
        assert await stage.text(*lanes, hedging=after(5), marks=marks) == "quick"
        assert stage.clock.monotonic() == 6
        (record,) = stage.records
        assert attempts(record) == [("a", False, "LLMCancelledError"), ("b", True, None)]
        assert (record.hedge.outcome, record.hedge.after_s, record.hedge.backend) == ("won", 5, "b")
        assert (record.backend, record.provider, record.status) == ("b", "scripted", 200)
        assert record.timeline.admitted == 0
        assert (record.timeline.sent, record.timeline.first_token) == (5, 6)
        assert (marks.backend, marks.hedge) == ("b", record.hedge)
        assert sorted(marks.attempts, key=lambda a: a.begin) == list(record.attempts)
        assert record.usage.total_tokens == 5
        assert all(map(is_idle, lanes))
        stats = [lane.stats() for lane in lanes]
        assert [(s.requests, s.successes, s.cancelled, s.failures) for s in stats] == [
            (1, 0, 1, {}),
            (1, 1, 0, {}),
        ]
        assert stage.tally.snapshot(1.0).running == 0

    play(main)


def test_the_late_one_answers_where_it_is_first_after_all_and_the_second_is_left_at_once():
    async def main():
        stage = Stage()
        lanes = two(stage, answer("late", after_s=6), answer(OPENING.decode(), after_s=30))
        assert await stage.text(*lanes, hedging=after(5)) == "late"
        assert stage.clock.monotonic() == 6
        (record,) = stage.records
        assert attempts(record) == [("a", False, None), ("b", True, "LLMCancelledError")]
        assert (record.backend, outcomes(stage)) == ("a", ["lost"])
        assert all(map(is_idle, lanes))

    play(main)


def test_the_connection_of_the_one_that_lost_is_closed():
    async def main():
        stage = Stage()
        begun = ScriptedAnswer(headers=EVENTS, body=(OPENING,), fault="hang")
        lanes = two(stage, begun, QUICK)
        assert await stage.text(*lanes, hedging=after(5)) == "quick"
        assert stage.transports["a"].replies[0].closed_early

    play(main)


def test_who_is_not_late_is_asked_once():
    async def main():
        stage = Stage()
        lanes = two(stage, QUICK, QUICK)
        assert await stage.text(*lanes, hedging=after(5)) == "quick"
        assert stage.sent("b") == 0
        assert outcomes(stage) == [None]

    play(main)


def test_an_answer_that_has_begun_is_not_late_however_long_it_goes_on():
    async def main():
        stage = Stage()
        lanes = two(stage, answer(*"abc", gap_s=4), QUICK)
        assert await stage.text(*lanes, hedging=after(5)) == "abc"
        assert stage.sent("b") == 0

    play(main)


@pytest.mark.parametrize("stream", [True, False])
def test_who_wants_the_whole_answer_is_hedged_by_its_first_token_too(stream):
    async def main():
        stage = Stage()
        lanes = two(stage, answer(*"abc", gap_s=4), QUICK)
        assert await stage.text(*lanes, hedging=after(5), stream=stream) == "abc"
        lanes = two(stage, SLOW, QUICK)
        assert await stage.text(*lanes, hedging=after(5), stream=stream) == "quick"

    play(main)


def test_a_second_one_that_fails_is_forgotten():
    async def main():
        stage = Stage()
        lanes = two(stage, answer("late", after_s=20), refusal(500))
        assert await stage.text(*lanes, hedging=after(5)) == "late"
        (record,) = stage.records
        assert attempts(record) == [("a", False, None), ("b", True, "LLMProviderError")]
        assert outcomes(stage) == ["lost"]

    play(main)


def test_a_first_one_that_fails_meanwhile_waits_for_the_second():
    async def main():
        stage = Stage()
        lanes = two(stage, later(refusal(500), 8), answer("second", after_s=20))
        assert await stage.text(*lanes, hedging=after(5)) == "second"
        assert (stage.clock.monotonic(), stage.sent("b")) == (25, 1)
        (record,) = stage.records
        assert attempts(record) == [("a", False, "LLMProviderError"), ("b", True, None)]

    play(main)


def test_where_both_fail_the_call_goes_on_as_if_there_had_been_no_second():
    async def main():
        stage = Stage()
        first = stage.lane([later(refusal(500), 8)], "a", limits=PATIENT)
        second = stage.lane([later(refusal(500), 5), refusal(503), QUICK], "b", limits=PATIENT)
        assert await stage.text(first, second, hedging=after(5)) == "quick"
        (record,) = stage.records
        assert attempts(record) == [
            ("a", False, "LLMProviderError"),
            ("b", True, "LLMProviderError"),
            ("b", False, "LLMOverloadedError"),
            ("b", False, None),
        ]
        assert all(map(is_idle, (first, second)))

    play(main)


def test_what_the_first_one_may_not_be_asked_elsewhere_ends_the_second():
    async def main():
        stage = Stage()
        lanes = two(stage, FILTERED, answer("got round it", after_s=20))
        with pytest.raises(LLMContentFilterError):
            await stage.text(*lanes, hedging=after(5))
        assert stage.clock.monotonic() == 8
        (record,) = stage.records
        assert attempts(record)[1] == ("b", True, "LLMCancelledError")
        assert all(map(is_idle, lanes))

    play(main)


def test_who_waits_for_a_place_is_not_late():
    async def main():
        stage = Stage()
        slow = answer("x", gap_s=20)
        lanes = [
            stage.lane([slow, QUICK], "a", limits=PATIENT, max_running=1),
            stage.lane([QUICK] * 9, "b", limits=PATIENT),
        ]
        unhedged = asyncio.ensure_future(stage.text(*lanes))
        assert await stage.text(*lanes, hedging=after(5)) == "quick"
        assert stage.sent("b") == 0
        assert await unhedged == "x"

    play(main)


def test_the_second_goes_to_the_next_that_is_well_and_has_room():
    async def main():
        stage = Stage()
        names = ["a", "open", "full", "ill", "asleep", "last"]
        scripts = [[SLOW], [], [answer("x", gap_s=99)], [], [], [QUICK]]
        lanes = [
            stage.lane(
                script,
                name,
                limits=PATIENT,
                total_s=None,
                max_running=1,
                breaker=BreakerPolicy(failures=1),
            )
            for name, script in zip(names, scripts, strict=True)
        ]
        lanes[1].breaker.failed(lanes[1].breaker.enter(), LLMProviderError("no"))
        ill = Health(stage.clock)
        ill.failed(0, LLMProviderError("no"), 50.0)
        lanes[3] = evolve(lanes[3], health=ill)
        lanes[4] = evolve(lanes[4], backend=Asleep(lanes[4].backend))
        busy = asyncio.ensure_future(stage.text(lanes[2]))
        assert await stage.text(*lanes, hedging=after(5)) == "quick"
        assert stage.records[0].hedge.backend == "last"
        assert await busy == "x"

    play(main)


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("it leaves something behind at the backend", {"provider_options": {"store": True}}),
        ("it leaves something behind at the backend", {"provider_options": {"background": True}}),
        (
            "its limit of cost is one request's",
            {"task_profile": TaskProfile(max_cost_usd=0.1, max_latency_ms=90_000)},
        ),
        ("no other backend is well and has room", {"others": 0}),
        ("the budget is spent", {"max_extra": 0.5}),
        ("its time is nearly over", {"total_s": 5.5}),
    ],
)
def test_where_none_may_be_made_the_record_says_why(reason, how):
    async def main():
        stage = Stage()
        lanes = two(stage, answer("late", after_s=5.25), QUICK)
        hedging = after(5, max_extra=how.pop("max_extra", 1.0))
        hedging.took(2)
        others = lanes[1:][: how.pop("others", 1)]
        assert await stage.text(lanes[0], *others, hedging=hedging, **how) == "late"
        (record,) = stage.records
        assert (record.hedge.outcome, record.hedge.reason) == ("not_allowed", reason)
        assert record.hedge.after_s == 5
        assert stage.sent("b") == 0

    play(main)


def test_one_backend_alone_is_asked_twice_where_the_policy_says_so():
    async def main():
        stage = Stage()
        lane = stage.lane([SLOW, QUICK], "a", limits=PATIENT)
        assert await stage.text(lane, hedging=after(5, same_backend=True)) == "quick"
        keys = [dict(r.headers).get("idempotency-key") for r in stage.transports["a"].requests]
        assert len(set(keys)) == 2
        assert is_idle(lane)

    play(main)


def test_a_second_one_is_asked_by_its_own_name_and_without_the_callers_key():
    async def main():
        stage = Stage()
        lanes = two(stage, SLOW, QUICK)
        other = Alternative(lane=lanes[1], model="other-name", dropped=("seed",))
        marks = Marks()
        metadata = {"api_key": "sk-own"}
        await stage.text(lanes[0], other, hedging=after(5), metadata=metadata, marks=marks)
        (sent,) = stage.transports["b"].requests
        assert b'"other-name"' in sent.body
        assert not any("sk-own" in value for _, value in sent.headers)
        assert marks.dropped == ["seed"]

    play(main)


def test_what_the_one_that_lost_is_known_to_have_cost_is_told():
    async def main():
        stage = Stage()
        stage.traffic._price = lambda provider, models, usage, at: Decimal(usage.prompt_tokens)
        spent = {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}
        begun = ScriptedAnswer(
            headers=EVENTS, body=(OPENING, event(choices=[], usage=spent)), fault="hang"
        )
        lanes = two(stage, begun, QUICK)
        await stage.text(*lanes, hedging=after(5))
        (record,) = stage.records
        lost, won = record.attempts
        assert (lost.usage.prompt_tokens, lost.price_usd) == (7, 7)
        assert (won.usage, won.price_usd) == (None, None)
        assert (record.usage.prompt_tokens, record.price_usd) == (3, 3)

    play(main)


def test_neither_breaker_nor_health_hold_it_against_the_one_that_lost():
    async def main():
        stage = Stage()
        first = stage.lane(
            lambda _: HANG, "a", limits=PATIENT, total_s=None, breaker=BreakerPolicy(failures=1)
        )
        first = evolve(first, health=Health(stage.clock))
        second = stage.lane(lambda _: QUICK, "b")
        for _ in range(20):
            assert await stage.text(first, second, hedging=after(5)) == "quick"
        assert first.breaker.state == "closed"
        assert first.health.well

    play(main)


def test_the_time_limits_hold_for_both():
    async def main():
        stage = Stage()
        lanes = two(stage, HANG, HANG, total_s=30.0)
        with pytest.raises(LLMTimeoutError, match="total_s"):
            await stage.text(*lanes, hedging=after(5))
        assert stage.clock.monotonic() == 30
        assert all(map(is_idle, lanes))
        # The first one is given up after 10 s, the second, begun at 5 s, would be after 15.
        lanes = two(stage, HANG, answer("b", after_s=7), first_token_s=10.0)
        assert await stage.text(*lanes, hedging=after(5)) == "b"
        assert stage.clock.monotonic() == 42
        assert attempts(stage.records[-1]) == [("a", False, "LLMTimeoutError"), ("b", True, None)]

    play(main)


def test_none_is_made_before_enough_first_tokens_were_seen():
    async def main():
        stage = Stage()
        hedging = Hedging(HedgePolicy(min_samples=50, max_extra=1.0))
        first = stage.lane(lambda _: answer(after_s=1), "a", limits=PATIENT, total_s=None)
        second = stage.lane(lambda _: QUICK, "b", limits=PATIENT)
        for _ in range(49):
            await stage.text(first, second, hedging=hedging)
        assert hedging.after_s() is None
        await stage.text(first, second, hedging=hedging)
        assert hedging.after_s() == pytest.approx(1, rel=0.02)
        assert outcomes(stage) == [None] * 50

    play(main)


def test_the_estimate_follows_a_backend_that_has_become_slower():
    hedging = Hedging(HedgePolicy(min_samples=100))
    chance = Random(3)
    for mean in (1.0, 4.0):
        for _ in range(2000):
            hedging.took(chance.uniform(0, mean))
        assert hedging.after_s() == pytest.approx(0.95 * mean, rel=0.05)


def test_hardly_anybody_is_late_where_all_take_nearly_as_long():
    hedging, chance = Hedging(HedgePolicy(min_samples=100)), Random(4)
    late = 0
    for n in range(2000):
        took = chance.uniform(1.0, 1.01)
        late += n >= 200 and took > hedging.after_s()
        hedging.took(took)
    assert late <= 0.06 * 1800


def test_there_are_never_more_than_the_budget_allows():
    chance = Random(5)
    hedging = Hedging(HedgePolicy(max_extra=0.05))
    calls = hedges = 0
    for _ in range(20_000):
        hedging.began()
        calls += 1
        if chance.random() < (0.5 if calls % 2000 < 1000 else 0.01):
            hedges += hedging.spend()
        assert hedges <= 0.05 * calls + 1e-6
    assert hedges > 0.02 * calls


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_extra", 0.0), ("max_extra", 1.5), ("after_p", 95), ("after_s", 0), ("min_samples", 0)],
)
def test_a_policy_that_could_not_be_is_refused_by_its_field(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        HedgePolicy(**{name: value})


def simulated(hedging: Hedging | None, calls: int = 3000) -> tuple[list[float], int, Stage]:
    """First-token times of calls that follow one another, of which 3% meet a backend that stalls."""
    stage = Stage()
    chance = Random(11)

    def bimodal(_):
        slow = chance.random() < 0.03
        return answer(after_s=chance.uniform(8, 12) if slow else chance.uniform(0.2, 0.6))

    lanes = [stage.lane(bimodal, name, limits=PATIENT, total_s=None) for name in "ab"]

    async def main():
        for _ in range(calls):
            await stage.text(*lanes, hedging=hedging)
        assert all(map(is_idle, lanes))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    took = sorted(timeline.arrival_to_first_token(record.timeline) for record in stage.records)
    return took, stage.sent("a") + stage.sent("b"), stage


def test_hedging_lowers_the_p99_where_3_percent_stall_to_a_seventh_for_under_5_percent_more_requests():
    plain, asked, _ = simulated(None)
    hedged, asked_hedged, stage = simulated(Hedging(HedgePolicy()))
    p99 = [took[int(0.99 * len(took))] for took in (plain, hedged)]
    assert asked == len(plain)
    assert asked_hedged <= 1.05 * asked
    assert p99[0] > 8
    assert p99[1] < 1.25
    assert p99[0] / p99[1] > 7
    assert outcomes(stage).count("won") > 0.02 * len(plain)


class Asleep:
    """A backend whose server would have to be started."""

    remote = None

    def __init__(self, backend):
        self.name, self.stream = backend.name, backend.stream


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
        script = data.draw(st.lists(st.sampled_from(FATES), min_size=1, max_size=10))

        def play_on(_):
            script.append(script.pop(0))
            return script[-1]

        lanes = [
            stage.lane(
                play_on,
                name,
                limits=PATIENT,
                max_running=2,
                max_waiting=2,
                queue_s=20,
                requests_per_minute=data.draw(st.sampled_from([None, 6])),
                first_token_s=data.draw(st.sampled_from([None, 7])),
                total_s=data.draw(st.sampled_from([None, 25])),
            )
            for name in "abc"
        ]
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
