"""Both ends of each format joined in memory: what one writes, the other reads."""

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.responses import LLMDelta, ToolCallDelta
from headrace.wire import openai_chat, openai_completions
from headrace.wire.assemble import assemble, deltas, whole
from headrace.wire.openai_params import LLAMA_CPP, OPENAI

from .strategies import chat_requests, choppings, completion_requests, responses, streams, usages

modest = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(request=chat_requests(), stream=st.booleans(), usage=st.booleans())
@modest
def test_a_chat_request_arrives_as_it_was_sent(request, stream, usage):
    body = openai_chat.write_request(request, stream=stream, include_usage=usage)
    inbound = openai_chat.read_request(body)
    assert inbound.request == request
    assert inbound.stream == stream
    assert inbound.include_usage == (stream and usage)


@given(request=chat_requests())
@modest
def test_names_of_other_servers_are_read_alike(request):
    request = evolve(request, messages=tuple(evolve(m, reasoning=None) for m in request.messages))
    for dialect in (OPENAI, LLAMA_CPP):
        body = openai_chat.write_request(request, stream=False, dialect=dialect)
        beside = dialect.beside_stop if request.stop else {}
        options = {**beside, **request.provider_options}
        assert openai_chat.read_request(body).request == evolve(request, provider_options=options)


@given(request=completion_requests(), stream=st.booleans())
@modest
def test_a_completion_request_arrives_as_it_was_sent(request, stream):
    body = openai_completions.write_request(request, stream=stream)
    inbound = openai_completions.read_request(body)
    assert inbound.request == request
    assert inbound.prompts == (request.prompt,)
    assert inbound.stream == stream


@given(response=responses(chat=True))
@modest
def test_a_chat_answer_arrives_as_it_was_sent(response):
    assert openai_chat.read_response(openai_chat.write_response(response)) == response


@given(response=responses(chat=True))
@modest
def test_an_answer_read_in_few_pieces_says_the_same(response):
    body = openai_chat.write_response(response)
    pieces = openai_chat.read_whole(body)
    assert pieces == whole(openai_chat.read_response(body))
    assert evolve(assemble(pieces), created=response.created) == response


@given(response=responses(chat=False))
@modest
def test_a_completion_answer_arrives_as_it_was_sent(response):
    body = openai_completions.write_response(response)
    assert openai_completions.read_response(body) == response


@given(sent=streams(), injected=st.booleans(), returns=st.booleans(), data=st.data())
@modest
def test_a_chat_stream_survives_any_chopping(sent, injected, returns, data):
    written = _written(openai_chat, sent)
    if injected:
        written = written.replace(b"data: {", b": still here\n\ndata: {")
    if returns:
        written = written.replace(b"\n", b"\r\n")
    reader = openai_chat.stream_reader()
    received = [d for piece in data.draw(choppings(written)) for d in reader.feed(piece)]
    received += reader.close()
    assert reader.done
    assert assemble(received) == assemble(sent)
    assert [(d.index, d.text_delta) for d in received if d.text_delta] == [
        (d.index, d.text_delta) for d in sent if d.text_delta
    ]


@given(response=responses(chat=True), data=st.data())
@modest
def test_a_whole_answer_sent_as_a_stream_says_the_same(response, data):
    expected = evolve(response, created=None)
    sent = deltas(response)
    assert assemble(sent) == expected
    reader = openai_chat.stream_reader()
    pieces = data.draw(choppings(_written(openai_chat, sent, response.response_id, response.model)))
    assert assemble([d for piece in pieces for d in reader.feed(piece)]) == expected


@given(response=responses(chat=False))
@modest
def test_a_whole_completion_sent_as_a_stream_says_the_same(response):
    written = _written(openai_completions, deltas(response), response.response_id, response.model)
    reader = openai_completions.stream_reader()
    assert assemble(reader.feed(written)) == evolve(response, created=None)


@given(usage=usages())
@modest
def test_usage_comes_at_a_streams_end_when_asked_for_and_only_then(usage):
    sent = [LLMDelta(text_delta="a", finish_reason="stop"), LLMDelta(usage_delta=usage)]
    for asked in (True, False):
        writer = openai_chat.stream_writer(
            response_id="id", model="m", created=1, include_usage=asked
        )
        written = b"".join(writer.write(delta) for delta in sent) + writer.finish()
        received = assemble(openai_chat.stream_reader().feed(written))
        assert received.usage == (usage if asked else None)
        assert (b'"choices":[],"usage":{' in written) == asked


def test_a_delta_that_says_nothing_writes_nothing():
    writer = openai_chat.stream_writer(response_id="id", model="m", created=1)
    assert writer.write(LLMDelta(model="m", response_id="id")) == b""
    assert writer.write(LLMDelta(text_delta="")) == b""


def test_a_choice_opens_with_its_role_once():
    writer = openai_chat.stream_writer(response_id="id", model="m", created=1)
    first = writer.write(LLMDelta(tool_call_delta=ToolCallDelta(call_id="a", name="f")))
    assert first.count(b'"role":"assistant"') == 1
    assert b"role" not in writer.write(LLMDelta(text_delta="x"))
    assert writer.write(LLMDelta(text_delta="x", index=1)).count(b'"role":"assistant"') == 1


def _written(codec, sent, response_id="id", model="m"):
    writer = codec.stream_writer(
        response_id=response_id, model=model, created=1, include_usage=True
    )
    return b"".join(writer.write(delta) for delta in sent) + writer.finish()
