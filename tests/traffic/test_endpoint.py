"""What an endpoint is made of by default, and what it tells of itself."""

from __future__ import annotations

import asyncio

import pytest

from headrace.contracts.convert import to_json
from headrace.contracts.errors import LLMError, LLMRateLimitError
from headrace.net.transport import TimeLimits
from headrace.traffic.endpoint import EndpointSettings
from traffic.play import Stage, answer, play, refusal

SLOW = TimeLimits(first_byte_s=None, idle_s=None)


def test_five_run_a_hundred_wait_and_the_next_is_told_when_to_come_back():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(gap_s=1), total_s=None)
        calls = [asyncio.ensure_future(stage.text(lane)) for _ in range(105)]
        await asyncio.sleep(0)
        with pytest.raises(LLMRateLimitError) as caught:
            await stage.text(lane)
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after_s >= 1
        stats = lane.stats()
        assert (stats.running, stats.waiting) == (5, 100)
        assert await asyncio.gather(*calls) == ["hi"] * 105
        assert stage.clock.monotonic() == 21

    play(main)


def test_its_own_refusals_are_not_asked_again():
    async def main():
        stage = Stage()
        lane = stage.lane([answer(gap_s=30)], max_running=1, max_waiting=0)
        running = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        with pytest.raises(LLMRateLimitError):
            await stage.text(lane)
        assert stage.clock.monotonic() == 0
        assert lane.stats().retries == 0
        await running

    play(main)


def test_it_counts_what_it_did_by_how_it_ended():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [answer(after_s=2), refusal(500), answer(after_s=1), refusal(400), refusal(401)]
        )
        for _ in range(4):
            try:
                await stage.text(lane)
            except LLMError:
                continue
        stats = lane.stats()
        assert stats.name == "first"
        assert (stats.requests, stats.successes, stats.retries) == (4, 2, 1)
        assert stats.failures == {"LLMInvalidRequestError": 1, "LLMAuthError": 1}
        assert (stats.prompt_tokens, stats.completion_tokens) == (6, 4)
        assert (stats.running, stats.waiting, stats.circuit) == (0, 0, "closed")
        assert stats.latency.count == 2
        assert stats.latency.max_s == 2
        assert 1.5 <= stats.latency.min_s < 2  # one second and the wait before the retry
        assert b'"circuit":"closed"' in to_json(stats).replace(b" ", b"")

    play(main)


def test_its_counts_can_be_set_back_to_nothing():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(), breaker=None)
        fresh = lane.stats()
        await stage.text(lane)
        assert lane.stats() != fresh
        lane.reset_stats()
        assert lane.stats() == fresh
        await stage.text(lane)
        assert lane.stats().requests == 1

    play(main)


def test_each_endpoint_counts_its_own_share_of_a_call():
    async def main():
        stage = Stage()
        ill, well = stage.lane([refusal(500)], "ill"), stage.lane([answer()], "well")
        await stage.text(ill, well)
        assert ill.stats().failures == {"LLMProviderError": 1}
        assert (well.stats().requests, well.stats().successes) == (1, 1)

    play(main)


def test_the_defaults_are_those_that_were_promised():
    settings = EndpointSettings()
    assert (settings.max_running, settings.max_waiting, settings.total_s) == (5, 100, 60)
    retry, breaker = settings.retry, settings.breaker
    delays = (retry.retries, retry.first_delay_s, retry.factor, retry.max_delay_s)
    assert delays == (5, 1, 2, 16)
    assert (breaker.failures, breaker.open_s) == (5, 30)


def test_an_endpoint_can_be_without_all_of_it():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [refusal(500)] * 6 + [answer(gap_s=500)],
            retry=None,
            breaker=None,
            total_s=None,
            limits=SLOW,
        )
        for _ in range(6):
            with pytest.raises(LLMError):
                await stage.text(lane)
        assert await stage.text(lane, stream=False) == "hi"
        assert lane.admission.limits is None

    play(main)


@pytest.mark.parametrize("name", ["running", "queued"])
def test_nothing_is_left_in_the_live_counts(name):
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(400), answer()])
        for _ in range(2):
            try:
                await stage.text(lane)
            except LLMError:
                continue
        assert getattr(stage.tally.snapshot(1.0), name) == 0

    play(main)
