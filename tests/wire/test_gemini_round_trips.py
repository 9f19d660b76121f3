"""Both ends of Gemini's format joined in memory: what one writes, the other reads."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.messages import LLMMessage, ReasoningPart, ToolCall
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, LLMResponse, ToolCallDelta
from headrace.wire import gemini, gemini_array, gemini_embeddings, gemini_models
from headrace.wire.assemble import assemble, deltas
from headrace.wire.gemini_seals import call_seal

from .gemini_strategies import answers, gemini_requests, streams
from .strategies import choppings, full_texts

modest = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
HELLO = LLMMessage(role="user", content="hi")


def written(sent, response_id="id", model="m", codec=gemini):
    writer = codec.stream_writer(response_id=response_id, model=model, created=1)
    return b"".join(writer.write(delta) for delta in sent) + writer.finish()


def read(*pieces):
    reader = gemini.stream_reader()
    found = [delta for piece in pieces for delta in reader.feed(piece)]
    found += reader.close()
    assert reader.done
    return found


def events(data):
    return [json.loads(block.removeprefix(b"data: ")) for block in data.split(b"\n\n") if block]


@given(request=gemini_requests(), stream=st.booleans())
@modest
def test_a_request_arrives_as_it_was_sent(request, stream):
    inbound = gemini.read_request(gemini.write_request(request, stream=stream))
    assert inbound.request == request
    assert inbound.dropped == ()


@given(request=gemini_requests())
@modest
def test_a_count_is_asked_for_the_same_conversation(request):
    body = gemini.write_count_request(request, model="m")
    asked = gemini.read_count_request(body).request
    assert asked.messages == request.messages
    assert asked.tools == request.tools
    assert asked.model == "m"


@given(response=answers())
@modest
def test_an_answer_arrives_as_it_was_sent(response):
    assert gemini.read_response(gemini.write_response(response)) == response


@given(sent=streams(), pings=st.booleans(), returns=st.booleans(), data=st.data())
@modest
def test_a_stream_survives_any_chopping(sent, pings, returns, data):
    said = written(sent)
    if pings:
        said = said.replace(b"data: ", gemini.PING + b"data: ")
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
def test_a_stream_that_is_an_array_holds_the_same_answers(sent):
    body = written(sent, codec=gemini_array)
    assert json.loads(body) == events(written(sent))
    assert gemini.read_response(body) == assemble(sent)


@given(sent=streams())
@modest
def test_an_array_takes_pings_between_its_answers(sent):
    writer = gemini_array.stream_writer(response_id="id", model="m", created=1)
    said = gemini_array.PING.join([*map(writer.write, sent), writer.finish()])
    assert json.loads(said) == events(written(sent))


PIECE = st.builds(
    ReasoningPart,
    text=full_texts,
    signature=st.none() | full_texts,
    encrypted=st.none() | full_texts,
    part_id=st.none() | st.just("rs_1"),
)


@given(piece=PIECE, streamed=st.booleans())
@modest
def test_what_another_provider_sealed_comes_back_from_a_caller(piece, streamed):
    """As Google's own client gives it back, which writes bytes in the other alphabet of base64."""
    response = LLMResponse(
        text="Well.", reasoning=piece.text, reasoning_parts=(piece,), finish_reason="stop"
    )
    if streamed:
        said = [event["candidates"][0]["content"] for event in events(written(deltas(response)))]
        parts = [part for content in said for part in content["parts"]]
    else:
        (candidate,) = json.loads(gemini.write_response(response))["candidates"]
        parts = candidate["content"]["parts"]
    for part in parts:
        if "thoughtSignature" in part:
            part["thoughtSignature"] = part["thoughtSignature"].replace("+", "-").replace("/", "_")
    turns = [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": parts}]
    body = json.dumps({"contents": turns}).encode()
    turn = gemini.read_request(body).request.messages[1]
    sealed = piece.signature is not None or piece.encrypted is not None
    assert turn.reasoning == piece.text
    assert turn.reasoning_parts == ((piece,) if sealed else ())
    assert turn.content == "Well."


def test_a_signature_goes_back_on_the_call_that_it_came_on():
    calls = [{"functionCall": {"name": "a", "args": {}}} for _ in range(2)]
    calls[0]["thoughtSignature"] = "c2VhbA=="
    said = {"candidates": [{"content": {"parts": calls}, "finishReason": "STOP"}]}
    response = gemini.read_response(json.dumps(said).encode())
    assert response.reasoning_parts == (ReasoningPart(signature="c2VhbA==", part_id=call_seal(0)),)
    turn = LLMMessage(
        role="assistant",
        content="",
        tool_calls=response.tool_calls,
        reasoning_parts=response.reasoning_parts,
    )
    sent = json.loads(gemini.write_request(LLMRequest(messages=(HELLO, turn)), stream=False))
    # An id that Gemini did not give is none that it gets.
    assert sent["contents"][1] == {"role": "model", "parts": calls}


def test_calls_without_ids_get_some_that_tell_them_apart():
    part = {"functionCall": {"name": "a", "args": {}}}
    said = {"candidates": [{"content": {"parts": [part, part]}, "finishReason": "STOP"}]}
    first = gemini.read_response(json.dumps({**said, "responseId": "one"}).encode())
    second = gemini.read_response(json.dumps({**said, "responseId": "two"}).encode())
    found = [call.call_id for call in (*first.tool_calls, *second.tool_calls)]
    assert len(set(found)) == 4
    assert all(len(each) <= 40 for each in found)


@pytest.mark.parametrize(
    ("model", "dummy"),
    [("gemini-2.5-pro", False), ("gemini-3-pro-preview", True), ("models/gemini-3.5-flash", True)],
)
def test_calls_of_other_models_are_marked_where_signatures_are_demanded(model, dummy):
    call = ToolCall(name="a", arguments_json="{}", call_id="toolu_1")
    turn = LLMMessage(role="assistant", content="", tool_calls=(call, call))
    request = LLMRequest(messages=(HELLO, turn), model=model)
    first, second = json.loads(gemini.write_request(request, stream=False))["contents"][1]["parts"]
    assert ("thoughtSignature" in first) is dummy
    assert "thoughtSignature" not in second


def test_a_call_comes_whole_however_its_arguments_came():
    pieces = [
        LLMDelta(tool_call_delta=ToolCallDelta(call_id="c", name="f", index=0)),
        LLMDelta(tool_call_delta=ToolCallDelta(call_id="d", name="g", index=1)),
        LLMDelta(tool_call_delta=ToolCallDelta(arguments_json_delta='{"a"', index=0)),
        LLMDelta(tool_call_delta=ToolCallDelta(arguments_json_delta=":1}", index=0)),
        LLMDelta(finish_reason="tool_calls"),
    ]
    (event,) = events(written(pieces))
    (candidate,) = event["candidates"]
    assert candidate["finishReason"] == "STOP"
    assert candidate["content"]["parts"] == [
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}},
        {"functionCall": {"name": "g", "args": {}, "id": "d"}},
    ]


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_stream_that_is_cut_is_an_error(cut):
    said = written([LLMDelta(text_delta="abc"), LLMDelta(text_delta="d")])
    reader = gemini.stream_reader()
    reader.feed(said[: int(said.index(b'"finishReason"') * cut)])
    with pytest.raises(LLMError, match=r"cut short|before it said"):
        reader.close()


def test_a_stream_that_is_cut_after_a_reason_is_an_error_too():
    """Some models say one with every chunk, so it is not the end."""
    chunk = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    whole = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    reader = gemini.stream_reader()
    reader.feed(whole + whole[:30])
    with pytest.raises(LLMBadResponseError, match="cut short"):
        reader.close()


ERRORS = [
    (LLMInvalidRequestError("wrong", param="contents[0]"), 400, "INVALID_ARGUMENT"),
    (LLMCapabilityError("cannot", param="logprobs"), 400, "INVALID_ARGUMENT"),
    (LLMContextLengthError("too long"), 400, "INVALID_ARGUMENT"),
    (LLMContentFilterError("no"), 400, "INVALID_ARGUMENT"),
    (LLMModelNotFoundError("no such model"), 404, "NOT_FOUND"),
    (LLMRateLimitError("slow down", retry_after_s=1.5), 429, "RESOURCE_EXHAUSTED"),
    (LLMOverloadedError("full"), 503, "UNAVAILABLE"),
    (LLMUnavailableError("away"), 503, "UNAVAILABLE"),
    (LLMTimeoutError("late"), 504, "DEADLINE_EXCEEDED"),
]


@pytest.mark.parametrize(("error", "code", "word"), ERRORS, ids=lambda each: type(each).__name__)
def test_an_error_arrives_as_it_was_sent(error, code, word):
    body = gemini.write_error(error)
    said = json.loads(body)["error"]
    assert (said["code"], said["status"]) == (code, word)
    assert gemini.status_of(error) == code
    for read_from in (body, b"[" + body + b"]"):
        arrived = gemini.read_error(code, read_from)
        assert type(arrived) is type(error)
        assert arrived.message == error.message
        assert arrived.param == error.param
        assert arrived.retry_after_s == error.retry_after_s


@pytest.mark.parametrize("bare", [False, True], ids=["as an event", "as Google writes it"])
def test_an_error_ends_a_stream(bare):
    writer = gemini.stream_writer(response_id="id", model="m", created=1)
    said = writer.write(LLMDelta(text_delta="a"))
    last = writer.error(LLMRateLimitError("slow down", request_id="req_1"))
    if bare:
        last = json.dumps(json.loads(last.removeprefix(b"data: ")), indent=2).encode()
    reader = gemini.stream_reader()
    text = [delta.text_delta for delta in reader.feed(said + last) if delta.text_delta]
    assert text == ["a"]
    with pytest.raises(LLMRateLimitError, match="slow down"):
        reader.close()


def test_a_schema_and_a_budget_say_what_they_say_over_ours():
    request = LLMRequest(
        messages=(HELLO,),
        reasoning_effort="high",
        provider_options={
            "thinkingConfig": {"thinkingBudget": 7},
            "generationConfig": {"speechConfig": {"a": 1}},
            "tools": [{"googleSearch": {}}],
        },
    )
    sent = json.loads(gemini.write_request(request, model="gemini-3-pro", stream=False))
    assert sent["generationConfig"] == {
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 7},
        "speechConfig": {"a": 1},
    }
    assert sent["tools"] == [{"googleSearch": {}}]


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-pro", "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-pro", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-10-pro", "max", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
    ],
)
def test_effort_is_told_in_the_words_that_a_model_knows(model, effort, config):
    request = LLMRequest(messages=(HELLO,), reasoning_effort=effort)
    sent = json.loads(gemini.write_request(request, model=model, stream=False))
    assert sent["generationConfig"]["thinkingConfig"] == config


@given(
    inputs=st.lists(full_texts, min_size=1, max_size=3),
    dimensions=st.none() | st.integers(1, 4096),
    options=st.sampled_from([{}, {"taskType": "RETRIEVAL_QUERY"}]),
)
@modest
def test_a_request_for_embeddings_arrives(inputs, dimensions, options):
    request = EmbeddingRequest(
        inputs=tuple(inputs), model="m", dimensions=dimensions, provider_options=options
    )
    inbound = gemini_embeddings.read_batch_request(gemini_embeddings.write_request(request))
    assert inbound.request == request


@pytest.mark.parametrize("alone", [False, True])
def test_vectors_arrive(alone):
    result = EmbeddingResult(vectors=[[0.5, -1.0]] if alone else [[0.5, -1.0], [2.0, 3.5]])
    body = gemini_embeddings.write_response(result, alone=alone)
    assert [list(v) for v in gemini_embeddings.read_response(body).vectors] == list(result.vectors)


def test_token_ids_are_no_texts():
    with pytest.raises(LLMCapabilityError, match="input 1 is token ids"):
        gemini_embeddings.write_request(EmbeddingRequest(inputs=("a", (1, 2)), model="m"))


def test_a_list_of_models_comes_in_pages():
    from headrace.contracts.capabilities import ModelInfo

    models = [ModelInfo(model_id=f"m{i}", max_context_tokens=7) for i in range(5)]
    found, token = [], None
    for _ in range(3):
        page = gemini_models.read_page({"pageSize": ["2"], "pageToken": [token] if token else []})
        body = gemini_models.write_models(models, page)
        found += gemini_models.read_models(body)
        token = json.loads(body).get("nextPageToken")
    assert token is None
    assert [model.model_id for model in found] == [model.model_id for model in models]
    assert {model.max_context_tokens for model in found} == {7}
    assert gemini_models.read_models(b"{}") == ()
