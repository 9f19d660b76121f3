"""What an engine's error means: for the row, or for the run."""

from __future__ import annotations

from typing import Literal, TypeAlias

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOutputError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)

Verdict: TypeAlias = Literal["refused", "unreached", "passing", "wrong", "row"]
"""``refused``: no room now. ``unreached``: nobody there who could be asked. ``passing``: it may be
answered the next time. ``wrong``: the engine is not what the chain says. ``row``: the row's fault."""

_NOT_FOUND = (404, 405)


class EngineGoneError(LLMUnavailableError):
    """An engine cannot be used any more: the run stops, with all that was done kept."""

    default_transient = False


def verdict_of(error: LLMError) -> Verdict:
    """What ``error`` says about who was asked."""
    if isinstance(error, LLMAuthError | LLMModelNotFoundError) or error.status in _NOT_FOUND:
        return "wrong"
    if isinstance(error, LLMUnavailableError) and not error.transient:
        return "wrong"  # it does not start, or shows the certificate of another
    if isinstance(error, LLMBadResponseError):
        # Of an answer that broke off nothing is in use yet, as it may be where a call began to give
        # it out. What does not meet the schema was asked for again already.
        return "row" if isinstance(error, LLMOutputError) else "passing"
    if not error.transient:
        return "row"
    if isinstance(error, LLMRateLimitError | LLMOverloadedError):
        return "refused"
    return "unreached" if _was_not_reached(error) else "passing"


def _was_not_reached(error: LLMError) -> bool:
    """Whether no connection was made; one that broke may be the request's own doing."""
    cause = error.__cause__
    return (
        isinstance(error, LLMUnavailableError)
        and isinstance(cause, OSError)
        and not isinstance(
            cause, ConnectionResetError | ConnectionAbortedError | BrokenPipeError | TimeoutError
        )
    )


_ADVICE: tuple[tuple[type[LLMError], str], ...] = (
    (LLMInsufficientFundsError, "Its account has no credit or quota left: add some"),
    (LLMAuthError, "Check its key (api_key_env), and that the key may use its model"),
    (LLMModelNotFoundError, "Check its model"),
    (LLMInvalidRequestError, "Check its endpoint, up to and including /v1, and its model"),
    (LLMRateLimitError, "Wait until it has room, or lower --concurrency"),
    (LLMOverloadedError, "Wait until it has room, or lower --concurrency"),
    (LLMTimeoutError, "Check that it computes answers, or lower --concurrency"),
    (LLMUnavailableError, "Check that it runs, and its endpoint"),
    (LLMError, "See its log"),
)


def advice_for(error: LLMError) -> str:
    """What to do about an engine that fails so for everybody."""
    return next(advice for kind, advice in _ADVICE if isinstance(error, kind))
