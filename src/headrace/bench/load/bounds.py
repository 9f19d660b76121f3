"""What the numbers of a plan may be, whoever wrote it: flags, a file or a program."""

from __future__ import annotations

from math import isfinite

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import LoadPlan

_ABOVE_0 = ("duration_s", "timeout_s")
_NOT_BELOW_0 = ("drain_s", "warmup_s", "cooldown_s", "warmup_requests")
_AT_LEAST_1 = ("requests", "at_most", "most_errors", "workers")


def check(plan: LoadPlan) -> None:
    """LLMInvalidRequestError where a number is none that a run could have, or leaves nothing over."""
    for name in (*_ABOVE_0, *_NOT_BELOW_0, *_AT_LEAST_1):
        value = getattr(plan, name)
        if value is None:
            continue
        if name in _ABOVE_0 and not (isfinite(value) and value > 0):
            raise _wrong(name, value, "must be above 0")
        if name in _NOT_BELOW_0 and not (isfinite(value) and value >= 0):
            raise _wrong(name, value, "must be 0 or more")
        if name in _AT_LEAST_1 and value < 1:
            raise _wrong(name, value, "must be 1 or more")
    share = plan.most_error_share
    if share is not None and not 0 < share <= 1:
        raise _wrong("most_error_share", share, "must be above 0 and at most 1")
    _leaves_something(plan)


def _leaves_something(plan: LoadPlan) -> None:
    """Warm-up and cool-down are counted apart; what is over is what the figures are of."""
    if plan.duration_s is not None and plan.warmup_s + plan.cooldown_s >= plan.duration_s:
        left_out = plan.warmup_s + plan.cooldown_s
        raise LLMInvalidRequestError(
            f"warm-up and cool-down take {left_out:g} s of a run of {plan.duration_s:g} s "
            f"(duration_s), so nothing would be measured; let it run longer than {left_out:g} s",
            param="warmup_s",
        )
    if plan.requests is not None and 0 < plan.requests <= plan.warmup_requests:
        raise LLMInvalidRequestError(
            f"warmup_requests is {plan.warmup_requests} of {plan.requests} requests in all, so "
            f"nothing would be measured; send more than {plan.warmup_requests}",
            param="warmup_requests",
        )


def _wrong(name: str, value: float, right: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"{name} is {value:g}, {right}", param=name)
