"""Backends' errors as the right class of our tree, and ours in OpenAI's form."""

import json
from datetime import datetime, timezone

import pytest

from headrace.contracts import errors
from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMCancelledError,
    LLMCapabilityError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.wire.openai_errors import error_from_wire, read_error, write_error


def error_body(**fields):
    return json.dumps({"error": {"message": "said", **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (400, {}, LLMInvalidRequestError),
        (400, {"code": "context_length_exceeded"}, LLMContextLengthError),
        (400, {"type": "exceed_context_size_error", "code": 400}, LLMContextLengthError),
        (400, {"message": "This model's maximum context length is 4096"}, LLMContextLengthError),
        (500, {"message": "Context size has been exceeded."}, LLMContextLengthError),
        (400, {"code": "content_filter"}, LLMContentFilterError),
        (400, {"code": "content_policy_violation"}, LLMContentFilterError),
        (
            400,
            {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            LLMContentFilterError,
        ),
        (401, {}, LLMAuthError),
        (403, {}, LLMAuthError),
        (402, {}, LLMInsufficientFundsError),
        (429, {"code": "insufficient_quota"}, LLMInsufficientFundsError),
        (429, {"type": "insufficient_quota"}, LLMInsufficientFundsError),
        (404, {"code": "model_not_found"}, LLMModelNotFoundError),
        (404, {"message": "The model `x` does not exist."}, LLMModelNotFoundError),
        (404, {"message": "File Not Found"}, LLMInvalidRequestError),
        (408, {}, LLMTimeoutError),
        (409, {}, LLMInvalidRequestError),
        (413, {}, LLMInvalidRequestError),
        (422, {}, LLMInvalidRequestError),
        (429, {}, LLMRateLimitError),
        (499, {}, LLMCancelledError),
        (500, {}, LLMProviderError),
        (501, {"type": "not_supported_error"}, LLMCapabilityError),
        (502, {}, LLMProviderError),
        (503, {}, LLMOverloadedError),
        (503, {"type": "unavailable_error"}, LLMUnavailableError),
        (504, {}, LLMTimeoutError),
        (529, {}, LLMOverloadedError),
        (302, {}, LLMBadResponseError),
    ],
)
def test_an_error_gets_the_class_that_its_status_and_code_mean(status, fields, expected):
    error = read_error(status, error_body(**fields))
    assert type(error) is expected
    assert error.provider_message == fields.get("message", "said")
    assert error.message == error.provider_message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 500, 503, 529])
def test_the_status_of_the_answer_is_kept(status):
    assert read_error(status, error_body()).status == status


def test_a_failed_request_that_was_the_callers_fault_is_not_blamed_on_the_server():
    error = read_error(500, error_body(message="image input is not supported"))
    assert type(error) is LLMCapabilityError
    assert (error.status, error.transient) == (400, False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "plain"}', "plain"),
        (b'{"message": "vLLM", "object": "error"}', "vLLM"),
        (b'{"detail": "Not allowed"}', "Not allowed"),
        (b'{"detail": [{"msg": "a"}, {"msg": "b"}]}', "a; b"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b"upstream connect error", "upstream connect error"),
        (b'"text"', "text"),
        (b"", None),
        (b"{}", None),
        (b"null", None),
        (b'{"error": {"message": null, "code": 5}}', None),
    ],
)
def test_what_the_server_said_is_found_in_any_form(body, said):
    error = read_error(500, body)
    assert type(error) is LLMProviderError
    assert error.provider_message == said
    assert error.message == said or (said is None and "500" in error.message)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 20_000, b"<html>" * 10_000])
def test_a_body_of_rubbish_is_still_an_error_of_its_status(body):
    error = read_error(503, body)
    assert type(error) is LLMOverloadedError
    assert len(error.message) <= 2000


def test_param_code_and_request_id_are_kept():
    error = read_error(400, error_body(param="n", code="odd"), {"X-Request-ID": "r1"})
    assert (error.param, error.code, error.request_id) == ("n", "odd", "r1")


def test_a_key_in_the_servers_words_is_not_repeated():
    error = read_error(401, error_body(message="Incorrect API key provided: sk-proj-abc123DEF456."))
    assert "abc123" not in error.message + str(error.provider_message) + str(error)


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_the_wait_that_was_asked_for_is_read_in_seconds(headers, wait_s):
    assert read_error(429, error_body(), headers, now=NOW).retry_after_s == wait_s


def test_a_date_to_wait_for_is_counted_from_the_answers_own_date_without_a_clock():
    date = {"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}
    stamped = {**date, "date": "Thu, 01 Jan 2026 12:00:10 GMT"}
    assert read_error(429, error_body(), stamped).retry_after_s == 20.0
    assert read_error(429, error_body(), date).retry_after_s is None


@pytest.mark.parametrize(("status", "default"), [(429, True), (500, True), (400, False)])
def test_a_server_may_say_itself_whether_to_ask_again(status, default):
    assert read_error(status, error_body()).transient is default
    for said in ("true", "false"):
        error = read_error(status, error_body(), {"x-should-retry": said})
        assert error.transient is (said == "true")


def test_a_conflict_is_worth_another_try():
    assert read_error(409, error_body()).transient


CLASSES = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, LLMError) and cls is not LLMError
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_of_ours_is_understood_by_our_own_client(cls):
    body = write_error(cls("what was wrong", param="n"))
    wire = json.loads(body)["error"]
    assert set(wire) == {"message", "type", "param", "code"}
    assert (wire["message"], wire["param"]) == ("what was wrong", "n")
    error = read_error(cls.default_status, body)
    assert type(error) is cls
    assert (error.message, error.param) == ("what was wrong", "n")
    in_a_stream = error_from_wire(None, json.loads(body))
    assert type(in_a_stream) is cls


def test_a_forbidden_key_is_told_from_a_wrong_one():
    assert b'"authentication_error"' in write_error(LLMAuthError("x"))
    assert b'"permission_error"' in write_error(LLMAuthError("x", status=403))
