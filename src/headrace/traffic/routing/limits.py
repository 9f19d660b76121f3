"""What a caller will not have passed: cost, time and tags, whatever the policy of the route.

A limit holds by what is known beforehand: prices, the length of the prompt, the bound of the answer,
and how long the backend's answers took lately. Who may break it is not asked, not even where all
others fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.requests import TaskProfile
from headrace.traffic.routing.candidate import Look, W

LATENCY_QUANTILE = 0.95
"""The share of a backend's late answers that have to be within a limit of time."""

_ALLOW = "allow unknown ones (a route's 'unknown: allow', a client's allow_unknown)"
_Test: TypeAlias = Callable[[Look[W], TaskProfile, bool], str | None]


def within_limits(
    looks: Sequence[Look[W]], profile: TaskProfile, route: str, *, allow_unknown: bool
) -> list[Look[W]]:
    """Those that may be asked; of the others ``why_not`` tells.

    Where a limit cannot be judged, for want of a price or of answers that were measured, it is not
    held, unless ``allow_unknown``.

    Raises LLMCapabilityError, naming the limit and who comes nearest to it, where none is left.
    """
    able = []
    for look in looks:
        reasons = (test(look, profile, allow_unknown) for test in (_tags, _cost, _latency))
        look.why_not = next((reason for reason in reasons if reason), None)
        if look.why_not is None:
            able.append(look)
    if not able:
        raise _refusal(looks, profile, route, allow_unknown)
    return able


def _tags(look: Look[W], profile: TaskProfile, allow_unknown: bool) -> str | None:
    missing = [tag for tag in profile.tags if tag not in look.candidate.tags]
    return f"has no tag {missing[0]!r}" if missing else None


def _cost(look: Look[W], profile: TaskProfile, allow_unknown: bool) -> str | None:
    limit = profile.max_cost_usd
    if limit is None:
        return None
    cost = look.cost_usd()
    if cost is None:
        return None if allow_unknown else "its price is not known (max_cost_usd)"
    return None if cost <= limit else f"may cost ${cost:.6g} (max_cost_usd {limit:g})"


def _latency(look: Look[W], profile: TaskProfile, allow_unknown: bool) -> str | None:
    limit = profile.max_latency_ms
    if limit is None:
        return None
    took_s = look.latency_s("answer", LATENCY_QUANTILE)
    fresh = look.candidate.pace.is_fresh("answer", look.occasion.now)
    # Old times bar nobody who may go unmeasured: else one that was slow once would stay so for good.
    if took_s is None or (allow_unknown and not fresh):
        return None if allow_unknown else "its answers were not measured yet (max_latency_ms)"
    took_ms = took_s * 1000
    return None if took_ms <= limit else f"takes {took_ms:.0f} ms (max_latency_ms {limit})"


def _refusal(
    looks: Sequence[Look[W]], profile: TaskProfile, route: str, allow_unknown: bool
) -> LLMCapabilityError:
    told = (
        ("tags", _tags, _of_tags),
        ("max_cost_usd", _cost, _of_cost),
        ("max_latency_ms", _latency, _of_latency),
    )
    for name, test, words in told:
        if all(test(look, profile, allow_unknown) for look in looks):
            return _error(words(looks, profile, route), f"task_profile.{name}")
    each = "; ".join(f"{look.candidate.name} {look.why_not}" for look in looks)
    return _error(
        f"no backend of {route!r} is within all limits of the task profile together: {each}",
        "task_profile",
    )


def _of_tags(looks: Sequence[Look[W]], profile: TaskProfile, route: str) -> str:
    known = sorted({tag for look in looks for tag in look.candidate.tags})
    return (
        f"no backend of {route!r} has the tags {', '.join(profile.tags)}; there are: "
        f"{', '.join(known) or 'none'}"
    )


def _of_cost(looks: Sequence[Look[W]], profile: TaskProfile, route: str) -> str:
    known = [(cost, look) for look in looks if (cost := look.cost_usd()) is not None]
    limit = f"max_cost_usd is {profile.max_cost_usd:g}"
    if not known:
        return (
            f"{limit}, but no backend of {route!r} has a known price: name its prices in the route, "
            f"or {_ALLOW}"
        )
    cost, best = min(known, key=lambda each: each[0])
    occasion = best.occasion
    return (
        f"{limit}, but the cheapest backend of {route!r}, {best.candidate.name}, may cost ${cost:.6g} "
        f"({occasion.prompt_tokens} tokens of prompt and up to {occasion.answer_tokens} of answer); "
        "raise it, or lower max_tokens"
    )


def _of_latency(looks: Sequence[Look[W]], profile: TaskProfile, route: str) -> str:
    q = LATENCY_QUANTILE
    known = [(took, look) for look in looks if (took := look.latency_s("answer", q)) is not None]
    limit = f"max_latency_ms is {profile.max_latency_ms}"
    if not known:
        return f"{limit}, but no backend of {route!r} was measured yet: ask without it first, or {_ALLOW}"
    took_s, best = min(known, key=lambda each: each[0])
    return (
        f"{limit}, but of the answers of the quickest backend of {route!r}, {best.candidate.name}, "
        f"{q:.0%} take up to {took_s * 1000:.0f} ms; raise it"
    )


def _error(message: str, param: str) -> LLMCapabilityError:
    return LLMCapabilityError(message, param=param, code="limit_not_held")
