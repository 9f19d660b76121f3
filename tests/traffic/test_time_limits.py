"""How long a call may take, and which limit its error names."""

from __future__ import annotations

import asyncio

import pytest

from headrace.contracts.errors import LLMRateLimitError, LLMTimeoutError
from headrace.contracts.record import Marks
from headrace.net.clock import SystemClock
from headrace.net.scripted import ManualClock, Piece, ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.traffic.call import CallSheet
from headrace.traffic.patience import Alarm, Patience
from headrace.traffic.retry import RetryPolicy
from traffic.play import ASK, EVENTS, OPENING, Stage, answer, is_idle, play, refusal, said

LONG = TimeLimits(first_byte_s=1000, idle_s=1000)
ONCE = {"retry": None}
TEN = "abcdefghij"


async def times_out(stage, lane, **how):
    with pytest.raises(LLMTimeoutError) as caught:
        await stage.text(lane, **how)
    assert is_idle(lane)
    assert stage.records[-1].error_kind == "LLMTimeoutError"
    assert stage.records[-1].status == 504
    return str(caught.value)


def test_a_whole_answer_may_take_sixty_seconds():
    async def main():
        stage = Stage()
        lane = stage.lane([answer(*TEN, gap_s=7)] * 2, limits=LONG, **ONCE)
        said = await times_out(stage, lane, stream=False)
        assert said == "first: total_s of 60 s ran out while waiting for more of its answer"
        assert stage.clock.monotonic() == 60
        assert stage.transports["first"].replies[0].closed_early

    play(main)


def test_a_stream_that_progresses_may_take_as_long_as_it_likes():
    async def main():
        stage = Stage()
        lane = stage.lane([answer(*TEN, gap_s=50)], limits=LONG, **ONCE)
        assert await stage.text(lane) == TEN
        assert stage.clock.monotonic() == 500

    play(main)


def test_a_stream_is_bounded_by_its_idle_limit():
    async def main():
        stage = Stage()
        limits = TimeLimits(idle_s=20)
        lane = stage.lane([answer("a", "b", gap_s=21)], limits=limits, first_token_s=90, **ONCE)
        assert "idle_s of 20 s" in await times_out(stage, lane)

    play(main)


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_without_output_ends_after_the_whole_time(stream):
    async def main():
        stage = Stage()
        lane = stage.lane([ScriptedAnswer(fault="hang")], limits=LONG, **ONCE)
        said = await times_out(stage, lane, stream=stream)
        assert said == "first: total_s of 60 s ran out while waiting for its first output"
        assert stage.clock.monotonic() == 60

    play(main)


def test_the_first_token_has_a_limit_that_bytes_do_not_meet():
    """The server sends comments and an empty piece, as some do to keep the connection open."""

    async def main():
        stage = Stage()
        alive = tuple(Piece(data=b": alive\n\n", after_s=1) for _ in range(50))
        body = (OPENING, *alive, said("late"))
        lane = stage.lane([ScriptedAnswer(headers=EVENTS, body=body)], first_token_s=8, **ONCE)
        message = await times_out(stage, lane)
        assert message == "first: first_token_s of 8 s ran out while waiting for its first output"
        assert stage.clock.monotonic() == 8

    play(main)


def test_the_limit_of_the_first_token_is_over_with_it():
    async def main():
        stage = Stage()
        lane = stage.lane([answer(*TEN, gap_s=7)], first_token_s=8, **ONCE)
        assert await stage.text(lane) == TEN

    play(main)


def test_each_attempt_has_the_first_tokens_limit_anew():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [answer(after_s=50), answer("x", after_s=7)], first_token_s=8, limits=LONG
        )
        assert await stage.text(lane) == "x"
        kinds = [attempt.error_kind for attempt in stage.records[0].attempts]
        assert kinds == ["LLMTimeoutError", None]

    play(main)


def test_the_whole_time_covers_retries_and_their_waits():
    async def main():
        stage = Stage()
        hang = ScriptedAnswer(fault="hang")
        lane = stage.lane([refusal(500), refusal(500), hang], limits=LONG, total_s=20)
        message = await times_out(stage, lane)
        assert "total_s of 20 s" in message
        assert stage.clock.monotonic() == 20
        assert stage.sent() == 3

    play(main)


def test_the_whole_time_covers_the_wait_for_a_place_to_ask_again():
    async def main():
        stage = Stage()
        lane = stage.lane(
            [refusal(429), answer(after_s=50)],
            limits=LONG,
            max_running=1,
            retry=RetryPolicy(first_delay_s=5, jitter=0),
        )
        first = asyncio.ensure_future(stage.text(lane, total_s=20))
        await asyncio.sleep(0)
        other = asyncio.ensure_future(stage.text(lane))
        with pytest.raises(LLMTimeoutError, match="ran out while waiting for a place") as caught:
            await first
        assert stage.clock.monotonic() == 20
        assert isinstance(caught.value.__cause__, LLMRateLimitError)
        assert await other == "hi"

    play(main)


def test_the_whole_time_begins_when_the_call_may_run():
    async def main():
        stage = Stage()
        lane = stage.lane([answer("a", after_s=50), answer("b", after_s=50)], max_running=1)
        first, second = await asyncio.gather(stage.text(lane), stage.text(lane))
        assert (first, second) == ("a", "b")
        assert stage.clock.monotonic() == 100

    play(main)


def test_one_call_can_have_a_limit_of_its_own():
    async def main():
        stage = Stage()
        lane = stage.lane([ScriptedAnswer(fault="hang")], limits=LONG, **ONCE)
        assert "total_s of 5 s" in await times_out(stage, lane, total_s=5)

    play(main)


def test_a_caller_who_takes_its_time_finds_the_whole_time_over():
    async def main():
        stage = Stage()
        lane = stage.lane([answer("a", "b")], total_s=10, **ONCE)
        sheet = CallSheet(call_id="c", operation="chat", queued=0.0)
        run = stage.traffic.run(ASK, lane, sheet, Marks())
        await anext(run)
        await stage.clock.sleep(11)
        with pytest.raises(LLMTimeoutError, match="total_s of 10 s"):
            async for _ in run:
                pass
        assert is_idle(lane)

    play(main)


def test_a_caller_who_leaves_in_the_same_instant_is_cancelled_and_not_late():
    class BothAtOnce(ManualClock):
        def call_later(self, seconds, do):
            return super().call_later(seconds, lambda: (do(), task.cancel()))

    async def wait():
        with patience("waiting"):
            await asyncio.get_running_loop().create_future()

    async def main():
        nonlocal patience, task
        clock = BothAtOnce()
        patience = Patience(clock, "peer")
        task = asyncio.ensure_future(wait())
        patience.allow("total_s", 5)
        await clock.advance(5)
        with pytest.raises(asyncio.CancelledError):
            await task

    patience = task = None
    play(main)


def test_a_task_that_met_a_limit_can_be_cancelled_and_wait_again():
    async def main():
        clock = ManualClock(monotonic=0.0, auto=True)
        patience = Patience(clock, "peer")
        patience.allow("first", 5)
        patience.allow("all", 20)
        with pytest.raises(LLMTimeoutError, match="first of 5 s"), patience("waiting"):
            await clock.sleep(50)
        assert asyncio.current_task().cancelling() == 0
        patience.lift("first")
        with patience("waiting"):
            await clock.sleep(10)
        with pytest.raises(LLMTimeoutError, match="all of 20 s"), patience("waiting"):
            await clock.sleep(50)
        with pytest.raises(LLMTimeoutError, match="all of 20 s"), patience("waiting"):
            pass
        assert clock.monotonic() == 20

    play(main)


def test_calls_beside_one_another_meet_each_their_own_limit():
    async def main():
        stage = Stage()

        async def over_at(total_s, begin_s):
            await stage.clock.sleep(begin_s)
            lane = stage.lane(
                [ScriptedAnswer(fault="hang")], f"lane {total_s}", limits=LONG, **ONCE
            )
            with pytest.raises(LLMTimeoutError, match=f"total_s of {total_s:g} s"):
                await stage.text(lane, total_s=total_s)
            return stage.clock.monotonic()

        quick = stage.lane([answer()], "quick")
        calls = [(40, 0), (10, 5), (30, 1), (5, 20), (10.5, 5)]
        *over, _ = await asyncio.gather(
            *(over_at(total_s, begin_s) for total_s, begin_s in calls), stage.text(quick)
        )
        assert over == [total_s + begin_s for total_s, begin_s in calls]

    play(main)


def test_limits_hold_in_another_loop_after_the_first_was_stopped_in_the_middle():
    clock = SystemClock()
    alarm = Alarm(clock)

    async def begin():
        patience = Patience(clock, "peer", alarm)
        patience.allow("total_s", 0.01)  # and never closed

    async def wait():
        patience = Patience(clock, "peer", alarm)
        patience.allow("total_s", 0.02)
        with pytest.raises(LLMTimeoutError, match=r"total_s of 0\.02 s"), patience("waiting"):
            await asyncio.get_running_loop().create_future()

    asyncio.run(begin())
    play(wait)


def test_a_call_that_is_over_leaves_no_timer_behind():
    async def main():
        stage = Stage()
        lane = stage.lane([answer()], first_token_s=30)
        await stage.text(lane)
        await stage.clock.sleep(1000)
        assert stage.clock.monotonic() == 1000
        assert len(stage.records) == 1

    play(main)
