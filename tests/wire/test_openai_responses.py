"""The Responses API: both ends joined in memory, and the specification's own models as judge."""

from __future__ import annotations

import json

import openresponses_types as spec
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMRateLimitError,
)
from headrace.contracts.messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, LLMResponse, ToolCallDelta, Usage
from headrace.wire import openai_params
from headrace.wire import openai_responses as codec
from headrace.wire.assemble import assemble, deltas

from .spec_events import check_events, check_response
from .strategies import chat_requests, choppings, responses, streams

modest = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def as_carried(message: LLMMessage) -> LLMMessage:
    """``message`` without what the table of losses lists, one part of text being a text."""
    content = message.content
    if message.role == "assistant" and not isinstance(content, str) and len(content) == 1:
        content = content[0].text  # type: ignore[union-attr]
    return evolve(message, content=content, name=None, tool_name=None)


def turns_apart(messages) -> list[LLMMessage]:
    """``messages`` without a turn that says nothing before another one of the assistant's."""
    kept: list[LLMMessage] = []
    for message in messages:
        nothing = LLMMessage(role="assistant", content="")
        if kept and message.role == "assistant" and as_carried(kept[-1]) == nothing:
            kept.pop()
        kept.append(message)
    return kept


@given(request=chat_requests(), stream=st.booleans())
@modest
def test_a_request_arrives_as_it_was_sent(request, stream):
    request = evolve(
        request,
        n=None,
        messages=tuple(as_carried(m) for m in turns_apart(request.messages)),
        logprobs=request.logprobs or None,
        top_logprobs=request.top_logprobs if request.logprobs else None,
    )
    inbound = codec.read_request(codec.write_request(request, stream=stream))
    assert inbound.request == request
    assert inbound.stream == stream
    assert inbound.store is False


def said(response: LLMResponse) -> LLMResponse:
    """``response`` as far as this format carries it."""
    reason = response.finish_reason
    raw = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(
        str(reason), "completed"
    )
    if raw == "completed":
        reason = "tool_calls" if response.tool_calls else "stop"
    usage = response.usage
    if isinstance(usage, Usage):
        read, wrote = usage.input_cache_read_tokens or None, usage.input_cache_write_tokens or None
        thought = usage.output_reasoning_tokens or None
        # 0 may also be what nobody counted.
        usage = evolve(
            usage,
            input_cache_read_tokens=read,
            input_cache_write_tokens=wrote,
            input_uncached_tokens=usage.prompt_tokens - (read or 0) - (wrote or 0)
            if read or wrote
            else None,
            output_reasoning_tokens=thought,
            output_text_tokens=usage.completion_tokens - thought if thought else None,
        )
    logprobs = None
    if response.logprobs and (response.text or response.refusal is None):
        logprobs = tuple(with_bytes(each) for each in response.logprobs)
    return evolve(
        response,
        choices=(),
        finish_reason=reason,
        raw_finish_reason=raw,
        usage=usage,
        logprobs=logprobs,
    )


def with_bytes(token):
    raw = token.token.encode() if token.token_bytes is None else token.token_bytes
    if not hasattr(token, "top"):
        return evolve(token, token_bytes=raw)
    return evolve(token, token_bytes=raw, top=tuple(with_bytes(top) for top in token.top))


@given(response=responses())
@modest
def test_an_answer_arrives_as_it_was_sent_and_meets_the_specification(response):
    body = codec.write_response(response)
    check_response(json.loads(body))
    assert codec.read_response(body) == said(response)


def written(sent, **asked):
    writer = codec.stream_writer(response_id="resp_1", model="m", created=1, **asked)
    return b"".join(writer.write(delta) for delta in sent) + writer.finish()


@given(sent=streams(), injected=st.booleans(), returns=st.booleans(), data=st.data())
@modest
def test_a_stream_survives_any_chopping_and_meets_the_specification(sent, injected, returns, data):
    sent = [delta for delta in sent if delta.index == 0]
    whole = written(sent)
    last = check_events(whole)[-1]
    if injected:
        whole = whole.replace(b"event: ", b": still here\n\nevent: ")
    if returns:
        whole = whole.replace(b"\n", b"\r\n")
    reader = codec.stream_reader()
    received = [d for piece in data.draw(choppings(whole)) for d in reader.feed(piece)]
    received += reader.close()
    assert reader.done
    expected = said(evolve(assemble(sent), response_id="resp_1"))
    assert assemble(received) == expected
    assert [d.text_delta for d in received if d.text_delta] == [
        d.text_delta for d in sent if d.text_delta
    ]
    # The last event holds the whole of what the others said.
    whole_answer = codec.read_response(json.dumps(last["response"]).encode())
    assert whole_answer == evolve(expected, created=1)


@given(response=responses())
@modest
def test_a_whole_answer_sent_as_a_stream_says_the_same(response):
    response = evolve(response, choices=())
    received = assemble(codec.stream_reader().feed(written(deltas(response))))
    expected = said(response)
    assert received == evolve(expected, created=None, response_id="resp_1", model="m")


def read(*items, **fields):
    return codec.read_request(json.dumps({"input": list(items), **fields}).encode())


def test_an_answers_items_are_one_turn_again():
    inbound = read(
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "snow"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "rain"}],
        },
    )
    calls = tuple(ToolCall(name="look", arguments_json="{}", call_id=f"c{i}") for i in (1, 2))
    assert inbound.request.messages == (
        LLMMessage(role="user", content="Weather?"),
        LLMMessage(role="assistant", content="Let me look.", reasoning="Hm.", tool_calls=calls),
        LLMMessage(role="tool", content="snow", tool_call_id="c1"),
        LLMMessage(role="tool", content=(TextPart(text="rain"),), tool_call_id="c2"),
    )


def test_instructions_are_the_first_turn_and_stay_behind():
    inbound = read({"role": "user", "content": "hi"}, instructions="Be brief.")
    history = [{"type": "message", "role": "user", "content": "before"}]
    messages = codec.with_history(inbound, history, {}).request.messages
    assert [(m.role, m.content) for m in messages] == [
        ("system", "Be brief."),
        ("user", "before"),
        ("user", "hi"),
    ]


def test_a_reference_is_replaced_by_what_it_refers_to():
    inbound = read({"role": "user", "content": "hi"}, {"id": "msg_1"})
    assert inbound.references == ("msg_1",)
    said = {"type": "message", "role": "assistant", "content": "hello"}
    whole = codec.with_history(inbound, (), {"msg_1": said})
    assert whole.references == ()
    assert [m.role for m in whole.request.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("part", "read_as"),
    [
        (
            {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
            ImagePart(url="https://x.test/a.png", detail="low"),
        ),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            ImagePart(data=b"\0\0\0", media_type="image/png"),
        ),
        (
            {"type": "input_file", "file_url": "https://x.test/a.pdf"},
            FilePart(url="https://x.test/a.pdf"),
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:a/b;base64,AAAA"},
            FilePart(data=b"\0\0\0", filename="a.pdf", media_type="a/b"),
        ),
        ({"type": "input_file", "file_id": "file_1"}, FilePart(file_id="file_1")),
    ],
)
def test_parts_are_read_and_written(part, read_as):
    inbound = read({"role": "user", "content": [part]})
    assert inbound.request.messages[0].content == (read_as,)
    again = codec.read_request(codec.write_request(inbound.request, stream=False))
    assert again.request.messages == inbound.request.messages


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "input_image", "image_url": "ftp://x"}], "input[0].content[0].image_url"),
        ([{"type": "input_image", "file_id": "f"}], "input[0].content[0].file_id"),
        ([{"type": "input_file"}], "input[0].content[0].file_data"),
        ([{"type": "input_file", "file_data": "%"}], "input[0].content[0].file_data"),
        ([{"type": "input_file", "file_url": "/etc/passwd"}], "input[0].content[0].file_url"),
        ([{"type": "output_text", "text": "x"}], "input[0].content[0].type"),
        ([{"type": "input_text"}], "input[0].content[0].text"),
        ([], "input[0].content"),
    ],
)
def test_a_wrong_part_is_refused_by_its_place(content, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read({"role": "user", "content": content})
    assert caught.value.param == param
    assert f"'{param}'" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "mcp"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "hosted"}}, "tool_choice.type"),
        ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"reasoning": {"colour": "red"}}, "reasoning.colour"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"truncation": "some"}, "truncation"),
        ({"context_management": []}, "context_management"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read({"role": "user", "content": "hi"}, **fields)
    assert caught.value.param == param


def test_a_choice_among_tools_that_are_not_there_is_refused():
    tool = {"type": "function", "name": "look"}
    for choice, param in (
        ({"type": "function", "name": "see"}, "tool_choice.name"),
        (
            {"type": "allowed_tools", "tools": [{"type": "function", "name": "see"}]},
            "tool_choice.tools[0].name",
        ),
    ):
        with pytest.raises(LLMInvalidRequestError) as caught:
            read({"role": "user", "content": "hi"}, tools=[tool], tool_choice=choice)
        assert caught.value.param == param


def test_allowed_tools_are_the_ones_that_are_left():
    tools = [{"type": "function", "name": name} for name in ("a", "b", "c")]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": tools[:2]}
    inbound = read({"role": "user", "content": "hi"}, tools=tools, tool_choice=allowed)
    assert [tool.name for tool in inbound.request.tools] == ["a", "b"]
    assert inbound.request.tool_choice == "required"
    assert inbound.asked["tool_choice"] == allowed
    assert [tool["name"] for tool in inbound.asked["tools"]] == ["a", "b", "c"]


SEALED = (
    ReasoningPart(text="Hm.", encrypted="gAAA", part_id="rs_a"),
    ReasoningPart(text="", encrypted="gBBB", part_id="rs_b"),
)


def test_sealed_reasoning_goes_back_to_whom_it_came_from():
    turn = LLMMessage(role="assistant", content="Yes.", reasoning="Hm.", reasoning_parts=SEALED)
    request = LLMRequest(messages=(turn, LLMMessage(role="user", content="Why?")), model="m")
    body = codec.write_request(request, stream=False, dialect=openai_params.OPENAI_RESPONSES)
    assert json.loads(body)["include"] == ["reasoning.encrypted_content"]
    assert codec.read_request(body).request == request


def test_reasoning_that_nobody_sealed_is_kept_from_openai():
    turn = LLMMessage(role="assistant", content="Yes.", reasoning="Hm.")
    request = LLMRequest(messages=(turn,))
    for dialect, kept in ((openai_params.OPENAI_RESPONSES, None), (openai_params.RESPONSES, "Hm.")):
        body = codec.write_request(request, stream=False, dialect=dialect)
        assert codec.read_request(body).request.messages[0].reasoning == kept


def test_another_providers_signature_comes_back_from_the_caller_but_goes_to_no_backend():
    parts = (ReasoningPart(text="Hm.", signature="seal", part_id="rs_1"),)
    answer = LLMResponse(text="Yes.", reasoning="Hm.", reasoning_parts=parts, response_id="resp_1")
    wire = json.loads(codec.write_response(answer, model="m"))
    check_response(wire)
    assert codec.read_response(json.dumps(wire).encode()).reasoning_parts == parts
    inbound = read(*wire["output"], {"role": "user", "content": "Why?"})
    assert inbound.request.messages[0].reasoning_parts == parts
    sent = codec.write_request(inbound.request, stream=False)
    assert b"seal" not in sent
    assert b"Hm." in sent


def test_a_stream_ends_each_thought_where_its_provider_did():
    sent = [
        LLMDelta(reasoning_delta="H"),
        LLMDelta(reasoning_delta="m."),
        LLMDelta(reasoning_part=SEALED[0]),
        LLMDelta(reasoning_part=SEALED[1]),
        LLMDelta(text_delta="Yes."),
        LLMDelta(finish_reason="stop"),
    ]
    whole = written(sent)
    events = check_events(whole)
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "reasoning", "message"]
    assert done[1]["id"] == "rs_b"
    received = codec.stream_reader().feed(whole)
    assert tuple(d.reasoning_part for d in received if d.reasoning_part) == SEALED
    assert assemble(received).reasoning == "Hm."


def test_calls_may_come_interleaved():
    def piece(index, said, **begin):
        return LLMDelta(
            tool_call_delta=ToolCallDelta(index=index, arguments_json_delta=said, **begin)
        )

    sent = [
        LLMDelta(text_delta="Let me look."),
        piece(0, '{"a"', call_id="c0", name="f"),
        piece(1, '{"b"', call_id="c1", name="g"),
        piece(0, ":1}"),
        piece(1, ":2}"),
        LLMDelta(finish_reason="tool_calls"),
    ]
    whole = written(sent)
    check_events(whole)
    assert assemble(codec.stream_reader().feed(whole)).tool_calls == (
        ToolCall(name="f", arguments_json='{"a":1}', call_id="c0"),
        ToolCall(name="g", arguments_json='{"b":2}', call_id="c1"),
    )


@pytest.mark.parametrize(
    "error",
    [
        LLMRateLimitError("slow down"),
        LLMContextLengthError("too long"),
        LLMBadResponseError("cut short"),
    ],
)
def test_a_stream_that_breaks_off_says_why_and_not_done(error):
    writer = codec.stream_writer(response_id="resp_1", model="m", created=1)
    whole = writer.write(LLMDelta(text_delta="so far")) + writer.error(error)
    assert b"[DONE]" not in whole
    *_, told, last = [
        json.loads(line[6:]) for line in whole.decode().split("\n") if line.startswith("data: ")
    ]
    spec.ErrorStreamingEvent.model_validate(told)
    spec.ResponseFailedStreamingEvent.model_validate(last)
    assert told["message"] == told["error"]["message"] == str(error)
    assert last["response"]["error"]["code"] == error.code
    reader = codec.stream_reader()
    assert assemble(reader.feed(whole)).text == "so far"
    with pytest.raises(type(error), match=str(error)):
        reader.close()


@pytest.mark.parametrize(
    "ending",
    [
        b"",
        b'event: response.output_text.done\ndata: {"type":"response.output_text.done",'
        b'"output_index":0,"content_index":0,"text":"Hi"}\n\n',
    ],
)
def test_a_stream_that_is_cut_short_is_an_error(ending):
    writer = codec.stream_writer(response_id="resp_1", model="m", created=1)
    reader = codec.stream_reader()
    reader.feed(writer.write(LLMDelta(text_delta="Hi")) + ending)
    with pytest.raises(LLMBadResponseError, match="cut short"):
        reader.close()


def test_a_failed_response_is_an_error_of_the_right_kind():
    failure = {"code": "rate_limit_exceeded", "message": "slow down"}
    wire = {"object": "response", "status": "failed", "error": failure, "output": []}
    with pytest.raises(LLMRateLimitError, match="slow down"):
        codec.read_response(json.dumps(wire).encode())
    event = {"type": "response.failed", "response": wire}
    reader = codec.stream_reader()
    with pytest.raises(LLMRateLimitError, match="slow down"):
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())


@given(data=st.data(), response=responses())
@modest
def test_a_broken_body_is_one_of_our_errors(data, response):
    body = bytearray(codec.write_response(response))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=3))
    for take in (
        lambda: codec.read_response(bytes(body)),
        lambda: codec.stream_reader().feed(b"data: " + bytes(body) + b"\n\n"),
    ):
        refused: LLMError | None = None
        try:
            take()
        except LLMError as error:
            refused = error
        assert refused is None or str(refused)


@given(
    item=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "role", "content", "text", "summary", "id", "call_id", "output"]
                ),
                inner
                | st.sampled_from(
                    ["message", "user", "assistant", "reasoning", "function_call_output"]
                ),
                max_size=5,
            )
        ),
        max_leaves=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_input_is_read_or_refused_by_name(item):
    refused: LLMInvalidRequestError | None = None
    try:
        codec.read_request(json.dumps({"input": item}).encode())
    except LLMInvalidRequestError as error:
        refused = error
    assert refused is None or (refused.param or "").startswith("input")


def test_other_servers_ways_of_streaming_are_read():
    """Text only at the end, thoughts under the other names, arguments without pieces."""
    message = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Yes."}]}
    call = {
        "type": "function_call",
        "id": "f",
        "call_id": "c",
        "name": "look",
        "arguments": "{}",
    }
    place = {"output_index": 0, "content_index": 0, "item_id": "r"}
    events = [
        {"type": "response.reasoning_text.delta", **place, "delta": "Hm"},
        {"type": "response.reasoning.delta", **place, "delta": "."},
        {"type": "response.reasoning_summary_text.delta", **place, "delta": "In sum: hm."},
        {"type": "response.web_search_call.searching", "output_index": 9},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.output_item.done", "output_index": 2, "item": call},
        {"type": "response.completed", "response": {"id": "r1", "status": "completed"}},
    ]
    reader = codec.stream_reader()
    said_so = assemble(
        reader.feed("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode())
    )
    assert (said_so.text, said_so.reasoning) == ("Yes.", "Hm.")
    assert said_so.tool_calls == (ToolCall(name="look", arguments_json="{}", call_id="c"),)
    assert said_so.finish_reason == "tool_calls"


def test_what_a_provider_tells_beyond_the_format_is_told():
    timings: dict[str, object] = {"timings": {"n": 1}}
    sent = [
        LLMDelta(provider_fields={"prompt_progress": {"total": 3}}),
        LLMDelta(text_delta="Hi"),
        LLMDelta(provider_fields=timings),
        LLMDelta(finish_reason="stop"),
        LLMDelta(usage_delta=Usage(prompt_tokens=1, completion_tokens=1), provider_fields=timings),
    ]
    events = check_events(written(sent))
    told = [event["type"] for event in events if "timings" in event]
    assert told == ["response.output_text.delta", "response.completed"]
    received = codec.stream_reader(("timings",)).feed(written(sent))
    assert [d.provider_fields for d in received if d.provider_fields] == [timings, timings]


def test_a_request_that_this_format_cannot_hold_is_refused():
    with pytest.raises(LLMInvalidRequestError, match="at least one message"):
        codec.write_request(LLMRequest(messages=(), prompt="Once"), stream=False)


def test_tools_and_the_answers_form_are_written_as_the_format_has_them():
    request = LLMRequest(
        messages=(LLMMessage(role="user", content="hi"),),
        tools=(ToolSpec(name="look", description="Look."),),
        tool_choice=NamedTool(name="look"),
        response_schema={"type": "object"},
        reasoning_effort="low",
        provider_options={"reasoning_summary": "auto", "verbosity": "low", "store": True},
    )
    wire = json.loads(codec.write_request(request, model="m", stream=True))
    spec.CreateResponseBody.model_validate(wire)
    assert wire["tool_choice"] == {"type": "function", "name": "look"}
    assert wire["text"]["format"]["schema"] == {"type": "object"}
    assert wire["text"]["verbosity"] == "low"
    assert wire["reasoning"] == {"effort": "low", "summary": "auto"}
    assert (wire["store"], wire["stream"]) == (True, True)
    assert "stream_options" not in wire
