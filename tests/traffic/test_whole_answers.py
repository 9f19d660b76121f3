"""Whole answers are asked for as such, where that costs nobody a promise."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from attrs import evolve

from headrace.backends.providers import Provider, providers
from headrace.contracts.errors import LLMTimeoutError
from headrace.contracts.record import Marks
from headrace.net.scripted import ScriptedAnswer
from headrace.net.transport import TimeLimits
from headrace.numbers.timeline import end_to_end, time_to_first_token
from traffic.play import ASK, USAGE, Stage, answer, play

PLAIN = Provider(name="plain")
JSON = (("content-type", "application/json"),)


def whole(message: dict[str, Any], reason: str = "stop", **more: Any) -> ScriptedAnswer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    body = {"id": "r", "model": "m-1", "choices": [choice], "usage": USAGE, **more}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode(), after_s=2)


def asked_to_stream(stage: Stage) -> bool:
    (request,) = stage.transports["first"].requests
    assert isinstance(request.body, bytes)
    return json.loads(request.body).get("stream", False) is True


def test_a_whole_answer_is_asked_for_whole_and_leaves_the_same_record():
    async def main():
        stage = Stage()
        lane = stage.lane([whole({"content": "hi"})], row=PLAIN)
        (delta,) = await stage.deltas(lane, stream=False)
        assert not asked_to_stream(stage)
        assert (delta.text_delta, delta.finish_reason, delta.model) == ("hi", "stop", "m-1")
        (record,) = stage.records
        assert (record.model, record.finish_reason, record.chunks) == ("m-1", "stop", 1)
        assert record.usage.total_tokens == 5
        assert end_to_end(record.timeline) == 2
        # Nobody saw when its first token was made: an unknown, not the whole time.
        assert time_to_first_token(record.timeline) is None

    play(main)


@pytest.mark.parametrize(
    ("row", "limits", "settings", "stream"),
    [
        pytest.param(PLAIN, TimeLimits(), {}, True, id="the caller wants pieces"),
        pytest.param(
            Provider(name="deaf", asked_whole=False), TimeLimits(), {}, False, id="the row says so"
        ),
        pytest.param(
            PLAIN, TimeLimits(first_byte_s=5), {}, False, id="a beginning is wanted sooner"
        ),
        pytest.param(PLAIN, TimeLimits(), {"first_token_s": 5.0}, False, id="so is a first token"),
        pytest.param(PLAIN, TimeLimits(), {"total_s": None}, False, id="nothing bounds the whole"),
    ],
)
def test_a_stream_is_asked_for_where_something_hangs_on_the_pieces(row, limits, settings, stream):
    async def main():
        stage = Stage()
        lane = stage.lane([answer("hi")], row=row, limits=limits, **settings)
        assert await stage.text(lane, stream=stream) == "hi"
        assert asked_to_stream(stage)

    play(main)


def test_a_lane_may_say_itself_how_long_a_whole_answer_may_take():
    """Which then needs no total, and goes before a wait for a first byte that is meant for streams."""

    async def main():
        stage = Stage()
        limits = TimeLimits(first_byte_s=1)
        settings = {"row": PLAIN, "limits": limits, "total_s": None}
        lane = stage.lane([whole({"content": "hi"})], whole_s=60, **settings)
        assert await stage.text(lane, stream=False) == "hi"
        assert not asked_to_stream(stage)
        lane = stage.lane([whole({"content": "hi"})], whole_s=1.5, retry=None, **settings)
        with pytest.raises(LLMTimeoutError, match=r"first_byte_s of 1\.5 s"):
            await stage.text(lane, stream=False)

    play(main)


def test_calls_refusals_and_reasoning_come_out_of_a_whole_answer():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    other = {"id": "d", "type": "function", "function": {"name": "g", "arguments": '{"a":1}'}}

    async def main():
        stage = Stage()
        for calls in ([call], [call, other]):
            message = {"content": None, "tool_calls": calls, "reasoning_content": "so"}
            lane = stage.lane([whole(message, "tool_calls")], row=PLAIN)
            deltas = await stage.deltas(lane, stream=False)
            pieces = [d.tool_call_delta for d in deltas if d.tool_call_delta is not None]
            assert [piece.name for piece in pieces] == ["f", "g"][: len(calls)]
            assert "".join(d.reasoning_delta or "" for d in deltas) == "so"
            assert [d.finish_reason for d in deltas if d.finish_reason] == ["tool_calls"]
        lane = stage.lane([whole({"content": None, "refusal": "no"})], row=PLAIN)
        (delta,) = await stage.deltas(lane, stream=False)
        assert (delta.refusal_delta, delta.finish_reason) == ("no", "stop")

    play(main)


@pytest.mark.parametrize(
    "name", sorted(name for name, row in providers().items() if row.chat_path is not None)
)
def test_every_row_is_asked_whole_unless_it_works_on_for_callers_who_left(name):
    row = evolve(providers()[name], base_url="http://scripted/v1")
    if row.format != "openai":
        pytest.skip("the script here speaks OpenAI's format; the codec's own tests have the rest")

    async def main():
        stage = Stage()
        script = whole({"content": "hi"}) if row.asked_whole else answer("hi")
        lane = stage.lane([script], row=row)
        assert await stage.text(lane, stream=False, marks=Marks()) == "hi"
        assert asked_to_stream(stage) is not row.asked_whole

    play(main)


def test_a_cancelled_wait_for_a_whole_answer_closes_the_connection():
    async def main():
        stage = Stage(auto=False)
        lane = stage.lane([ScriptedAnswer(fault="hang")], row=PLAIN)
        call = asyncio.ensure_future(stage.text(lane, stream=False, request=ASK))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert stage.records[-1].error_kind == "LLMCancelledError"
        assert lane.admission.running == 0

    play(main)
