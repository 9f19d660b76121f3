"""Anthropic's messages on their way through: nothing changes but what has to."""

import json

import pytest

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.wire.anthropic_passing import Stream, Whole, read_passing, write_passing
from headrace.wire.openai_params import COMMON

FULL = {
    "model": "claude",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "7"}],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "stop_sequences": ["END"],
    "stream": True,
}


def test_turns_tools_and_thinking_go_on_as_they_came():
    request = read_passing(json.dumps(FULL).encode())
    sent = json.loads(write_passing(request, "theirs", COMMON, include_usage=False))
    assert sent == {**FULL, "model": "theirs"}


def test_null_is_the_same_as_absent():
    request = read_passing(json.dumps({**FULL, "system": None, "stream": None}).encode())
    sent = json.loads(write_passing(request, "theirs", COMMON, include_usage=False))
    assert "system" not in sent
    assert "stream" not in sent


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": None},
        {"messages": []},
        {"temperature": 2},
        {"unheard_of": 1},
        {"stream": "yes"},
    ],
)
def test_whatever_is_not_of_the_usual_kind_is_left_to_the_codec(change):
    assert read_passing(json.dumps({**FULL, **change}).encode()) is None


def test_what_is_no_utf8_is_left_to_the_codec():
    assert read_passing(json.dumps(FULL).encode().replace(b"hi", b"\xff")) is None


def event(name, **value):
    return b"event: %b\ndata: %b\n\n" % (
        name.encode(),
        json.dumps({"type": name, **value}).encode(),
    )


START = event(
    "message_start", message={"model": "claude-1", "usage": {"input_tokens": 5, "output_tokens": 1}}
)
TEXT = event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + event(
    "content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"}
)
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
STOP = event("message_stop")
WHOLE = START + event("ping") + TEXT + event("content_block_stop", index=0) + END + STOP


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_a_stream_passes_byte_for_byte_wherever_it_is_cut(ends):
    whole = WHOLE.replace(b"\n", ends)
    for at in range(1, len(whole)):
        stream = Stream(hides_usage=False)
        out = stream.feed(whole[:at]) + stream.feed(whole[at:])
        assert out + stream.close() == whole
        assert (stream.model, stream.finish_reason, stream.chunks) == ("claude-1", "stop", 1)
        assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (5, 4)
        assert stream.done or ends == b"\r"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [START, TEXT],
        [START, TEXT, event("error", error={"type": "overloaded_error", "message": "busy"})],
        [START, TEXT, b"event: content_block_delta\ndata: {broken\n\n"],
    ],
)
def test_what_breaks_off_is_an_error(pieces):
    stream = Stream(hides_usage=False)
    out = b"".join(map(stream.feed, pieces))
    assert out == b"".join(pieces[:2])
    with pytest.raises(LLMError):
        stream.close()


def test_a_whole_message_is_read_for_the_record():
    answer = Whole()
    message = {
        "type": "message",
        "model": "claude-1",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 7},
    }
    assert answer.read_whole(json.dumps(message).encode())
    assert (answer.model, answer.finish_reason) == ("claude-1", "length")
    assert (answer.usage.prompt_tokens, answer.usage.input_cache_read_tokens) == (10, 7)


def test_what_is_no_message_is_an_error():
    with pytest.raises(LLMBadResponseError):
        Whole().read_whole(b"<html>")
    with pytest.raises(LLMError):
        Whole().read_whole(b'{"type": "error", "error": {"type": "api_error", "message": "x"}}')
