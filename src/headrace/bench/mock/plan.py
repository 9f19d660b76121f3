"""What is to become of one request: drawn from the settings by the request's number and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from attrs import evolve, field, frozen

from headrace.bench.mock.amounts import (
    Amount,
    draw,
    draw_count,
    read_counts,
    read_duration,
    read_durations,
)
from headrace.bench.mock.settings import Fault, MockSettings, read_fault
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.responses import FinishReason

_NONE = Amount()


@frozen(kw_only=True)
class Rules:
    """The settings as numbers."""

    settings: MockSettings
    ttft: Amount
    itl: Amount
    tokens: Amount
    itl_per_stream_s: float
    slow_s: float
    steady: bool
    """Whether nothing is left to chance."""


@frozen(kw_only=True)
class Plan:
    """One request's fate. ``itl`` is drawn for each gap from ``random``; ``reason`` ends it."""

    ttft_s: float
    itl: Amount
    tokens: int
    reason: FinishReason
    fault: Fault | None = None
    random: Random = field(repr=False)


def read_rules(settings: MockSettings) -> Rules:
    """What ``settings`` say, ready to be drawn from."""
    ttft, itl = read_durations(settings.ttft), read_durations(settings.itl)
    tokens = read_counts(settings.tokens)
    slow = settings.slow_start
    return Rules(
        settings=settings,
        ttft=ttft,
        itl=itl,
        tokens=tokens,
        itl_per_stream_s=read_duration(settings.itl_per_stream),
        slow_s=0.0 if slow is None else read_duration(slow.lasts),
        steady={ttft.shape, itl.shape, tokens.shape} == {"constant"} and not settings.faults,
    )


_STEADY = Random(0)  # noqa: S311 - it is never drawn from


def make_plan(
    rules: Rules,
    *,
    number: int,
    age_s: float,
    most: int | None = None,
    headers: Mapping[bytes, bytes] | None = None,
) -> Plan:
    """The fate of request ``number``, ``age_s`` after the beginning.

    Its draws depend on the seed and its number alone, not on what else goes on. ``most`` is the
    longest answer that it asks for; ``headers`` may say otherwise for it alone (``x-mock-...``).
    """
    # No secret hangs on it, and only the seeded generator can be had again.
    random = _STEADY if rules.steady else Random(f"{rules.settings.seed}/{number}")  # noqa: S311
    fault = _drawn(rules.settings.faults, random)
    ttft_s = draw(rules.ttft, random) * _slowness(rules, age_s)
    tokens = draw_count(rules.tokens, random)
    plan = Plan(
        ttft_s=ttft_s, itl=rules.itl, tokens=tokens, reason="stop", fault=fault, random=random
    )
    if headers is not None:
        plan = _override(plan, headers)
    if most is not None and plan.tokens >= most:
        plan = evolve(plan, tokens=most, reason="length")
    return plan


def of_length(plan: Plan, tokens: int, most: int | None) -> Plan:
    """``plan`` for an answer that is ``tokens`` long by itself, of which ``most`` are asked for."""
    if most is not None and tokens > most:
        return evolve(plan, tokens=most, reason="length")
    return evolve(plan, tokens=tokens, reason="stop")


def gap_s(plan: Plan) -> float:
    """Seconds from one token to the next."""
    itl = plan.itl
    return itl.mean if itl.shape == "constant" else draw(itl, plan.random)


def _drawn(faults: tuple[Fault, ...], random: Random) -> Fault | None:
    if not faults:
        return None
    at = random.random()
    for fault in faults:
        at -= fault.share
        if at < 0:
            return fault
    return None


def _slowness(rules: Rules, age_s: float) -> float:
    slow = rules.settings.slow_start
    if slow is None or age_s >= rules.slow_s:
        return 1.0
    return 1 + (slow.factor - 1) * (1 - age_s / rules.slow_s)


def _override(plan: Plan, headers: Mapping[bytes, bytes]) -> Plan:
    ttft, itl = headers.get(b"x-mock-ttft-ms"), headers.get(b"x-mock-itl-ms")
    tokens, fault = headers.get(b"x-mock-tokens"), headers.get(b"x-mock-fault")
    if ttft is not None:
        plan = evolve(plan, ttft_s=_number("x-mock-ttft-ms", ttft) / 1000)
    if itl is not None:
        plan = evolve(plan, itl=Amount(mean=_number("x-mock-itl-ms", itl) / 1000))
    if tokens is not None:
        plan = evolve(plan, tokens=max(1, int(_number("x-mock-tokens", tokens))))
    if fault is not None:
        said = fault.decode("latin-1").strip()
        plan = evolve(plan, fault=None if said == "none" else read_fault(said, share=1.0))
    return plan


def _number(name: str, value: bytes) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise LLMInvalidRequestError(
            f"header {name} is {value.decode('latin-1')!r}; a number from 0 up is expected",
            param=name,
        )
    return number
