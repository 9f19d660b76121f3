"""So many requests and tokens a minute: who is over them waits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMError, LLMRateLimitError
from headrace.net.scripted import ManualClock
from headrace.traffic.limits import Bucket, RateLimits
from traffic.play import ASK, Stage, answer, is_idle, play, refusal


async def starts(stage, lane, calls, **how):
    await asyncio.gather(*(stage.text(lane, **how) for _ in range(calls)))
    return sorted(record.timeline.admitted for record in stage.records)


def test_a_minutes_worth_goes_at_once_and_then_one_at_a_time():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), requests_per_minute=6, max_running=100)
        assert await starts(stage, lane, 9) == pytest.approx([0] * 6 + [10, 20, 30])
        assert is_idle(lane)

    play(main)


def test_who_would_wait_longer_than_the_queue_allows_is_refused():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), requests_per_minute=1, queue_s=90)
        calls = [asyncio.ensure_future(stage.text(lane)) for _ in range(3)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert ended[:2] == ["hi", "hi"]
        assert isinstance(ended[2], LLMRateLimitError)
        assert ended[2].code == "queue_timeout"
        assert stage.sent() == 2

    play(main)


def test_a_retry_is_a_request_too():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500), answer()], requests_per_minute=1, total_s=None)
        await stage.text(lane)
        assert [attempt.begin for attempt in stage.records[0].attempts] == pytest.approx([0, 60])

    play(main)


def test_tokens_are_estimated_first_and_corrected_by_what_was_used():
    """Each call is believed to use about a thousand tokens and uses five."""

    async def main():
        stage = Stage()
        lane = stage.lane(
            lambda _: answer(after_s=1), tokens_per_minute=1500, max_running=100, total_s=None
        )
        begun = await starts(stage, lane, 3, max_tokens=1000)
        # One fits into the bucket beside none; the next waits not for a minute, but until the one
        # before it is settled.
        assert begun == pytest.approx([0, 1, 2])

    play(main)


def test_tokens_that_a_call_used_beyond_its_estimate_are_owed():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), tokens_per_minute=300, total_s=None)
        lane.admission.limits.settle(0, 600)  # one has used far more than was believed
        assert await starts(stage, lane, 1, max_tokens=1) == pytest.approx([63.4], abs=1)

    play(main)


def test_a_refused_request_has_used_no_tokens():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(429), answer()], tokens_per_minute=1000, retry=None)
        with pytest.raises(LLMError):
            await stage.text(lane, max_tokens=900)
        assert await stage.text(lane, max_tokens=900) == "hi"
        assert stage.clock.monotonic() == 0

    play(main)


def test_a_request_larger_than_a_minute_allows_waits_for_a_full_bucket_only():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), tokens_per_minute=600, total_s=None)
        assert await stage.text(lane, max_tokens=100_000) == "hi"
        await stage.text(lane, max_tokens=100_000)
        assert stage.clock.monotonic() < 10

    play(main)


def test_the_next_in_turn_is_not_overtaken_by_a_smaller_one():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(gap_s=5), tokens_per_minute=1000, total_s=None)
        sizes = (900, 800, 1)
        async with asyncio.TaskGroup() as calls:
            for size in sizes:
                calls.create_task(stage.text(lane, request=ASK, max_tokens=size, user=str(size)))
                await asyncio.sleep(0)
        admitted = {r.call_id: r.timeline.admitted for r in stage.records}
        assert admitted["call-1"] < admitted["call-2"] <= admitted["call-3"]

    play(main)


@given(
    per_minute=st.floats(0.5, 1e6),
    wants=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 2e6)), min_size=1, max_size=40),
)
def test_no_stretch_of_time_sees_more_than_its_share(per_minute, wants):
    """Takers who wait as long as they are told: any t seconds see at most rate * (1 + t / 60)."""
    clock = ManualClock(monotonic=0.0)
    bucket = Bucket(per_minute, clock)
    taken = []

    async def main():
        for pause_s, wanted in wants:
            await clock.advance(pause_s)
            amount = min(wanted, per_minute)
            await clock.advance(bucket.wait_s(amount))
            assert bucket.wait_s(amount) == 0
            bucket.take(amount)
            taken.append((clock.monotonic(), amount))

    asyncio.run(main())
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            seconds = taken[last][0] - taken[first][0]
            amount = sum(each for _, each in taken[first : last + 1])
            assert amount <= per_minute * (1 + seconds / 60) * (1 + 1e-6) + 1e-3


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_after_settling_a_bucket_is_as_if_the_use_had_been_known(estimated, used):
    clock = ManualClock()
    guessed, known = (RateLimits(clock, tokens_per_minute=5000) for _ in range(2))
    guessed.take(estimated)
    guessed.settle(estimated, used)
    known.take(used)
    assert guessed.wait_s(5000) == pytest.approx(known.wait_s(5000))


@pytest.mark.parametrize("nothing", [0, -1])
def test_a_limit_that_lets_nothing_through_is_refused(nothing):
    with pytest.raises(ValueError, match="lets nothing through"):
        RateLimits(ManualClock(), requests_per_minute=nothing)


def test_a_cancelled_wait_for_the_rate_holds_nobody_up():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), requests_per_minute=2, total_s=None)
        await starts(stage, lane, 2)
        waiting = [asyncio.ensure_future(stage.text(lane)) for _ in range(2)]
        await stage.clock.sleep(1)
        waiting[0].cancel()
        assert await waiting[1] == "hi"
        assert stage.clock.monotonic() == pytest.approx(30)
        assert is_idle(lane)

    play(main)
