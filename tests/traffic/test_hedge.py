"""A second request where the first token is late."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from attrs import evolve

from headrace.contracts.errors import (
    LLMContentFilterError,
    LLMProviderError,
    LLMTimeoutError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import TaskProfile
from headrace.net.scripted import ScriptedAnswer
from headrace.traffic.breaker import BreakerPolicy
from headrace.traffic.fallback import Alternative
from headrace.traffic.health import Health
from headrace.traffic.hedge import HedgePolicy, Hedging
from traffic.play import (
    EVENTS,
    OPENING,
    PATIENT,
    Stage,
    answer,
    event,
    is_idle,
    play,
    refusal,
)

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


class Asleep:
    """A backend whose server would have to be started."""

    remote = None

    def __init__(self, backend):
        self.name, self.stream = backend.name, backend.stream


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
