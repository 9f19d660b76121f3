"""Streams as servers really send them, each with its own habits."""

import json

import pytest

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.contracts.messages import ToolCall
from headrace.contracts.responses import LLMDelta, Usage
from headrace.wire import openai_chat, openai_completions
from headrace.wire.assemble import assemble

DONE = b"data: [DONE]\n\n"


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta, finish_reason=None, index=0, **fields):
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "id", "model": "m", "choices": [choice], **fields})


def call(index=None, call_id=None, name=None, arguments=None):
    wire = {"function": {}}
    if index is not None:
        wire["index"] = index
    if call_id is not None:
        wire["id"] = call_id
    if name is not None:
        wire["function"]["name"] = name
    if arguments is not None:
        wire["function"]["arguments"] = arguments
    return wire


def calls(*pieces, finish_reason=None):
    return chunk({"tool_calls": list(pieces)}, finish_reason)


def read(*pieces):
    reader = openai_chat.stream_reader()
    found = [delta for piece in pieces for delta in reader.feed(piece)]
    return found + reader.close()


TWO_CALLS = (
    ToolCall(name="f", arguments_json='{"a":1}', call_id="c1"),
    ToolCall(name="g", arguments_json='{"b":2}', call_id="c2"),
)
END = chunk({}, "tool_calls") + DONE


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                calls(call(0, "c1", "f", "")),
                calls(call(0, arguments='{"a"')),
                calls(call(0, arguments=":1}")),
                calls(call(1, "c2", "g", '{"b":2}')),
            ],
            id="as OpenAI does",
        ),
        pytest.param(
            [
                calls(call(1, "c1", "f"), call(2, "c2", "g")),
                calls(call(1, arguments='{"a":1}')),
                calls(call(2, arguments='{"b":2}')),
            ],
            id="indexes from one",
        ),
        pytest.param(
            [
                calls(call(0, "c1", "f", '{"a"'), call(1, "c2", "g", '{"b"')),
                calls(call(1, arguments=":2}"), call(0, arguments=":1}")),
            ],
            id="interleaved",
        ),
        pytest.param(
            [
                calls(call(None, "c1", "f", '{"a"')),
                calls(call(None, arguments=":1}")),
                calls(call(None, "c2", "g", '{"b"')),
                calls(call(None, arguments=":2}")),
            ],
            id="no indexes",
        ),
        pytest.param(
            [
                calls(call(None, "c1", "f")),
                calls(call(None, "c2", "g")),
                calls(call(None, "c1", arguments='{"a":1}')),
                calls(call(None, "c2", arguments='{"b":2}')),
            ],
            id="ids in place of indexes",
        ),
        pytest.param(
            [calls(call(0, "c1", "f", '{"a":1}')), calls(call(0, "c2", "g", '{"b":2}'))],
            id="whole calls, all with index 0",
        ),
        pytest.param(
            [
                calls(call(0, "c1", "f", '{"a"'), call(0, "c2", "g", '{"b"')),
                calls(call(0, "c1", "f", ":1}"), call(0, "c2", "g", ":2}")),
            ],
            id="index 0 for all, told apart by id",
        ),
        pytest.param(
            [
                calls(call(0, "c1", "f", '{"a"')),
                calls(call(0, "c1", "f", ":1}")),
                calls(call(1, "c2", "g", '{"b"')),
                calls(call(1, "c2", "g", ":2}")),
            ],
            id="id and name with every piece",
        ),
        pytest.param(
            [
                calls(call(0, "c1", "f", '{"a"')),
                calls(call(0, "other", None, ":1}")),
                calls(call(1, "c2", "g", '{"b":2}')),
            ],
            id="a new id with a piece that names nothing",
        ),
        pytest.param(
            [calls(call(0, "c1", "f", {"a": 1}), call(1, "c2", "g", {"b": 2}))],
            id="arguments as an object",
        ),
    ],
)
def test_tool_calls_are_told_apart_whatever_the_server_does_about_indexes(pieces):
    deltas = read(*pieces, END)
    assert assemble(deltas).tool_calls == TWO_CALLS
    indexes = [d.tool_call_delta.index for d in deltas if d.tool_call_delta]
    assert set(indexes) == {0, 1}


def test_calls_without_ids_get_ids_that_differ():
    deltas = read(calls(call(0, name="f", arguments="{}")), calls(call(1, name="g")), END)
    first, second = assemble(deltas).tool_calls
    assert first.call_id
    assert second.call_id
    assert first.call_id != second.call_id


def test_text_calls_and_the_reason_in_one_chunk_come_in_this_order():
    wire = {"content": "Hm", "tool_calls": [call(0, "c1", "f", "{}")]}
    text, piece = read(chunk(wire, "tool_calls"), DONE)
    assert (text.text_delta, text.finish_reason) == ("Hm", None)
    assert (piece.tool_call_delta.name, piece.finish_reason) == ("f", "tool_calls")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_under_either_name(name):
    response = assemble(read(chunk({name: "hm"}), chunk({"content": "x"}, "stop"), DONE))
    assert (response.reasoning, response.text) == ("hm", "x")


def test_content_in_parts_is_read_as_text_and_reasoning():
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    wire = {"content": [thinking, {"type": "text", "text": "x"}]}
    response = assemble(read(chunk(wire, "stop"), DONE))
    assert (response.reasoning, response.text) == ("hm", "x")


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
READ_USAGE = Usage(
    prompt_tokens=10,
    completion_tokens=7,
    total_tokens=17,
    input_uncached_tokens=6,
    input_cache_read_tokens=4,
    output_text_tokens=2,
    output_reasoning_tokens=5,
)


@pytest.mark.parametrize(
    "end",
    [
        chunk({}, "stop") + event({"id": "id", "choices": [], "usage": USAGE}) + DONE,
        chunk({}, "stop", usage=USAGE) + DONE,
        chunk({}, "stop", usage=USAGE),
        event({"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]}) + DONE,
        chunk({}, "stop") + chunk({"role": "assistant", "content": ""}, usage=USAGE),
    ],
    ids=["own chunk", "last choice's chunk", "no [DONE]", "inside the choice", "after the reason"],
)
def test_usage_is_found_wherever_it_comes(end):
    response = assemble(read(chunk({"content": "x"}, usage=None), end))
    assert response.usage == READ_USAGE
    assert (response.text, response.finish_reason) == ("x", "stop")


def test_an_unknown_part_of_usage_stays_unknown():
    bare = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    response = assemble(read(chunk({}, "stop", usage=bare)))
    assert response.usage == Usage(prompt_tokens=10, completion_tokens=7, total_tokens=17)


def test_counts_that_contradict_one_another_leave_the_rest_unknown():
    odd = {**USAGE, "prompt_tokens": 3, "completion_tokens": 4}
    usage = assemble(read(chunk({}, "stop", usage=odd))).usage
    assert (usage.input_cache_read_tokens, usage.input_uncached_tokens) == (4, None)
    assert (usage.output_reasoning_tokens, usage.output_text_tokens) == (5, None)


def test_deepseeks_name_for_cached_tokens_is_known():
    usage = {"prompt_tokens": 10, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}
    read_usage = assemble(read(chunk({}, "stop", usage=usage))).usage
    assert (read_usage.input_cache_read_tokens, read_usage.input_uncached_tokens) == (4, 6)


def test_the_old_function_call_of_a_stream_is_a_tool_call():
    deltas = read(
        chunk({"function_call": {"name": "f", "arguments": "{"}}),
        chunk({"function_call": {"arguments": "}"}}),
        chunk({}, "function_call"),
    )
    (found,) = assemble(deltas).tool_calls
    assert (found.name, found.arguments_json) == ("f", "{}")


def test_choices_of_an_answer_are_put_in_order():
    choices = [
        {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"},
        {"index": 0, "message": {"content": "a"}, "finish_reason": "length"},
    ]
    response = openai_chat.read_response(json.dumps({"choices": choices}).encode())
    assert [choice.text for choice in response.choices] == ["a", "b"]
    assert (response.text, response.finish_reason) == ("a", "length")


@pytest.mark.parametrize(
    ("word", "normal"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("abort", "cancelled"),
        ("something new", "other"),
    ],
)
def test_a_finish_reason_is_normalised_and_kept_raw(word, normal):
    response = assemble(read(chunk({"content": "x"}, word)))
    assert (response.finish_reason, response.raw_finish_reason) == (normal, word)


def test_extras_and_progress_are_let_pass():
    progress = {"prompt_progress": {"total": 5, "processed": 3}, "timings": {"x": 1.5}}
    pieces = chunk({"role": "assistant", "content": None}, **progress), chunk({"content": "x"})
    (delta, _) = read(*pieces, chunk({}, "stop"), DONE)
    assert delta == LLMDelta(text_delta="x", model="m", response_id="id")


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, LLMRateLimitError),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, LLMOverloadedError),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, LLMInvalidRequestError),
        ({"error": {"message": "x", "type": "server_error", "code": 504}}, LLMTimeoutError),
        ({"error": {"message": "x", "type": "exceed_context_size_error"}}, LLMContextLengthError),
        ({"error": "it broke"}, LLMProviderError),
        ({"error": {}, "object": "error", "message": "vLLM", "code": 400}, LLMInvalidRequestError),
    ],
)
def test_an_error_inside_a_stream_is_raised_as_what_it_is(wire, expected):
    reader = openai_chat.stream_reader()
    reader.feed(chunk({"content": "x"}))
    with pytest.raises(expected) as caught:
        reader.feed(event(wire))
    assert type(caught.value) is expected
    assert reader.done
    with pytest.raises(expected):
        reader.close()


def test_an_event_named_error_is_an_error_whatever_its_shape():
    reader = openai_chat.stream_reader()
    with pytest.raises(LLMProviderError, match="it broke"):
        reader.feed(b'event: error\ndata: {"message": "it broke"}\n\n')


def test_what_came_before_an_error_in_the_same_bytes_is_given_first():
    reader = openai_chat.stream_reader()
    broken = event({"error": {"message": "it broke"}})
    deltas = reader.feed(chunk({"content": "x"}) + broken)
    assert [delta.text_delta for delta in deltas] == ["x"]
    assert reader.done
    with pytest.raises(LLMProviderError, match="it broke"):
        reader.feed(b"")


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"data: {\n\n"],
        [b"data: [1]\n\n"],
        [b"data: \xff\n\n"],
        [b"data: " + b"[" * 20_000 + b"\n\n"],
        [event({"choices": "none"})],
        [event({"choices": [{"delta": {"content": 5}}]})],
        [chunk({"content": "x"})],
        [chunk({"content": "x"}), chunk({}, "stop", index=1)],
        [chunk({"content": "x"}), chunk({}, "stop")[:-9]],
        [DONE],
    ],
    ids=lambda pieces: str(pieces)[:50],
)
def test_a_stream_that_is_broken_or_cut_short_is_a_bad_response(pieces):
    with pytest.raises(LLMBadResponseError):
        read(*pieces)


def test_nothing_after_done_is_read():
    deltas = read(chunk({"content": "x"}) + DONE + chunk({"content": "y"}), b"data: {\n\n")
    assert assemble(deltas).text == "x"


@pytest.mark.parametrize("codec", [openai_chat, openai_completions])
@pytest.mark.parametrize(
    "error", [LLMOverloadedError("busy"), LLMTimeoutError("30 s"), LLMBadResponseError("cut")]
)
def test_a_stream_that_breaks_off_says_so_and_never_says_done(codec, error):
    writer = codec.stream_writer(response_id="id", model="m", created=1, include_usage=True)
    written = writer.write(LLMDelta(text_delta="x")) + writer.error(error)
    assert b"[DONE]" not in written
    reader = codec.stream_reader()
    assert assemble(reader.feed(written)).text == "x"
    with pytest.raises(LLMError) as caught:
        reader.close()
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": "x"}]}',
        b"[" * 20_000,
    ],
)
def test_an_answer_of_another_shape_is_a_bad_response(body):
    with pytest.raises(LLMBadResponseError):
        openai_chat.read_response(body)


def test_an_error_in_an_answer_with_status_200_is_raised():
    with pytest.raises(LLMRateLimitError):
        openai_chat.read_response(b'{"error": {"message": "x", "code": 429}}')


def test_the_payload_is_kept_when_asked_for():
    body = b'{"choices": [{"message": {"content": "x"}}], "timings": {"a": 1}}'
    assert openai_chat.read_response(body).raw is None
    assert openai_chat.read_response(body, keep_raw=True).raw["timings"] == {"a": 1}
