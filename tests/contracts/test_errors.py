"""The error tree: what each class promises, and that errors travel whole."""

import copy
import inspect
import pickle

import pytest

from headrace.contracts import errors
from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMCancelledError,
    LLMCapabilityError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMEndpointNotFoundError,
    LLMEngineNotFoundError,
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOutputError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)

# class, the class above it, HTTP status, whether the same request may succeed later
TREE = [
    (LLMError, Exception, 500, False),
    (LLMAuthError, LLMError, 401, False),
    (LLMInsufficientFundsError, LLMAuthError, 402, False),
    (LLMRateLimitError, LLMError, 429, True),
    (LLMInvalidRequestError, LLMError, 400, False),
    (LLMModelNotFoundError, LLMInvalidRequestError, 404, False),
    (LLMEndpointNotFoundError, LLMInvalidRequestError, 404, False),
    (LLMEngineNotFoundError, LLMInvalidRequestError, 404, False),
    (LLMContextLengthError, LLMInvalidRequestError, 400, False),
    (LLMContentFilterError, LLMInvalidRequestError, 400, False),
    (LLMCapabilityError, LLMInvalidRequestError, 400, False),
    (LLMProviderError, LLMError, 502, True),
    (LLMTimeoutError, LLMProviderError, 504, True),
    (LLMOverloadedError, LLMProviderError, 503, True),
    (LLMUnavailableError, LLMProviderError, 503, True),
    (LLMBadResponseError, LLMProviderError, 502, False),
    (LLMOutputError, LLMBadResponseError, 502, False),
    (LLMCancelledError, LLMError, 499, False),
]
CLASSES = [row[0] for row in TREE]
KEY = "sk-proj-4f8a1c"


def full(cls):
    return cls(
        "too many requests",
        status=418,
        retry_after_s=1.5,
        provider="groq",
        provider_message="slow down",
        request_id="req_1",
        transient=True,
        param="messages[2].role",
        code="teapot",
    )


def test_the_tree_has_no_class_that_is_not_in_the_table():
    found = [v for v in vars(errors).values() if inspect.isclass(v) and issubclass(v, Exception)]
    assert set(found) == set(CLASSES)


def test_an_unknown_engine_is_a_key_error_that_shows_its_words_as_they_are():
    with pytest.raises(KeyError) as caught:
        raise LLMEngineNotFoundError("there is no engine 'x'")
    assert str(caught.value) == "there is no engine 'x'"


@pytest.mark.parametrize(("cls", "above", "status", "transient"), TREE)
def test_an_error_knows_its_place_status_and_whether_to_ask_again(cls, above, status, transient):
    error = cls("no")
    assert cls.__bases__[0] is above
    assert (error.status, error.transient) == (status, transient)
    assert str(error) == error.message == "no"
    assert (error.retry_after_s, error.provider, error.provider_message) == (None, None, None)
    assert (error.request_id, error.param) == (None, None)


@pytest.mark.parametrize("cls", CLASSES)
def test_what_the_provider_said_wins_over_the_class(cls):
    error = full(cls)
    assert (error.status, error.transient, error.code) == (418, True, "teapot")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "carry", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_an_error_arrives_whole_in_another_process(cls, carry):
    error = full(cls)
    error.add_note("while warming up")
    there = carry(error)
    assert type(there) is cls
    assert (there.args, vars(there)) == (error.args, vars(error))


@pytest.mark.parametrize("cls", CLASSES)
def test_a_repr_says_only_the_message(cls):
    error = cls("wrong key", provider_message=f"Incorrect API key: {KEY}")
    assert KEY not in repr(error)
    assert KEY not in str(error)
    assert "wrong key" in repr(error)
