"""The Responses API: both ends joined in memory, and the specification's own models as judge."""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.messages import (
    LLMMessage,
)
from headrace.contracts.responses import LLMResponse, Usage
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
    """``messages`` without a second turn of the assistant on end, which is one turn here."""
    kept: list[LLMMessage] = []
    for message in messages:
        if not (kept and kept[-1].role == message.role == "assistant"):
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
        read, wrote = usage.input_cache_read_tokens or 0, usage.input_cache_write_tokens or 0
        thought = usage.output_reasoning_tokens or 0
        usage = evolve(
            usage,
            input_cache_read_tokens=read,
            input_cache_write_tokens=wrote,
            input_uncached_tokens=usage.prompt_tokens - read - wrote,
            output_reasoning_tokens=thought,
            output_text_tokens=usage.completion_tokens - thought,
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
