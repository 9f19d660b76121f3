"""Durations and token counts, constant or distributed, as they are written: ``normal:50ms,10ms``.

The forms, with X, A and B a duration (``50ms``, ``1.5s``) or a number of tokens:

- ``X``: always that.
- ``normal:X,A``: of mean X and standard deviation A.
- ``lognormal:X,S``: of mean X; the logarithm's standard deviation is the plain number S.
- ``uniform:A..B``: from A to B, all alike.
- ``exponential:X``: of mean X.

Nothing drawn is below zero (below one for tokens); the distribution is cut there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from random import Random
from typing import Literal, TypeAlias

from attrs import frozen

Shape: TypeAlias = Literal["constant", "normal", "lognormal", "uniform", "exponential"]

DURATIONS = "a duration such as 50ms, 1.5s, normal:50ms,10ms or uniform:20ms..80ms"
COUNTS = "a number of tokens such as 100, normal:100,20 or uniform:50..150"

_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(us|µs|ms|s|m)")
_FORM = re.compile(r"(?:(normal|lognormal|uniform|exponential):)?(.+)")


@frozen(kw_only=True)
class Amount:
    """A distribution: ``low`` and ``high`` are the ends of a uniform one, ``mean`` is the others'."""

    shape: Shape = "constant"
    mean: float = 0.0
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0


def read_duration(text: str) -> float:
    """The seconds that ``text`` says; ValueError where it is no duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        if text.strip() == "0":
            return 0.0
        raise ValueError(f"{text!r} is no duration; a number with us, ms, s or m is, such as 50ms")
    return float(found[1]) * _UNITS[found[2]]


def read_durations(text: str) -> Amount:
    """The distribution of seconds that ``text`` says; ValueError where it says none."""
    return _read(text, read_duration, DURATIONS)


def read_counts(text: str | int) -> Amount:
    """The distribution of token counts that ``text`` says; ValueError where it says none."""
    amount = _read(str(text), _count, COUNTS)
    if amount.shape != "uniform" and amount.mean < 1:
        raise ValueError(f"{text!r} is less than one token; {COUNTS} is expected")
    return amount


def draw(amount: Amount, random: Random) -> float:
    """One value of ``amount``, which is never negative."""
    match amount.shape:
        case "constant":
            return amount.mean
        case "normal":
            return max(0.0, random.gauss(amount.mean, amount.spread))
        case "lognormal":
            # The mean of a lognormal distribution is exp(mu + sigma^2 / 2).
            mu = math.log(amount.mean) - amount.spread**2 / 2
            return random.lognormvariate(mu, amount.spread)
        case "uniform":
            return random.uniform(amount.low, amount.high)
        case "exponential":
            return random.expovariate(1 / amount.mean) if amount.mean else 0.0


def draw_count(amount: Amount, random: Random) -> int:
    """One whole number of ``amount``, which is at least one."""
    if amount.shape == "uniform":
        return max(1, random.randint(round(amount.low), round(amount.high)))
    return max(1, round(draw(amount, random)))


def _read(text: str, single: Callable[[str], float], right: str) -> Amount:
    form = _FORM.fullmatch(text.strip())
    try:
        if form is None:
            raise ValueError("it is empty")
        shape, said = form.groups()
        match shape:
            case None:
                return Amount(mean=single(said))
            case "normal":
                mean, spread = _two(said, ",")
                return Amount(shape="normal", mean=single(mean), spread=single(spread))
            case "lognormal":
                mean, spread = _two(said, ",")
                if single(mean) <= 0:
                    raise ValueError("the mean of a lognormal distribution is above zero")
                return Amount(shape="lognormal", mean=single(mean), spread=_plain(spread))
            case "uniform":
                low, high = (single(each) for each in _two(said, ".."))
                if low > high:
                    raise ValueError("the first end is above the second")
                return Amount(shape="uniform", low=low, high=high)
            case _:
                return Amount(shape="exponential", mean=single(said))
    except ValueError as wrong:
        raise ValueError(f"{text!r}: {wrong}; {right} is expected") from wrong


def _two(text: str, between: str) -> tuple[str, str]:
    first, found, second = text.partition(between)
    if not found:
        raise ValueError(f"two values with {between!r} between them are missing")
    return first, second


def _plain(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text.strip()):
        raise ValueError(f"{text.strip()!r} is no number")
    return float(text)


def _count(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise ValueError(f"{text.strip()!r} is no whole number")
    return float(text)
