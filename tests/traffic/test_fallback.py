"""Another backend instead of one that fails."""

from __future__ import annotations

import asyncio
import json
import traceback

import pytest

from headrace.backends.providers import Provider
from headrace.contracts.errors import (
    LLMContentFilterError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.contracts.record import Marks
from headrace.net.scripted import ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.traffic.fallback import Alternative
from traffic.play import EVENTS, OPENING, Stage, answer, broken, is_idle, play, refusal, said

HANG = ScriptedAnswer(fault="hang")


def test_what_one_backend_cannot_answer_the_next_one_does():
    async def main():
        stage = Stage()
        lanes = [
            stage.lane([refusal(500)], "a"),
            stage.lane([ScriptedAnswer(fault="refuse")], "b"),
            stage.lane([answer("from c")], "c"),
            stage.lane([], "d"),
        ]
        marks = Marks()
        assert await stage.text(*lanes, marks=marks) == "from c"
        (record,) = stage.records
        assert (record.backend, record.provider, record.status) == ("c", "scripted", 200)
        assert [(a.backend, a.error_kind) for a in record.attempts] == [
            ("a", "LLMProviderError"),
            ("b", "LLMUnavailableError"),
            ("c", None),
        ]
        assert (marks.backend, marks.attempts) == ("c", list(record.attempts))
        assert all(map(is_idle, lanes))

    play(main)


@pytest.mark.parametrize(
    "failure",
    [
        refusal(401),
        refusal(402),
        refusal(404, code="model_not_found"),
        refusal(408),
        refusal(429, ("retry-after", "500")),
        refusal(500, ("x-should-retry", "false")),
        refusal(503),
        refusal(400, code="context_length_exceeded"),
        refusal(400, code="unsupported"),
        ScriptedAnswer(fault="refuse"),
        ScriptedAnswer(headers=EVENTS, body=(OPENING, b"data: {broken\n\n")),
        ScriptedAnswer(body=b"<html>"),
        broken(OPENING),
        HANG,
    ],
)
def test_what_is_one_backends_own_trouble_goes_on_to_the_next_without_waiting(failure):
    async def main():
        stage = Stage()
        first = stage.lane([failure], "a", limits=TimeLimits(first_byte_s=2))
        assert await stage.text(first, stage.lane([answer()], "b")) == "hi"
        assert stage.clock.monotonic() == (2 if failure is HANG else 0)

    play(main)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (refusal(400), LLMInvalidRequestError),
        (refusal(422), LLMInvalidRequestError),
        (
            ScriptedAnswer(
                status=400, body=b'{"error": {"message": "", "code": "content_filter"}}'
            ),
            LLMContentFilterError,
        ),
    ],
)
def test_what_is_wrong_everywhere_is_said_at_once(failure, error):
    async def main():
        stage = Stage()
        with pytest.raises(error):
            await stage.text(stage.lane([failure], "a"), stage.lane([answer()], "b"))
        assert stage.sent("b") == 0

    play(main)


def test_a_setting_that_one_provider_lacks_is_taken_to_one_that_has_it():
    async def main():
        stage = Stage()
        row = Provider(name="no-seed", unsupported=frozenset({"seed"}))
        lanes = [stage.lane([], "a", row=row), stage.lane([answer()], "b")]
        assert await stage.text(*lanes, seed=7) == "hi"
        assert [attempt.error_kind for attempt in stage.records[0].attempts] == [
            "LLMCapabilityError",
            None,
        ]

    play(main)


def test_only_what_the_answering_backend_dropped_is_told():
    async def main():
        stage = Stage()
        deaf = Provider(name="deaf", ignored=frozenset({"seed"}))
        half_deaf = Provider(name="half-deaf", ignored=frozenset({"top_p"}))
        lanes = [
            stage.lane([refusal(500)], "a", row=deaf),
            stage.lane([refusal(500), answer()], "b", row=half_deaf),
        ]
        marks = Marks()
        await stage.text(*lanes, marks=marks, seed=7, top_p=0.5)
        assert marks.dropped == ["top_p"]
        assert stage.records[0].dropped == ("top_p",)

    play(main)


def test_nothing_is_asked_elsewhere_once_output_was_given_away():
    async def main():
        stage = Stage()
        with pytest.raises(LLMError):
            await stage.text(stage.lane([broken(said("a"))], "a"), stage.lane([answer()], "b"))
        assert stage.sent("b") == 0

    play(main)


def test_the_last_error_is_raised_and_has_the_others_behind_it():
    async def main():
        stage = Stage()
        lanes = [
            stage.lane([refusal(500)], "a"),
            stage.lane([refusal(503)], "b"),
            stage.lane([refusal(429)], "c", retry=None),
        ]
        with pytest.raises(LLMRateLimitError) as caught:
            await stage.text(*lanes)
        second = caught.value.__context__
        assert isinstance(second, LLMOverloadedError)
        assert type(second.__context__) is LLMProviderError
        shown = "".join(traceback.format_exception(caught.value))
        assert shown.index("says 500") < shown.index("says 503") < shown.index("says 429")
        (record,) = stage.records
        assert (record.backend, record.error_kind, record.status) == (
            "c",
            "LLMRateLimitError",
            429,
        )

    play(main)


def test_only_the_last_backend_is_worth_waiting_for():
    async def main():
        stage = Stage()
        lanes = [stage.lane([refusal(500)], "a"), stage.lane([refusal(500), answer()], "b")]
        assert await stage.text(*lanes) == "hi"
        assert [attempt.backend for attempt in stage.records[0].attempts] == ["a", "b", "b"]

    play(main)


def test_another_backend_may_know_the_model_by_another_name():
    async def main():
        stage = Stage()
        other = Alternative(lane=stage.lane([answer()], "b"), model="its-own-name")
        await stage.text(stage.lane([refusal(500)], "a"), other)
        bodies = [json.loads(stage.transports[name].requests[0].body) for name in "ab"]
        assert [body["model"] for body in bodies] == ["m", "its-own-name"]

    play(main)


def test_a_backend_that_is_always_ill_is_hardly_asked():
    """1,000 calls one after another, all of them answered."""

    async def main():
        stage = Stage()
        ill = stage.lane(lambda _: refusal(500), "ill")
        well = stage.lane(lambda _: answer(), "well")
        for _ in range(1000):
            assert await stage.text(ill, well) == "hi"
        assert stage.sent("ill") == 5
        assert stage.sent("well") == 1000

    play(main)


def test_a_full_queue_goes_on_to_the_next_backend():
    async def main():
        stage = Stage()
        full = stage.lane([answer(after_s=30)], "full", max_running=1, max_waiting=0)
        running = asyncio.ensure_future(stage.text(full))
        await asyncio.sleep(0)
        assert await stage.text(full, stage.lane([answer("b")], "b")) == "b"
        assert [attempt.backend for attempt in stage.records[0].attempts] == ["b"]
        assert await running == "hi"

    play(main)


def test_a_call_whose_time_is_over_goes_nowhere_else():
    async def main():
        stage = Stage()
        limits = TimeLimits(first_byte_s=1000)
        first = stage.lane([HANG], "a", limits=limits, total_s=10)
        with pytest.raises(LLMTimeoutError, match="a: total_s of 10 s"):
            await stage.text(first, stage.lane([answer()], "b"))
        assert stage.sent("b") == 0

    play(main)


def test_the_live_counts_follow_a_call_to_where_it_runs():
    async def main():
        stage = Stage()
        lanes = [stage.lane([refusal(500)], "a"), stage.lane([answer(gap_s=10)], "b")]
        running = asyncio.ensure_future(stage.text(*lanes))
        await stage.clock.sleep(5)
        assert stage.tally.running_at == {"a": 0, "b": 1}
        assert stage.tally.snapshot(5.0).running == 1
        await running
        assert stage.tally.running_at == {"a": 0, "b": 0}

    play(main)


def test_a_defect_of_ours_is_not_taken_elsewhere():
    async def main():
        stage = Stage()

        def defect(_):
            raise ZeroDivisionError

        lanes = [stage.lane(defect, "a"), stage.lane([answer()], "b")]
        with pytest.raises(ZeroDivisionError):
            await stage.text(*lanes)
        (record,) = stage.records
        assert (record.error_kind, record.status) == ("ZeroDivisionError", 500)
        assert all(map(is_idle, lanes))

    play(main)


def test_calls_that_share_marks_leave_records_of_their_own():
    async def main():
        stage = Stage()
        lane = stage.lane([refusal(500), answer(), answer()])
        marks = Marks()
        await asyncio.gather(*(stage.text(lane, marks=marks) for _ in range(2)))
        assert sorted(len(record.attempts) for record in stage.records) == [1, 2]
        assert len(marks.attempts) == 3

    play(main)
