"""An endpoint that is ill is left alone, and let in again once it is well."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.contracts.errors import (
    LLMAuthError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.net.scripted import ManualClock, ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.traffic.breaker import Breaker, BreakerPolicy
from headrace.traffic.retry import RetryPolicy
from traffic.play import OPENING, Stage, answer, broken, is_idle, play, refusal, said

ONCE = {"retry": None}


async def fail(stage, lane, times):
    for _ in range(times):
        with pytest.raises(LLMError):
            await stage.text(lane)


def test_five_failures_in_a_row_open_the_circuit_for_thirty_seconds():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500)] * 5 + [answer()], **ONCE)
        await fail(stage, lane, 4)
        assert lane.stats().circuit == "closed"
        await fail(stage, lane, 1)
        assert lane.stats().circuit == "open"
        await stage.clock.sleep(10)
        with pytest.raises(LLMUnavailableError, match="left alone for another 20") as caught:
            await stage.text(lane)
        assert caught.value.retry_after_s == pytest.approx(20)
        assert caught.value.code == "circuit_open"
        assert stage.sent() == 5
        assert stage.records[-1].attempts == ()
        await stage.clock.sleep(20)
        assert lane.stats().circuit == "half_open"
        assert await stage.text(lane) == "hi"
        assert lane.stats().circuit == "closed"
        assert is_idle(lane)

    play(main)


def test_a_refused_call_does_not_wait_in_the_queue():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500)] * 5, requests_per_minute=5, **ONCE)
        await fail(stage, lane, 5)
        with pytest.raises(LLMUnavailableError):  # not when its turn comes, in 12 seconds
            await stage.text(lane)
        assert stage.clock.monotonic() == 0

    play(main)


def test_who_waits_in_the_queue_when_the_circuit_opens_is_refused_in_turn():
    async def main():
        stage = Stage()
        slow = evolve(refusal(500), after_s=1)
        lane = stage.lane(lambda _: slow, max_running=1, **ONCE)
        calls = [stage.text(lane) for _ in range(9)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in ended] == [LLMProviderError] * 5 + [LLMUnavailableError] * 4
        assert (stage.sent(), stage.clock.monotonic()) == (5, 5)
        assert [len(record.attempts) for record in stage.records] == [1] * 5 + [0] * 4
        assert is_idle(lane)

    play(main)


@pytest.mark.parametrize(
    ("failure", "opens"),
    [
        (refusal(500), True),
        (refusal(502), True),
        (refusal(503), True),
        (refusal(529), True),
        (refusal(504), True),
        (ScriptedAnswer(fault="refuse"), True),
        (ScriptedAnswer(fault="reset"), True),
        (ScriptedAnswer(fault="hang"), True),
        (broken(OPENING), True),
        (broken(said("a")), True),
        (ScriptedAnswer(status=200, body=b"<html>welcome</html>"), True),
        (refusal(400), False),
        (refusal(401), False),
        (refusal(404), False),
        (refusal(429), False),
    ],
)
def test_only_what_says_that_the_endpoint_is_ill_opens_the_circuit(failure, opens):
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: failure, limits=TimeLimits(first_byte_s=1), **ONCE)
        await fail(stage, lane, 5)
        assert lane.stats().circuit == ("open" if opens else "closed")

    play(main)


def test_an_endpoint_that_sends_no_token_in_time_is_ill_too():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(after_s=50), first_token_s=5, **ONCE)
        await fail(stage, lane, 5)
        assert lane.stats().circuit == "open"

    play(main)


def test_a_long_answer_that_runs_out_of_time_does_not_count():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: answer(*"abcdefgh", gap_s=5), total_s=20, **ONCE)
        for _ in range(6):
            with pytest.raises(LLMTimeoutError, match="total_s of 20 s"):
                await stage.text(lane, stream=False)
        assert lane.stats().circuit == "closed"

    play(main)


def test_one_success_between_failures_keeps_the_circuit_closed():
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 4, answer(), *[refusal(500)] * 4], **ONCE)
        await fail(stage, lane, 4)
        await stage.text(lane)
        await fail(stage, lane, 4)
        assert lane.stats().circuit == "closed"

    play(main)


def test_a_refusal_between_failures_is_no_success():
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 4, refusal(429), refusal(400), refusal(500)], **ONCE)
        await fail(stage, lane, 7)
        assert lane.stats().circuit == "open"

    play(main)


def test_a_half_open_circuit_lets_one_call_through_at_a_time():
    async def main():
        stage = Stage()
        probe = answer("p", "q", after_s=2, gap_s=50)
        lane = stage.lane([*[refusal(500)] * 5, probe, answer()], total_s=None, **ONCE)
        await fail(stage, lane, 5)
        await stage.clock.sleep(30)
        probing = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        with pytest.raises(LLMUnavailableError, match="one call is trying"):
            await stage.text(lane)
        assert stage.sent() == 6
        await stage.clock.sleep(60)
        # Its first token was enough: the rest of the answer may take as long as it likes.
        assert not probing.done()
        assert await stage.text(lane) == "hi"
        assert await probing == "pq"

    play(main)


def test_a_probe_that_fails_opens_the_circuit_again():
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 6, answer()], **ONCE)
        await fail(stage, lane, 5)
        await stage.clock.sleep(30)
        await fail(stage, lane, 1)
        assert lane.stats().circuit == "open"
        await stage.clock.sleep(29)
        with pytest.raises(LLMUnavailableError):
            await stage.text(lane)
        await stage.clock.sleep(1)
        assert await stage.text(lane) == "hi"

    play(main)


@pytest.mark.parametrize("refused", [429, 400])
def test_a_probe_that_says_nothing_is_followed_by_another(refused):
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 5, refusal(refused), answer()], **ONCE)
        await fail(stage, lane, 5)
        await stage.clock.sleep(30)
        await fail(stage, lane, 1)
        assert lane.stats().circuit == "half_open"
        assert await stage.text(lane) == "hi"
        assert lane.stats().circuit == "closed"

    play(main)


def test_a_probe_that_is_cancelled_gives_its_turn_to_another():
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 5, ScriptedAnswer(fault="hang"), answer()], **ONCE)
        await fail(stage, lane, 5)
        await stage.clock.sleep(30)
        probing = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        assert await stage.text(lane) == "hi"

    play(main)


def test_a_patient_caller_does_not_shut_the_circuit_on_its_own_last_retry():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: refusal(500), retry=RetryPolicy(jitter=0), total_s=None)
        with pytest.raises(LLMProviderError, match="says 500"):
            await stage.text(lane)
        assert stage.sent() == 6
        assert stage.clock.monotonic() == 1 + 2 + 4 + 8 + 16
        assert lane.breaker.state == "closed"

    play(main)


def test_retries_stop_where_the_circuit_opens_and_the_real_error_is_raised():
    async def main():
        stage = Stage()
        lane = stage.lane(lambda _: refusal(500), retry=RetryPolicy(jitter=0), total_s=None)
        calls = [asyncio.ensure_future(stage.text(lane)) for _ in range(5)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all("says 500" in str(each) for each in ended)
        assert any("left alone" in note for each in ended for note in each.__notes__)
        assert stage.sent() <= 10  # five calls, and who had begun to ask again by then
        assert lane.breaker.state == "open"

    play(main)


def test_a_call_whose_circuit_others_open_meanwhile_raises_its_own_error():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [refusal(429), *[refusal(500)] * 10],
            retry=RetryPolicy(first_delay_s=40, max_delay_s=40, jitter=0),
            breaker=BreakerPolicy(open_s=100),
            total_s=None,
        )
        waiting = asyncio.ensure_future(stage.text(lane))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(stage.text(lane)) for _ in range(5)]
        ended = await asyncio.gather(*others, return_exceptions=True)
        assert all(isinstance(each, LLMProviderError) for each in ended)
        with pytest.raises(LLMRateLimitError, match="says 429") as caught:
            await waiting
        assert "failed 5 times in a row" in caught.value.__notes__[0]

    play(main)


def test_news_from_before_the_circuit_opened_is_old_news():
    async def main():
        clock = ManualClock()
        breaker = Breaker("e", clock, BreakerPolicy(failures=1, open_s=10))
        early, *others = [breaker.enter() for _ in range(4)]
        breaker.failed(early, LLMProviderError("x"))
        await clock.advance(9)
        breaker.failed(others[0], LLMProviderError("x"))  # does not make it longer
        await clock.advance(1)
        assert breaker.state == "half_open"
        probe = breaker.enter()
        breaker.failed(others[1], LLMProviderError("x"))  # nor is it the probe's answer,
        breaker.succeeded(others[2])  # good or bad
        assert breaker.state == "half_open"
        with pytest.raises(LLMUnavailableError):
            breaker.check()
        breaker.succeeded(probe)
        assert breaker.state == "closed"

    play(main)


def test_breakers_are_those_of_their_endpoints():
    async def main():
        stage = Stage()
        ill = stage.lane([refusal(500)] * 5, "ill", **ONCE)
        well = stage.lane([answer()], "well", **ONCE)
        await fail(stage, ill, 5)
        assert await stage.text(well) == "hi"

    play(main)


def test_a_breaker_can_be_left_out():
    async def main():
        stage = Stage()
        lane = stage.lane([*[refusal(500)] * 20, answer()], breaker=None, **ONCE)
        await fail(stage, lane, 20)
        assert await stage.text(lane) == "hi"
        assert lane.stats().circuit is None

    play(main)


def test_a_policy_without_failures_is_refused():
    with pytest.raises(ValueError, match="failures is 0"):
        BreakerPolicy(failures=0)


class BreakerMachine(RuleBasedStateMachine):
    """Attempts that begin and end in any order, against the few words of what a breaker promises."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock(monotonic=0.0)
        self.policy = BreakerPolicy(failures=3, open_s=10)
        self.breaker = Breaker("e", self.clock, self.policy)
        self.under_way = []

    @rule()
    def begin(self):
        before = self.breaker.state
        probing = any(state == "half_open" for _, state in self.under_way)
        if before == "open" or (before == "half_open" and probing):
            with pytest.raises(LLMUnavailableError) as caught:
                self.breaker.enter()
            assert 0 < caught.value.retry_after_s <= 10
        else:
            self.under_way.append((self.breaker.enter(), before))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["good", "ill", "refused", "left"]))
    def end(self, data, how):
        era, began_in = self.under_way.pop(
            data.draw(st.integers(0, len(self.under_way) - 1), label="which")
        )
        before = self.breaker.state
        if how == "good":
            self.breaker.succeeded(era)
        elif how == "ill":
            self.breaker.failed(era, LLMProviderError("x"))
        elif how == "refused":
            self.breaker.failed(era, LLMInvalidRequestError("x"))
        else:
            self.breaker.left(era)
        after = self.breaker.state
        if how != "ill":
            assert after != "open" or before == "open"
        if how != "good":
            assert after != "closed" or before == "closed"
        if before == "half_open" and after == "closed":
            assert began_in == "half_open"

    @rule(seconds=st.sampled_from([1, 5, 10]))
    def pass_time(self, seconds):
        before = self.breaker.state
        asyncio.run(self.clock.advance(seconds))
        after = self.breaker.state
        assert (before, after) in {
            ("closed", "closed"),
            ("open", "open"),
            ("open", "half_open"),
            ("half_open", "half_open"),
        }
        if seconds == 10:
            assert after != "open"

    @invariant()
    def a_well_endpoint_can_always_become_closed(self):
        """Nothing is stuck: with nobody under way, time and one good probe close it."""
        if not self.under_way and self.breaker.state == "half_open":
            self.breaker.check()


TestBreakerMachine = BreakerMachine.TestCase


@given(st.lists(st.booleans(), max_size=30))
def test_it_opens_exactly_when_so_many_fail_in_a_row(outcomes):
    breaker = Breaker("e", ManualClock(), BreakerPolicy(failures=3))
    in_a_row = 0
    for good in outcomes:
        era = breaker.enter()
        if good:
            breaker.succeeded(era)
        else:
            breaker.failed(era, LLMProviderError("x"))
        in_a_row = 0 if good else in_a_row + 1
        assert (breaker.state == "open") == (in_a_row == 3)
        if in_a_row == 3:
            return


def test_a_wrong_key_opens_nothing():
    breaker = Breaker("e", ManualClock())
    for _ in range(100):
        breaker.failed(breaker.enter(), LLMAuthError("x"))
    assert breaker.state == "closed"
