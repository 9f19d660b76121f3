"""When the requests of an open loop are meant to be sent.

A schedule is made ahead of the server and knows nothing of it: that is what makes the loop open.
It is reproducible by its seed and never held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from math import isfinite, sqrt
from random import Random
from typing import TypeVar

from headrace.contracts.load import (
    Arrivals,
    Bursts,
    Closed,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    Replay,
    Steps,
)

T = TypeVar("T")


def schedule(  # noqa: PLR0911 - one for each kind of arrivals
    arrivals: Arrivals, seed: int
) -> Iterator[float]:
    """The instants at which to send: seconds from the start, ascending; endless but for two.

    Steps end with the last step, and a replay with its trace. Raises ValueError for what cannot be
    a schedule: a closed loop, whose requests wait for answers, or a rate that is not above 0.
    """
    # A seed of its own, so that the workload, seeded alike, does not draw the same numbers.
    random = Random(f"arrivals {seed}")
    match arrivals:
        case Closed():
            raise ValueError(
                "closed arrivals have no schedule: each request waits for an answer; give a rate"
            )
        case Constant(rate=rate):
            return _constant(_above_0("rate", rate))
        case Poisson(rate=rate):
            return _poisson(_above_0("rate", rate), random)
        case Gamma(rate=rate, burstiness=shape):
            return _gamma(_above_0("rate", rate), _above_0("burstiness", shape), random)
        case Bursts(size=size, every_s=every_s):
            if size < 1:
                raise ValueError(f"size must be 1 or more, and is {size}")
            return _bursts(size, _above_0("every_s", every_s))
        case Ramp():
            return _ramp(arrivals, random)
        case Steps():
            return _steps(arrivals, random)
        case Replay():
            # The reader of traces is needed for no other schedule.
            from headrace.bench.load.traces import rows

            return (row.at_s for row in rows(arrivals))


def share(whole: Iterable[T], part: int, parts: int) -> Iterator[T]:
    """What the ``part``-th of ``parts`` workers takes of a schedule: every ``parts``-th of it.

    Each worker makes the whole schedule from the same seed, which costs under a microsecond an
    arrival. So all of them together send exactly the one schedule, whatever its law is.
    """
    if not 0 <= part < parts:
        raise ValueError(f"part must be from 0 to {parts - 1}, and is {part}")
    return islice(whole, part, None, parts)


def _above_0(name: str, value: float) -> float:
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"{name} must be above 0, and is {value:g}")
    return value


def _constant(rate: float) -> Iterator[float]:
    # Divided, not added up: ten hours on, it is still exact.
    return (n / rate for n in count())


def _poisson(rate: float, random: Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += random.expovariate(rate)
        yield now


def _gamma(rate: float, shape: float, random: Random) -> Iterator[float]:
    # As vLLM's benchmark has it (get_request in vllm/benchmarks/serve.py): shape = burstiness and
    # scale = 1 / (rate * burstiness), so the mean gap is 1 / rate and its variation 1/sqrt(shape).
    scale = 1 / (rate * shape)
    now = 0.0
    while True:
        now += random.gammavariate(shape, scale)
        yield now


def _bursts(size: int, every_s: float) -> Iterator[float]:
    return (n * every_s for n in count() for _ in range(size))


def _ramp(ramp: Ramp, random: Random) -> Iterator[float]:
    """Unit arrivals seen through the inverse of the integrated rate: exact for either spacing."""
    over_s = _above_0("over_s", ramp.over_s)
    for name, rate in (("begin", ramp.begin), ("end", ramp.end)):
        if not (rate >= 0 and isfinite(rate)):
            raise ValueError(f"{name} must be 0 or above, and is {rate:g}")
    if ramp.begin == ramp.end == 0:
        raise ValueError("begin and end are both 0: such a ramp sends nothing; give a rate")
    return _through_ramp(ramp.begin, ramp.end, over_s, _units(ramp.poisson, random))


def _through_ramp(
    begin: float, end: float, over_s: float, units: Iterator[float]
) -> Iterator[float]:
    during = (begin + end) / 2 * over_s
    slope = (end - begin) / over_s
    for unit in units:
        if unit < during:
            # begin t + slope t^2 / 2 = unit, solved in the form that loses no digits and holds
            # for a slope of 0 too.
            root = sqrt(max(0.0, begin * begin + 2 * slope * unit))
            yield 2 * unit / (begin + root) if unit else 0.0
        elif end == 0:
            return  # it has come down to nothing, and stays there
        else:
            yield over_s + (unit - during) / end


def _steps(steps: Steps, random: Random) -> Iterator[float]:
    each_s = _above_0("each_s", steps.each_s)
    if not steps.rates:
        raise ValueError("rates is empty; give one rate or more")
    for place, rate in enumerate(steps.rates):
        if not (rate >= 0 and isfinite(rate)):
            raise ValueError(f"rates[{place}] must be 0 or above, and is {rate:g}")
    return _through_steps(steps.rates, each_s, _units(steps.poisson, random))


def _through_steps(
    rates: tuple[float, ...], each_s: float, units: Iterator[float]
) -> Iterator[float]:
    unit = next(units)
    before = 0.0
    for place, rate in enumerate(rates):
        after = before + rate * each_s
        while unit < after:
            # Rounding may not carry an arrival over the end of its step.
            yield min(place + (unit - before) / (rate * each_s), place + 1.0) * each_s
            unit = next(units)
        before = after


def _units(poisson: bool, random: Random) -> Iterator[float]:
    """Arrivals at a rate of 1, evenly spaced from 0 on or independent."""
    return _poisson(1.0, random) if poisson else map(float, count())
