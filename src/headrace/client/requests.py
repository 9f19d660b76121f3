"""From the ways in which a call may be put to the one request that it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from attrs import fields

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.inference import Tensor
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMChatParams, LLMRequest

_PARAMS = tuple(field.name for field in fields(LLMChatParams))
_params_of = attrgetter(*_PARAMS)
_SETTINGS = frozenset(field.name for field in fields(LLMRequest)) - {"messages", "prompt"}


def as_messages(messages: str | Sequence[LLMMessage]) -> tuple[LLMMessage, ...]:
    """``messages``, or the one user turn that a plain text is."""
    if isinstance(messages, str):
        return (LLMMessage(role="user", content=messages),)
    for place, message in enumerate(messages):
        if not isinstance(message, LLMMessage):
            raise LLMInvalidRequestError(
                f"messages[{place}] is a {type(message).__name__}, must be an LLMMessage",
                param=f"messages[{place}]",
            )
    return tuple(messages)


def as_request(
    messages: str | Sequence[LLMMessage],
    model: str | None,
    params: LLMChatParams | None,
    settings: Mapping[str, Any],
) -> LLMRequest:
    """The request of a chat call; ``settings`` are fields of LLMRequest by name, and win."""
    if not settings.keys() <= _SETTINGS:
        unknown = sorted(settings.keys() - _SETTINGS)
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], _SETTINGS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LLMInvalidRequestError(f"there is no setting {unknown[0]!r}{hint}", param=unknown[0])
    asked = as_messages(messages)
    if params is None:
        return LLMRequest(**{"model": model, **settings}, messages=asked)
    chosen = dict(zip(_PARAMS, _params_of(params), strict=True))
    return LLMRequest(**{"model": model, **chosen, **settings}, messages=asked)


def as_inputs(inputs: Any, *, batch: bool) -> tuple[Any, ...]:
    """The inputs of a request to a model that is no language model: tensors, or values."""
    if isinstance(inputs, Tensor):
        return (inputs,)
    many = isinstance(inputs, (list, tuple))
    if many and inputs and all(isinstance(each, Tensor) for each in inputs):
        return tuple(inputs)
    if not batch:
        return (inputs,)
    if not many or not inputs:
        raise LLMInvalidRequestError(
            f"batch is true, but inputs is {inputs!r:.60}, must be a list of at least one",
            param="inputs",
        )
    return tuple(inputs)


def as_request_of(
    asked: str | Sequence[LLMMessage] | LLMRequest, settings: Mapping[str, Any]
) -> LLMRequest:
    """``asked`` where it is a request; otherwise that of a chat with chat's own ``settings``."""
    if not isinstance(asked, LLMRequest):
        left = dict(settings)
        return as_request(asked, left.pop("model", None), left.pop("params", None), left)
    if settings:
        first = sorted(settings)[0]
        raise LLMInvalidRequestError(
            f"{first!r} was given beside a whole request; set it in the request", param=first
        )
    return asked
