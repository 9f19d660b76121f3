"""Asking again: when, how often, and when not."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMRateLimitError,
    LLMUnavailableError,
)
from headrace.net.scripted import ManualClock, ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.traffic.retry import RetryBudget, RetryPolicy
from traffic.play import (
    ASK,
    ENDING,
    EVENTS,
    OPENING,
    Stage,
    answer,
    broken,
    is_idle,
    play,
    refusal,
    said,
)

NO_BREAKER = {"breaker": None}
PLAIN = RetryPolicy(jitter=0)


def test_the_delay_doubles_from_one_second_to_sixteen():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500)] * 7, retry=PLAIN, total_s=None, **NO_BREAKER)
        with pytest.raises(LLMProviderError):
            await stage.text(lane)
        assert [attempt.begin for attempt in stage.records[0].attempts] == [0, 1, 3, 7, 15, 31]
        assert stage.sent() == 6
        assert is_idle(lane)

    play(main)


def test_each_attempt_is_in_the_record_and_the_instants_are_those_of_the_last():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [refusal(503), ScriptedAnswer(fault="refuse"), answer("a", "b", after_s=0.5)],
            retry=PLAIN,
        )
        assert await stage.text(lane) == "ab"
        (record,) = stage.records
        assert [(a.backend, a.begin, a.end, a.status, a.error_kind) for a in record.attempts] == [
            ("first", 0, 0, 503, "LLMOverloadedError"),
            ("first", 1, 1, None, "LLMUnavailableError"),
            ("first", 3, 3.5, 200, None),
        ]
        assert (record.timeline.sent, record.timeline.first_byte) == (3, 3.5)
        assert (record.timeline.queued, record.timeline.admitted) == (0, 0)
        assert (record.status, record.error_kind, record.backend) == (200, None, "first")

    play(main)


@pytest.mark.parametrize(
    ("headers", "waited_s"),
    [
        ([("retry-after-ms", "250")], 0.25),
        ([("retry-after", "7")], 7),
        ([("retry-after-ms", "250"), ("retry-after", "7")], 0.25),
        (
            [("date", formatdate(1e9, usegmt=True)), ("retry-after", formatdate(1e9 + 9))],
            9,
        ),
        ([("retry-after", "120")], 120),
    ],
)
def test_a_busy_backend_is_asked_again_after_as_long_as_it_said(headers, waited_s):
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429, *headers), answer()], total_s=None)
        assert await stage.text(lane) == "hi"
        assert [attempt.begin for attempt in stage.records[0].attempts] == [0, waited_s]

    play(main)


def test_a_backend_that_wants_more_patience_than_we_have_is_not_asked_again():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429, ("retry-after", "121"))], total_s=None)
        with pytest.raises(LLMRateLimitError) as caught:
            await stage.text(lane)
        assert caught.value.retry_after_s == 121
        assert "121 s of patience" in caught.value.__notes__[0]
        assert (stage.sent(), stage.clock.monotonic()) == (1, 0)

    play(main)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (refusal(400), LLMInvalidRequestError),
        (refusal(401), LLMAuthError),
        (refusal(500, ("x-should-retry", "false")), LLMProviderError),
        (ScriptedAnswer(headers=EVENTS, body=b"data: {broken\n\n"), LLMBadResponseError),
    ],
)
def test_what_asking_again_cannot_mend_is_asked_once(refused, error):
    async def main():
        stage = Stage()
        lane = stage.lane([refused])
        with pytest.raises(error):
            await stage.text(lane)
        assert stage.sent() == 1

    play(main)


@pytest.mark.parametrize(
    "failed",
    [
        refusal(408),
        refusal(409),
        refusal(429),
        refusal(500),
        refusal(502),
        refusal(503),
        refusal(504),
        refusal(400, ("x-should-retry", "true")),
        ScriptedAnswer(fault="refuse"),
        ScriptedAnswer(fault="reset"),
        ScriptedAnswer(fault="hang"),
        broken(),
        broken(OPENING),
    ],
)
def test_what_may_pass_is_asked_again(failed):
    async def main():
        stage = Stage()
        lane = stage.lane([failed, answer()], limits=TimeLimits(first_byte_s=5))
        assert await stage.text(lane) == "hi"
        assert stage.sent() == 2

    play(main)


@pytest.mark.parametrize("given_away", [(said("a"),), (OPENING, said("a")), (said("", "stop"),)])
def test_nothing_is_asked_again_once_output_was_given_away(given_away):
    async def main():
        stage = Stage()
        lane = stage.lane([broken(*given_away), answer()])
        with pytest.raises(LLMError):
            await stage.text(lane)
        assert stage.sent() == 1
        (record,) = stage.records
        assert [attempt.error_kind for attempt in record.attempts] == [record.error_kind]
        assert is_idle(lane)

    play(main)


def test_an_error_inside_a_stream_that_began_well_is_mended_before_output():
    async def main():
        stage = Stage()
        failing = ScriptedAnswer(
            headers=EVENTS,
            body=(OPENING, b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'),
        )
        lane = stage.lane([failing, answer("fine")])
        assert await stage.text(lane) == "fine"

    play(main)


def test_all_attempts_of_a_call_have_one_key_and_no_other_call_has_it():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500), answer(), answer()])
        await stage.text(lane)
        await stage.text(lane)
        keys = [
            dict(sent.headers)["idempotency-key"] for sent in stage.transports["first"].requests
        ]
        assert keys[0] == keys[1]
        assert keys[1] != keys[2]

    play(main)


@pytest.mark.parametrize("retry", [None, RetryPolicy(retries=0)])
def test_a_lane_that_asks_once_sends_no_key(retry):
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500)], retry=retry)
        with pytest.raises(LLMProviderError):
            await stage.text(lane)
        assert "idempotency-key" not in dict(stage.transports["first"].requests[0].headers)
        assert stage.sent() == 1

    play(main)


def test_a_policy_can_be_for_some_errors_only():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [ScriptedAnswer(fault="refuse"), refusal(500), answer()],
            retry=RetryPolicy(kinds=(LLMUnavailableError,)),
        )
        with pytest.raises(LLMProviderError, match="says 500"):
            await stage.text(lane)
        assert stage.sent() == 2

    play(main)


def test_a_wait_that_would_outlast_the_call_is_not_begun():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429, ("retry-after", "30"))], total_s=20)
        with pytest.raises(LLMRateLimitError) as caught:
            await stage.text(lane)
        assert "total_s" in caught.value.__notes__[0]
        assert stage.clock.monotonic() == 0

    play(main)


def test_a_call_that_waits_to_ask_again_leaves_its_place_to_others():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [refusal(429), answer("b"), answer("a")],
            max_running=1,
            retry=RetryPolicy(first_delay_s=10, jitter=0),
        )
        first = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        assert await stage.text(lane) == "b"
        assert stage.clock.monotonic() == 0
        assert await first == "a"
        assert stage.clock.monotonic() == 10

    play(main)


@given(
    policy=st.builds(
        RetryPolicy,
        retries=st.integers(0, 8),
        first_delay_s=st.floats(0.01, 5),
        factor=st.floats(1, 4),
        max_delay_s=st.floats(0.01, 60),
        jitter=st.floats(0, 1),
    ),
    retry=st.integers(1, 10),
    seed=st.integers(),
)
def test_a_delay_is_between_its_least_and_its_most(policy, retry, seed):
    delay = policy.delay_s(retry, LLMProviderError("x"), Random(seed))
    if retry > policy.retries:
        assert delay is None
    else:
        most = min(policy.first_delay_s * policy.factor ** (retry - 1), policy.max_delay_s)
        assert most * (1 - policy.jitter) <= delay <= most


def test_a_delay_is_left_to_chance_between_half_of_it_and_all():
    delays = [RetryPolicy().delay_s(3, LLMProviderError("x"), Random(seed)) for seed in range(1000)]
    assert 2 <= min(delays) < 2.05
    assert 3.95 < max(delays) <= 4


@pytest.mark.parametrize(
    "wrong", [{"retries": -1}, {"jitter": 1.5}, {"factor": 0.5}, {"first_delay_s": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        RetryPolicy(**wrong)


def test_nobody_asks_an_endpoint_before_the_time_that_it_named():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429, ("retry-after", "10")), answer("a"), answer("b")])
        first = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(stage.text(lane))
        # Who waited to ask again goes first.
        assert await asyncio.gather(first, second) == ["a", "b"]
        assert stage.clock.monotonic() == 10
        assert stage.sent() == 3

    play(main)


def test_a_limit_on_one_callers_own_key_holds_up_no_other():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429, ("retry-after", "10")), answer("b"), answer("a")])
        own = evolve(ASK, metadata={"api_key": "sk-somebodys-own-key-0123456789"})
        first = asyncio.ensure_future(stage.text(lane, request=own))
        await asyncio.sleep(0)
        assert await stage.text(lane) == "b"
        assert stage.clock.monotonic() == 0
        assert await first == "a"

    play(main)


@pytest.mark.parametrize("headers", [(), (("retry-after", "2"),)])
def test_a_storm_of_429_makes_at_most_1_1_requests_a_call(headers):
    """500 calls a second for ten seconds, each of them refused."""

    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: refusal(429, *headers), max_running=10_000, total_s=None)
        calls, tasks = 0, []
        for _ in range(100):
            tasks += [asyncio.ensure_future(stage.text(lane)) for _ in range(50)]
            calls += 50
            await stage.clock.sleep(0.1)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in ended} == {LLMRateLimitError}
        assert calls == 5000
        # Where the endpoint says how long to wait, most do not even ask.
        assert stage.sent() <= (0.2 if headers else 1.1) * calls
        assert lane.stats().retries > 0
        assert is_idle(lane)

    play(main)


def test_after_a_storm_calls_are_retried_again():
    async def main():
        stage = Stage()
        storm = True
        refused_once = set()

        def script(request):
            key = dict(request.headers)["idempotency-key"]
            if storm or key not in refused_once:
                refused_once.add(key)
                return refusal(429)
            return answer()

        lane = stage.lane(script, max_running=1000)
        for _ in range(20):
            every = [stage.text(lane) for _ in range(50)]
            await asyncio.gather(*every, return_exceptions=True)
        storm = False
        await stage.clock.sleep(10)
        ended = await asyncio.gather(*(stage.text(lane) for _ in range(20)), return_exceptions=True)
        assert ended == ["hi"] * 20

    play(main)


@given(
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=60),
    floor=st.integers(0, 10),
)
def test_retries_never_pass_their_share_of_the_calls_and_the_floor(steps, floor):
    clock = ManualClock(monotonic=0.0)
    budget = RetryBudget(clock, ratio=0.1, floor=floor, window_s=10)
    calls = retries = spent_after_quiet = 0

    async def main():
        nonlocal calls, retries, spent_after_quiet
        for pause_s, began, wanted in steps:
            await clock.advance(pause_s)
            for _ in range(began):
                budget.began()
            calls += began
            retries += sum(budget.spend() for _ in range(wanted))
        await clock.advance(20)
        spent_after_quiet = sum(budget.spend() for _ in range(100))

    asyncio.run(main())
    windows = 1 + sum(pause_s for pause_s, _, _ in steps) // 9
    assert retries <= 0.1 * calls + floor * windows
    assert spent_after_quiet == floor


def test_without_a_floor_the_share_is_exact_over_any_length():
    clock = ManualClock(monotonic=0.0)
    budget = RetryBudget(clock, ratio=0.1, floor=0)
    retries = 0

    async def main():
        nonlocal retries
        for _ in range(300):
            for _ in range(10):
                budget.began()
                retries += budget.spend()
            await clock.advance(0.1)

    asyncio.run(main())
    assert retries == 300


def test_the_ending_of_an_answer_is_complete():
    """What the stage plays is a whole answer, so that nothing above passes for its sake alone."""

    async def main():
        stage = Stage()
        await stage.text(stage.lane([answer("x")]))
        (record,) = stage.records
        assert record.finish_reason == "stop"
        assert record.usage.total_tokens == 5
        assert len(ENDING) == 3

    play(main)
