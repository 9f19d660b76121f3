"""Both ends of Ollama's format joined in memory: what one writes, the other reads."""

import json

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMRateLimitError
from headrace.contracts.responses import EmbeddingResult, LLMDelta, ToolCallDelta, Usage
from headrace.wire import ndjson, ollama, ollama_embed, ollama_generate
from headrace.wire.assemble import assemble, deltas

from .ollama_strategies import (
    answers,
    chat_requests,
    embedding_requests,
    prompt_requests,
    streams,
)
from .strategies import choppings

modest = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
codecs = pytest.mark.parametrize("codec", [ollama, ollama_generate])


def written(sent, codec=ollama, durations=None):
    writer = codec.stream_writer(response_id="", model="m", created=1)
    return b"".join(writer.write(delta) for delta in sent) + writer.finish(durations)


def read(*pieces, codec=ollama):
    reader = codec.stream_reader()
    found = [delta for piece in pieces for delta in reader.feed(piece)]
    found += reader.close()
    assert reader.done
    return found


def lines(data):
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


@given(request=chat_requests(), stream=st.booleans())
@modest
def test_a_request_arrives_as_it_was_sent(request, stream):
    inbound = ollama.read_request(ollama.write_request(request, stream=stream))
    assert inbound.request == request
    assert inbound.stream == stream
    assert inbound.dropped == ()


@given(request=prompt_requests(), stream=st.booleans())
@modest
def test_a_prompt_arrives_as_it_was_sent(request, stream):
    inbound = ollama_generate.read_request(ollama_generate.write_request(request, stream=stream))
    assert inbound.request == request
    assert inbound.stream == stream
    assert inbound.dropped == ()


@given(request=embedding_requests)
@modest
def test_a_request_for_embeddings_arrives_as_it_was_sent(request):
    assert ollama_embed.read_request(ollama_embed.write_request(request)).request == request


@given(response=answers())
@modest
def test_an_answer_arrives_as_it_was_sent(response):
    assert ollama.read_response(ollama.write_response(response)) == response


@given(response=answers(chat=False))
@modest
def test_a_generated_text_arrives_as_it_was_sent(response):
    assert ollama_generate.read_response(ollama_generate.write_response(response)) == response


@given(sent=streams(), returns=st.booleans(), data=st.data())
@modest
def test_a_stream_survives_any_chopping(sent, returns, data):
    said = written(sent)
    if returns:
        said = said.replace(b"\n", b"\r\n") + b"\r\n"
    received = read(*data.draw(choppings(said)))
    assert assemble(received) == assemble(sent)
    assert [d.text_delta for d in received if d.text_delta] == [
        d.text_delta for d in sent if d.text_delta
    ]


@codecs
@given(data=st.data())
@modest
def test_a_whole_answer_sent_as_a_stream_says_the_same(codec, data):
    response = data.draw(answers(chat=codec is ollama))
    said = written(deltas(response), codec)
    got = assemble(read(*data.draw(choppings(said)), codec=codec))
    assert evolve(got, model=response.model) == evolve(response, created=None)


def test_each_line_says_when_it_was_made():
    times = iter([1_700_000_000.0, 1_700_000_000.25, 1_700_000_001.5])
    writer = ollama.stream_writer(
        response_id="", model="m", created=1, now=lambda: next(times, 0.0)
    )
    said = writer.write(LLMDelta(text_delta="a")) + writer.write(LLMDelta(text_delta="b"))
    assert [line["created_at"] for line in lines(said + writer.finish())] == [
        "2023-11-14T22:13:20.000000Z",
        "2023-11-14T22:13:20.250000Z",
        "2023-11-14T22:13:21.500000Z",
    ]


def test_a_call_goes_as_one_line_with_its_arguments_as_an_object():
    first = ToolCallDelta(call_id="c", name="look", arguments_json_delta='{"city":', index=0)
    rest = ToolCallDelta(arguments_json_delta='"Zürich"}', index=0)
    sent = [LLMDelta(tool_call_delta=first), LLMDelta(tool_call_delta=rest)]
    call, end = lines(written([*sent, LLMDelta(finish_reason="tool_calls")]))
    (said,) = call["message"]["tool_calls"]
    assert said == {
        "id": "c",
        "function": {"index": 0, "name": "look", "arguments": {"city": "Zürich"}},
    }
    assert (end["done"], end["done_reason"]) == (True, "stop")


def test_calls_without_ids_get_some_that_are_no_other_turns():
    def said(when):
        call = {"function": {"name": "look", "arguments": {}}}
        message = {"role": "assistant", "content": "", "tool_calls": [call, call]}
        body = {"model": "m", "created_at": when, "message": message, "done": True}
        return ollama.read_response(json.dumps(body).encode())

    first, second = said("2025-10-17T23:14:07.414671Z"), said("2025-10-17T23:14:09.1Z")
    ids = [call.call_id for answer in (first, second) for call in answer.tool_calls]
    assert len(set(ids)) == 4
    assert first.finish_reason == "tool_calls"


def test_what_is_unknown_of_an_answer_is_left_out_and_what_is_measured_is_told():
    (end,) = lines(written([LLMDelta(finish_reason="stop")]))
    assert not {"total_duration", "eval_count", "prompt_eval_count"} & end.keys()
    usage = Usage(prompt_tokens=3, completion_tokens=0)
    sent = [LLMDelta(usage_delta=usage, finish_reason="length")]
    (end,) = lines(written(sent, durations={"total_duration": 5}))
    assert (end["prompt_eval_count"], end["eval_count"], end["total_duration"]) == (3, 0, 5)
    assert "load_duration" not in end
    assert end["done_reason"] == "length"


def test_an_error_ends_a_stream_in_its_own_words():
    writer = ollama.stream_writer(response_id="", model="m", created=1)
    said = writer.write(LLMDelta(text_delta="a")) + writer.error(LLMRateLimitError("slow down"))
    assert lines(said)[-1] == {"error": "slow down"}
    reader = ollama.stream_reader()
    assert [delta.text_delta for delta in reader.feed(said)] == ["a"]
    with pytest.raises(LLMError, match="slow down"):
        reader.close()


@codecs
@given(cut=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_a_stream_that_is_cut_short_is_no_answer(codec, cut):
    said = written([LLMDelta(text_delta="a"), LLMDelta(finish_reason="stop")], codec)
    whole = len(said) - 1  # the last line feed is no part of what is said
    with pytest.raises(LLMBadResponseError):
        read(said[: whole - 1 - cut], codec=codec)


def test_the_last_line_needs_no_line_feed():
    said = written([LLMDelta(text_delta="a"), LLMDelta(finish_reason="stop")])
    assert assemble(read(said.rstrip(b"\n"))).text == "a"


def test_a_line_is_bounded_however_it_comes():
    for pieces in ([b"x" * 11], [b"x" * 6, b"x" * 6], [b"a\n" + b"x" * 11 + b"\n"]):
        reader = ndjson.Reader(max_line_bytes=10)
        *before, last = pieces
        for piece in before:
            reader.feed(piece)
        with pytest.raises(LLMBadResponseError, match="larger than 10 bytes"):
            reader.feed(last)
    reader = ndjson.Reader(max_line_bytes=10)
    assert reader.feed(b"x" * 10 + b"\n" + b"y" * 10 + b"\n\n z") == [b"x" * 10, b"y" * 10]
    assert reader.close() == [b"z"]
    assert reader.close() == []


def test_vectors_arrive_in_their_order():
    result = EmbeddingResult(
        vectors=[[0.5, -1.25], [1e-9, 3.0]],
        model_id="m",
        usage=Usage(prompt_tokens=4, total_tokens=4),
    )
    got = ollama_embed.read_response(ollama_embed.write_response(result, total_duration=7))
    assert [list(vector) for vector in got.vectors] == [[0.5, -1.25], [1e-9, 3.0]]
    assert (got.model_id, got.usage) == ("m", result.usage)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"embeddings": []}',
        b'{"embeddings": [[]]}',
        b'{"embeddings": [[1.0], [1.0, 2.0]]}',
        b'{"embeddings": [["a"]]}',
        b'{"error": "out of memory"}',
    ],
)
def test_an_answer_without_vectors_is_none(body):
    with pytest.raises(LLMError):
        ollama_embed.read_response(body)
