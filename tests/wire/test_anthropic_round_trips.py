"""Both ends of Anthropic's format joined in memory: what one writes, the other reads."""

import json

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMError, LLMRateLimitError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, ToolCallDelta, Usage
from headrace.wire import anthropic
from headrace.wire.assemble import assemble, deltas

from .anthropic_strategies import answers, messages_requests, streams
from .strategies import choppings

modest = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def written(sent, response_id="id", model="m"):
    writer = anthropic.stream_writer(response_id=response_id, model=model, created=1)
    return b"".join(writer.write(delta) for delta in sent) + writer.finish()


def read(*pieces):
    reader = anthropic.stream_reader()
    found = [delta for piece in pieces for delta in reader.feed(piece)]
    found += reader.close()
    assert reader.done
    return found


def events(data):
    """Name and value of each event."""
    blocks = [block.split(b"\n") for block in data.split(b"\n\n") if block]
    return [
        (name.removeprefix(b"event: ").decode(), json.loads(said.removeprefix(b"data: ")))
        for name, said in blocks
    ]


@given(request=messages_requests(), stream=st.booleans())
@modest
def test_a_request_arrives_as_it_was_sent(request, stream):
    inbound = anthropic.read_request(anthropic.write_request(request, stream=stream))
    assert inbound.request == request
    assert inbound.stream == stream
    assert inbound.dropped == ()


@given(request=messages_requests())
@modest
def test_a_count_is_asked_for_the_same_conversation(request):
    asked = anthropic.read_count_request(anthropic.write_count_request(request)).request
    assert asked.messages == request.messages
    assert asked.tools == request.tools
    assert asked.tool_choice == request.tool_choice
    assert asked.max_tokens is None


@given(response=answers())
@modest
def test_an_answer_arrives_as_it_was_sent(response):
    assert anthropic.read_response(anthropic.write_response(response)) == response


@given(sent=streams(), pings=st.booleans(), returns=st.booleans(), data=st.data())
@modest
def test_a_stream_survives_any_chopping(sent, pings, returns, data):
    said = written(sent)
    if pings:
        said = said.replace(b"event: content", anthropic.PING + b"event: content")
    if returns:
        said = said.replace(b"\n", b"\r\n")
    received = read(*data.draw(choppings(said)))
    assert assemble(received) == assemble(sent)
    assert [d.text_delta for d in received if d.text_delta] == [
        d.text_delta for d in sent if d.text_delta
    ]


@given(response=answers(), data=st.data())
@modest
def test_a_whole_answer_sent_as_a_stream_says_the_same(response, data):
    sent = deltas(response)
    assert assemble(sent) == response
    said = written(sent, response.response_id, response.model)
    assert assemble(read(*data.draw(choppings(said)))) == response


@given(sent=streams())
@modest
def test_blocks_follow_one_another_each_begun_and_ended(sent):
    said = events(written(sent))
    assert all(name == value["type"] for name, value in said)
    assert [name for name, _ in said[-2:]] == ["message_delta", "message_stop"]
    assert [name for name, _ in said].count("message_start") == 1
    assert said[0][0] == "message_start"
    open_index, begun = None, 0
    for name, value in said[1:-2]:
        if name == "content_block_start":
            assert open_index is None
            assert value["index"] == begun
            open_index, begun = begun, begun + 1
        else:
            assert value["index"] == open_index
            if name == "content_block_stop":
                open_index = None
    assert open_index is None


def test_usage_before_the_first_piece_stands_in_the_beginning():
    known = Usage(prompt_tokens=9, input_cache_read_tokens=4, input_uncached_tokens=5)
    said = events(written([LLMDelta(usage_delta=known), LLMDelta(text_delta="a")]))
    usage = said[0][1]["message"]["usage"]
    assert usage == {"input_tokens": 5, "output_tokens": 0, "cache_read_input_tokens": 4}


def test_counts_of_later_events_replace_those_of_the_beginning():
    start = {
        "type": "message_start",
        "message": {"id": "i", "model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}},
    }
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 12, "cache_read_input_tokens": 3},
    }
    stop = {"type": "message_stop"}
    said = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (start, end, stop))
    usage = assemble(read(said)).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 12, 22)
    assert (usage.input_uncached_tokens, usage.input_cache_read_tokens) == (7, 3)


def test_a_call_without_arguments_has_an_empty_object():
    block = {"type": "tool_use", "id": "t", "name": "now", "input": {}}
    said = [
        {"type": "message_start", "message": {"id": "i", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": ""},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in said)
    (call,) = assemble(read(stream)).tool_calls
    assert (call.name, call.arguments_json, call.call_id) == ("now", "{}", "t")


def test_an_error_ends_a_stream_with_its_kind_and_without_an_end():
    writer = anthropic.stream_writer(response_id="id", model="m", created=1)
    said = writer.write(LLMDelta(text_delta="a"))
    said += writer.error(LLMRateLimitError("slow down", request_id="req_1"))
    assert b"message_stop" not in said
    assert events(said)[-1] == (
        "error",
        {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "slow down"},
            "request_id": "req_1",
        },
    )
    reader = anthropic.stream_reader()
    assert [delta.text_delta for delta in reader.feed(said) if delta.text_delta] == ["a"]
    with pytest.raises(LLMRateLimitError, match="slow down"):
        reader.close()


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_stream_that_is_cut_is_an_error(cut):
    said = written([LLMDelta(text_delta="abc"), LLMDelta(finish_reason="stop")])
    end = said.index(b"event: message_delta")
    reader = anthropic.stream_reader()
    reader.feed(said[: int(end * cut)])
    with pytest.raises(LLMError, match=r"cut short|before it said"):
        reader.close()


def test_a_refusal_is_told_as_text_with_its_reason():
    response = LLMResponse(text="", refusal="No.", finish_reason="content_filter")
    body = json.loads(anthropic.write_response(response))
    assert body["content"] == [{"type": "text", "text": "No."}]
    assert body["stop_reason"] == "refusal"


def test_arguments_that_were_cut_are_wrapped_as_anthropic_says():
    call = ToolCallDelta(call_id="c", name="f", arguments_json_delta='{"a": 1, "b', index=0)
    response = assemble([LLMDelta(tool_call_delta=call), LLMDelta(finish_reason="length")])
    (block,) = json.loads(anthropic.write_response(response))["content"]
    assert block["input"] == {"INVALID_JSON": '{"a": 1, "b'}


def test_unsigned_reasoning_is_told_to_a_caller_but_not_to_anthropic():
    response = LLMResponse(text="4", reasoning="2 + 2", finish_reason="stop")
    thought, said = json.loads(anthropic.write_response(response))["content"]
    assert thought == {"type": "thinking", "thinking": "2 + 2", "signature": ""}
    turn = {"role": "assistant", "content": [thought, said]}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "?"}, turn]}
    request = anthropic.read_request(json.dumps(body).encode()).request
    assert request.messages[1] == LLMMessage(role="assistant", content="4", reasoning="2 + 2")
    sent = json.loads(anthropic.write_request(request, stream=False))
    assert sent["messages"][1] == {"role": "assistant", "content": "4"}


def test_a_request_without_a_limit_gets_one_that_has_room_for_its_reasoning():
    plain = LLMRequest(messages=(LLMMessage(role="user", content="?"),), model="m")
    assert json.loads(anthropic.write_request(plain, stream=False))["max_tokens"] == 4096
    budget = {"thinking": {"type": "enabled", "budget_tokens": 10000}}
    deep = evolve(plain, provider_options=budget)
    assert json.loads(anthropic.write_request(deep, stream=False))["max_tokens"] == 14096
