"""What a caller wants of the choice among backends, read from a request; and what is told of it.

A task profile comes in the body, as ``task_profile``, or in a header:

    x-headrace-task: cost; max_cost_usd=0.01; max_latency_ms=2000; tags=eu fast
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from attrs import evolve

from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.ranking import ClassificationRequest, RerankRequest
from headrace.contracts.requests import EmbeddingRequest, LLMRequest, TaskProfile
from headrace.contracts.routing import RouteDecision

R = TypeVar("R", LLMRequest, EmbeddingRequest, RerankRequest, ClassificationRequest)

TASK_HEADER = "x-headrace-task"
ROUTE_HEADER = b"x-headrace-route"
TASK_FIELD = "task_profile"
_MOST_REASON = 200
_UNSAID = re.compile(r"[^ !#-:<-\[\]-~]")


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """A request's headers, by lower-case names; of several the first."""
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed([*found])}


def with_profile(request: LLMRequest, headers: Mapping[str, str]) -> LLMRequest:
    """``request`` with the task profile that stands in its body or ``headers``.

    Raises LLMInvalidRequestError, naming the field, where it is none.
    """
    profile, bare = task_profile(request, headers), without_profile(request)
    return bare if profile is None else evolve(bare, task_profile=profile)


def without_profile(request: R) -> R:
    """``request`` without the field of its body that no backend is to see."""
    options = request.provider_options
    if TASK_FIELD not in options:
        return request
    kept = {name: value for name, value in options.items() if name != TASK_FIELD}
    return evolve(request, provider_options=kept)


def task_profile(
    request: LLMRequest | EmbeddingRequest | RerankRequest | ClassificationRequest,
    headers: Mapping[str, str],
) -> TaskProfile | None:
    """The task profile of ``request``; raises as ``with_profile``."""
    told, header = request.provider_options.get(TASK_FIELD), headers.get(TASK_HEADER)
    if told is None:
        return None if header is None else _from_header(header)
    if header is not None:
        raise LLMInvalidRequestError(
            f"both {TASK_FIELD} and the header {TASK_HEADER} are given; leave one of them out",
            param=TASK_FIELD,
        )
    return _checked(told)


def _from_header(text: str) -> TaskProfile:
    told: dict[str, object] = {}
    for place, part in enumerate(text.split(";")):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals and place == 0:
            name, value = "priority", name
        if name == "tags":
            told[name] = value.replace(",", " ").split()
        else:
            told[name] = _number(name, value) if name.startswith("max_") else value
    try:
        return _checked(told)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(
            f"{error} (header {TASK_HEADER}: {text[:200]!r}; as in 'cost; max_cost_usd=0.01; "
            "max_latency_ms=2000; tags=eu fast')",
            param=error.param,
        ) from None


def _number(name: str, value: str) -> object:
    try:
        return float(value) if name == "max_cost_usd" else int(value)
    except ValueError:
        return value


def _checked(told: object) -> TaskProfile:
    try:
        profile = from_plain(told, TaskProfile)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(
            f"{TASK_FIELD}: {error}",
            param=TASK_FIELD if error.param is None else f"{TASK_FIELD}.{error.param}",
        ) from error
    cost, latency = profile.max_cost_usd, profile.max_latency_ms
    if cost is not None and not 0 <= cost < float("inf"):
        raise _out_of_range("max_cost_usd", cost, "a number from 0")
    if latency is not None and latency < 1:
        raise _out_of_range("max_latency_ms", latency, "at least 1")
    return profile


def _out_of_range(name: str, value: float, right: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"{TASK_FIELD}: {name} is {value:g}, must be {right}", param=f"{TASK_FIELD}.{name}"
    )


def route_header(decision: RouteDecision) -> bytes:
    """What the header ``x-headrace-route`` tells of ``decision``."""
    return _written(decision.route, decision.policy, decision.chosen, decision.reason)


@lru_cache(maxsize=1024)
def _written(route: str, policy: str, chosen: str, reason: str) -> bytes:
    names = f"{_plain(route)}; policy={policy}; backend={_plain(chosen)}"
    return f'{names}; reason="{_plain(reason)[:_MOST_REASON]}"'.encode()


def _plain(text: str) -> str:
    """A header cannot hold what is not ASCII, nor this one what ends its parts."""
    return _UNSAID.sub("?", text)
