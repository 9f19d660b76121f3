"""Every error a caller can meet, as one tree.

    LLMError
      LLMAuthError                  401  the key is missing, wrong or not allowed to do this
        LLMInsufficientFundsError   402  the account has no credit or no quota left
      LLMRateLimitError             429  too many requests: wait, then ask again    (transient)
      LLMInvalidRequestError        400  the request itself is wrong
        LLMModelNotFoundError       404  no such model
        LLMEngineNotFoundError      404  no engine of that name is registered; a KeyError as well
        LLMEndpointNotFoundError    404  no endpoint of that name or type; a KeyError as well
        LLMContextLengthError       400  prompt and answer do not fit the context window
        LLMContentFilterError       400  the provider refused the content
        LLMCapabilityError          400  the backend cannot do what was asked
      LLMProviderError              502  the provider failed                        (transient)
        LLMTimeoutError             504  no answer in time                          (transient)
        LLMOverloadedError          503  the provider is too busy                   (transient)
        LLMUnavailableError         503  the provider cannot be reached             (transient)
        LLMBadResponseError         502  the answer is not what its format says
        LLMOutputError            502  the answer does not meet the schema that was asked for
      LLMCancelledError             499  the caller went away

``transient`` says whether the same request may succeed later. ``status`` is the class's HTTP
status unless the provider gave one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import frozen


class LLMError(Exception):
    """Base of all errors of a call.

    ``retry_after_s`` is how long the provider asked us to wait, in seconds; ``provider_message``
    its own words; ``param`` the field that is wrong; ``code`` the short machine-readable reason.
    None of them ever holds a key.
    """

    default_status: ClassVar[int] = 500
    default_transient: ClassVar[bool] = False
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        provider: str | None = None,
        provider_message: str | None = None,
        request_id: str | None = None,
        transient: bool | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status
        self.retry_after_s = retry_after_s
        self.provider = provider
        self.provider_message = provider_message
        self.request_id = request_id
        self.transient = self.default_transient if transient is None else transient
        self.param = param
        self.code = self.default_code if code is None else code


class LLMAuthError(LLMError):
    """The key is missing, wrong, or not allowed to do this."""

    default_status = 401
    default_code = "invalid_api_key"


class LLMInsufficientFundsError(LLMAuthError):
    """The account has no credit or no quota left; waiting does not help."""

    default_status = 402
    default_code = "insufficient_quota"


class LLMRateLimitError(LLMError):
    """Too many requests or tokens; ask again after ``retry_after_s``."""

    default_status = 429
    default_transient = True
    default_code = "rate_limit_exceeded"


class LLMInvalidRequestError(LLMError):
    """The request itself is wrong; ``param`` names the field."""

    default_status = 400


class LLMModelNotFoundError(LLMInvalidRequestError):
    """No backend has a model of that name."""

    default_status = 404
    default_code = "model_not_found"


class LLMEngineNotFoundError(LLMInvalidRequestError, KeyError):
    """No engine of that name is registered."""

    default_status = 404
    default_code = "engine_not_found"

    # A KeyError shows its message as a key is shown, in quotes.
    __str__ = Exception.__str__


class LLMEndpointNotFoundError(LLMInvalidRequestError, KeyError):
    """No endpoint of that name is there, or none of that type for the model."""

    default_status = 404
    default_code = "endpoint_not_found"

    __str__ = Exception.__str__  # as above


class LLMContextLengthError(LLMInvalidRequestError):
    """Prompt and requested answer do not fit the model's context window."""

    default_code = "context_length_exceeded"


class LLMContentFilterError(LLMInvalidRequestError):
    """The provider's filter refused the prompt or the answer."""

    default_code = "content_filter"


class LLMCapabilityError(LLMInvalidRequestError):
    """The backend cannot do what the request needs; the message says what is lacking.

    Beneath LLMInvalidRequestError because a caller mends it in the same way: by asking for less,
    or by asking another backend.
    """

    default_code = "unsupported"


class LLMProviderError(LLMError):
    """The provider failed in a way that no narrower class describes."""

    default_status = 502
    default_transient = True


class LLMTimeoutError(LLMProviderError):
    """No answer within the time limit; the message names which limit and its seconds."""

    default_status = 504
    default_code = "timeout"


class LLMOverloadedError(LLMProviderError):
    """The provider is too busy to take the request."""

    default_status = 503
    default_code = "overloaded"


class LLMUnavailableError(LLMProviderError):
    """The provider cannot be reached: refused, reset, no such host, engine starting again."""

    default_status = 503
    default_code = "backend_unavailable"


class LLMBadResponseError(LLMProviderError):
    """The answer is empty, cut short or not what its format says."""

    default_transient = False
    default_code = "bad_response"


@frozen(kw_only=True)
class OutputProblem:
    """One thing that is wrong with an answer; ``path`` says where, as in ``$.items[2].price``."""

    path: str
    message: str


class LLMOutputError(LLMBadResponseError):
    """The answer does not meet the schema, and was not asked for again (or not with success).

    ``text`` is the last answer as it came, ``problems`` what is wrong with it, and ``asks`` how
    often the model was asked. ``code`` is ``cut_by_length`` where the answer reached its limit of
    tokens: a higher ``max_tokens`` helps then, and asking again does not.
    """

    default_code = "output_invalid"

    def __init__(
        self,
        message: str = "",
        *,
        text: str = "",
        problems: Sequence[OutputProblem] = (),
        asks: int = 1,
        **more: Any,
    ) -> None:
        super().__init__(message, **more)
        self.text = text
        self.problems = tuple(problems)
        self.asks = asks


class LLMCancelledError(LLMError):
    """The caller went away or cancelled the call."""

    default_status = 499
    default_code = "cancelled"
