"""Anthropic's own SDK as second judge, over a transport in memory."""

import json

import anthropic as sdk_package
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import (
    LLMAuthError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.wire import anthropic, anthropic_models
from headrace.wire.anthropic_messages import arguments_to_wire
from headrace.wire.assemble import deltas

from .anthropic_strategies import answers

MESSAGES = [{"role": "user", "content": "Hello"}]
modest = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def client(answer, status=200, headers=None, seen=None):
    """An SDK client whose every request is answered with the bytes ``answer``."""

    def handle(request):
        if seen is not None:
            seen.append(request.content)
        kind = "text/event-stream" if answer.startswith(b"event:") else "application/json"
        return httpx2.Response(
            status, content=answer, headers={"content-type": kind, **(headers or {})}
        )

    return sdk_package.Anthropic(
        api_key="k",
        base_url="http://in-memory.test",
        max_retries=0,
        _strict_response_validation=True,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


def same(message, said):
    """Whether the SDK's message says what ours did."""
    assert message.type == "message"
    assert message.role == "assistant"
    assert (message.id, message.model) == (said.response_id, said.model)
    assert "".join(b.text for b in message.content if b.type == "text") == said.text
    calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    assert calls == [
        (call.call_id, call.name, arguments_to_wire(call.arguments_json))
        for call in said.tool_calls
    ]
    thoughts = [b.thinking for b in message.content if b.type == "thinking"]
    assert "".join(thoughts) == (said.reasoning or "")
    seals = [b.signature for b in message.content if b.type == "thinking"]
    assert seals == [part.signature for part in said.reasoning_parts if part.signature]
    hidden = [b.data for b in message.content if b.type == "redacted_thinking"]
    assert hidden == [part.encrypted for part in said.reasoning_parts if part.encrypted]
    assert message.stop_reason == said.raw_finish_reason
    assert message.stop_sequence == said.stop_sequence
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert usage.input_tokens + cached == said.usage.prompt_tokens
    assert usage.output_tokens == said.usage.completion_tokens


@given(response=answers())
@modest
def test_the_sdk_reads_our_answers(response):
    with client(anthropic.write_response(response)) as sdk:
        same(sdk.messages.create(model="m", max_tokens=9, messages=MESSAGES), response)


def _calls_with_objects(response):
    return all(
        "INVALID_JSON" not in arguments_to_wire(call.arguments_json) for call in response.tool_calls
    )


@given(response=answers().filter(_calls_with_objects))
@modest
def test_the_sdk_reads_our_streams(response):
    writer = anthropic.stream_writer(
        response_id=response.response_id, model=response.model, created=1
    )
    said = b"".join(writer.write(delta) for delta in deltas(response)) + writer.finish()
    with (
        client(said) as sdk,
        sdk.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
    ):
        same(stream.get_final_message(), response)


def test_what_the_sdk_asks_is_read_as_it_was_meant():
    seen = []
    with client(anthropic.write_count(3), seen=seen) as sdk:
        counted = sdk.messages.count_tokens(
            model="claude-x",
            messages=MESSAGES,
            system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            tools=[{"name": "f", "input_schema": {"type": "object"}, "strict": True}],
            tool_choice={"type": "any"},
            thinking={"type": "adaptive"},
        )
    assert counted.input_tokens == 3
    request = anthropic.read_count_request(seen[0]).request
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[0].content[0].cache == "5m"
    assert (request.tool_choice, request.reasoning_effort) == ("required", "high")


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (LLMInvalidRequestError("x"), 400, sdk_package.BadRequestError),
        (LLMContextLengthError("x"), 400, sdk_package.BadRequestError),
        (LLMAuthError("x"), 401, sdk_package.AuthenticationError),
        (LLMAuthError("x", status=403), 403, sdk_package.PermissionDeniedError),
        (LLMModelNotFoundError("no model x"), 404, sdk_package.NotFoundError),
        (LLMInvalidRequestError("x", status=413), 413, sdk_package.APIStatusError),
        (LLMRateLimitError("x"), 429, sdk_package.RateLimitError),
        (LLMProviderError("x"), 502, sdk_package.InternalServerError),
        (LLMTimeoutError("x"), 504, sdk_package.APIStatusError),
        (LLMOverloadedError("x"), 529, sdk_package.APIStatusError),
    ],
)
def test_the_sdk_knows_our_errors_and_we_know_them_again(error, status, raised):
    assert anthropic.status_of(error) == status
    error.request_id = "req_7"
    body = anthropic.write_error(error)
    headers = {"request-id": "req_7"}
    with client(body, status, headers) as sdk, pytest.raises(raised) as caught:
        sdk.messages.create(model="m", max_tokens=1, messages=MESSAGES)
    assert caught.value.status_code == status
    assert caught.value.request_id == "req_7"
    assert caught.value.body["request_id"] == "req_7"
    again = anthropic.read_error(status, body, headers)
    expected = LLMInvalidRequestError if isinstance(error, LLMContextLengthError) else type(error)
    assert type(again) is expected
    assert (again.message, again.request_id) == (error.message, "req_7")


@pytest.mark.parametrize(
    ("status", "kind", "said", "expected"),
    [
        (400, "invalid_request_error", "prompt is too long: 9 > 5", LLMContextLengthError),
        (402, "billing_error", "no credit", LLMAuthError),
        (529, "overloaded_error", "Overloaded", LLMOverloadedError),
        (500, "api_error", "Internal", LLMProviderError),
        (404, "not_found_error", "model: claude-9", LLMModelNotFoundError),
        (413, "request_too_large", "too big", LLMInvalidRequestError),
    ],
)
def test_errors_as_anthropic_sends_them(status, kind, said, expected):
    body = json.dumps({"type": "error", "error": {"type": kind, "message": said}}).encode()
    error = anthropic.read_error(status, body, {"request-id": "r"})
    assert isinstance(error, expected)
    assert type(error) is not LLMError
    assert (error.message, error.status, error.request_id) == (said, status, "r")


MODELS = tuple(ModelInfo(model_id=f"m{i}", created=1_700_000_000 + i) for i in range(5))


def listed(page=None, **query):
    page = anthropic_models.read_page({name: [str(value)] for name, value in query.items()})
    with client(anthropic_models.write_models(MODELS, page)) as sdk:
        return sdk.models.list()


def test_the_sdk_reads_our_model_list():
    page = listed()
    assert [model.id for model in page.data] == [model.model_id for model in MODELS]
    assert page.data[0].created_at.timestamp() == 1_700_000_000
    assert (page.has_more, page.first_id, page.last_id) == (False, "m0", "m4")
    body = anthropic_models.write_models(MODELS)
    assert [m.model_id for m in anthropic_models.read_models(body)] == page_ids(page)
    with client(anthropic_models.write_model(MODELS[1])) as sdk:
        assert sdk.models.retrieve("m1").id == "m1"


def page_ids(page):
    return [model.id for model in page.data]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({"limit": 2}, ["m0", "m1"], True),
        ({"limit": 2, "after_id": "m1"}, ["m2", "m3"], True),
        ({"limit": 2, "after_id": "m3"}, ["m4"], False),
        ({"limit": 2, "before_id": "m3"}, ["m1", "m2"], True),
        ({"before_id": "m1"}, ["m0"], False),
        ({"after_id": "nobody"}, [], False),
        ({"lifecycle": "retired"}, [], False),
        ({"lifecycle": "active"}, ["m0", "m1", "m2", "m3", "m4"], False),
    ],
)
def test_pages_of_the_model_list(query, ids, more):
    page = listed(**query)
    assert page_ids(page) == ids
    assert page.has_more is more


@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "9" * 50])
def test_a_wrong_limit_is_named(limit):
    with pytest.raises(LLMInvalidRequestError) as caught:
        anthropic_models.read_page({"limit": [limit]})
    assert caught.value.param == "limit"
