"""Schedules have the law that they are named for: judged by computed values, with fixed seeds."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from itertools import islice, pairwise, takewhile
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.load.arrivals import schedule, share
from headrace.contracts.load import (
    Arrivals,
    Bursts,
    Closed,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    Steps,
)

MANY = 20_000
RATES = st.floats(0.01, 1000)
ALL: list[Arrivals] = [
    Constant(rate=7),
    Poisson(rate=7),
    Gamma(rate=7, burstiness=0.3),
    Bursts(size=5, every_s=0.5),
    Ramp(begin=0, end=40, over_s=10),
    Ramp(begin=40, end=1, over_s=10, poisson=False),
    Steps(rates=(5, 0, 50), each_s=20),
    Steps(rates=(5, 0, 50), each_s=20, poisson=False),
]


def gaps(arrivals: Arrivals, seed: int = 1) -> list[float]:
    times = [0.0, *islice(schedule(arrivals, seed), MANY)]
    return [after - before for before, after in pairwise(times)]


def kolmogorov(sample: list[float], cdf: Callable[[float], float]) -> float:
    """Sqrt(n) times the greatest distance to ``cdf``: above 1.95 with a chance of 1 in 1000."""
    ordered = sorted(sample)
    n = len(ordered)
    farthest = max(max((i + 1) / n - cdf(x), cdf(x) - i / n) for i, x in enumerate(ordered))
    return farthest * math.sqrt(n)


def gamma_cdf(shape: float, x: float) -> float:
    """The regularised lower incomplete gamma function, by its series."""
    if x <= 0:
        return 0.0
    term = total = 1 / shape
    n = shape
    while term > total * 1e-15:
        n += 1
        term *= x / n
        total += term
    return total * math.exp(-x + shape * math.log(x) - math.lgamma(shape))


@pytest.mark.parametrize("arrivals", ALL, ids=repr)
def test_a_schedule_ascends_and_its_seed_says_all_of_it(arrivals: Arrivals) -> None:
    first = list(islice(schedule(arrivals, 3), 2000))
    assert first == list(islice(schedule(arrivals, 3), 2000))
    assert first == sorted(first)
    assert first[0] >= 0


@pytest.mark.parametrize(
    "arrivals", [Poisson(rate=7), Gamma(rate=7), Ramp(begin=1, end=2, over_s=9)]
)
def test_another_seed_is_another_schedule(arrivals: Arrivals) -> None:
    assert next(schedule(arrivals, 1)) != next(schedule(arrivals, 2))


@given(rate=RATES, n=st.integers(0, 500))
def test_a_constant_rate_is_exact_however_long_it_goes_on(rate: float, n: int) -> None:
    assert next(islice(schedule(Constant(rate=rate), 0), n, None)) == n / rate


@pytest.mark.parametrize("rate", [0.5, 30.0])
def test_the_gaps_of_poisson_arrivals_are_exponential(rate: float) -> None:
    found = gaps(Poisson(rate=rate))
    # The mean of n gaps is off by 1/sqrt(n) of itself, their variance by sqrt(8/n).
    assert fmean(found) == pytest.approx(1 / rate, rel=4 / math.sqrt(MANY))
    assert pvariance(found) == pytest.approx(1 / rate**2, rel=4 * math.sqrt(8 / MANY))
    assert kolmogorov(found, lambda x: -math.expm1(-rate * x)) < 1.95


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_the_gaps_of_bursty_arrivals_are_gamma_of_that_shape_and_keep_the_rate(
    shape: float,
) -> None:
    found = gaps(Gamma(rate=20, burstiness=shape))
    assert fmean(found) == pytest.approx(1 / 20, rel=4 / math.sqrt(MANY * shape))
    # The variance of a sample's variance is (kurtosis - 1 + 2/n) / n, with kurtosis 3 + 6 / shape.
    off = math.sqrt((2 + 6 / shape) / MANY)
    assert pvariance(found) == pytest.approx(1 / 20**2 / shape, rel=4 * off)
    assert kolmogorov(found, lambda x: gamma_cdf(shape, x * 20 * shape)) < 1.95


@given(size=st.integers(1, 50), every_s=st.floats(0.01, 100))
def test_a_burst_starts_together_and_the_next_one_on_time(size: int, every_s: float) -> None:
    times = list(islice(schedule(Bursts(size=size, every_s=every_s), 0), 3 * size))
    assert times == [0.0] * size + [every_s] * size + [2 * every_s] * size


@given(
    begin=st.floats(0, 100),
    end=st.floats(0.5, 100),
    over_s=st.floats(1, 60),
    at=st.floats(0.05, 1.5),
)
def test_an_even_ramp_has_sent_the_integral_of_its_rate_at_every_instant(
    begin: float, end: float, over_s: float, at: float
) -> None:
    t = at * over_s
    inside = min(t, over_s)
    integral = begin * inside + (end - begin) * inside**2 / (2 * over_s) + end * (t - inside)
    sent = sum(
        1
        for _ in takewhile(
            lambda x: x < t, schedule(Ramp(begin=begin, end=end, over_s=over_s, poisson=False), 0)
        )
    )
    assert sent == pytest.approx(integral, abs=1.000001)


@pytest.mark.parametrize(("begin", "end"), [(0.0, 400.0), (400.0, 10.0), (50.0, 50.0)])
def test_a_poisson_ramp_is_one_once_time_is_stretched_by_its_rate(begin: float, end: float) -> None:
    over_s, slope = 100.0, (end - begin) / 100.0
    times = list(
        takewhile(lambda x: x < over_s, schedule(Ramp(begin=begin, end=end, over_s=over_s), 5))
    )
    expected = (begin + end) / 2 * over_s
    assert len(times) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    unit = [0.0, *(begin * t + slope * t * t / 2 for t in times)]
    stretched = [after - before for before, after in pairwise(unit)]
    assert kolmogorov(stretched, lambda x: -math.expm1(-x)) < 1.95


def test_a_ramp_keeps_its_last_rate_and_one_to_nothing_ends() -> None:
    up = islice(schedule(Ramp(begin=0, end=10, over_s=2, poisson=False), 0), 30)
    assert list(up)[10:13] == pytest.approx([2.0, 2.1, 2.2])
    down = list(schedule(Ramp(begin=10, end=0, over_s=2, poisson=False), 0))
    assert len(down) == 10
    assert down[-1] < 2.0


def test_even_steps_send_what_their_rates_say_and_then_end() -> None:
    times = list(schedule(Steps(rates=(2, 0, 4), each_s=2, poisson=False), 0))
    assert times == pytest.approx([0, 0.5, 1, 1.5, *(4 + n / 4 for n in range(8))])


@given(
    rates=st.lists(st.sampled_from([0.0, 5.0, 50.0]), min_size=1, max_size=5), seed=st.integers()
)
def test_a_step_without_a_rate_sends_nothing(rates: list[float], seed: int) -> None:
    for t in schedule(Steps(rates=tuple(rates), each_s=3.0), seed):
        assert rates[min(int(t / 3.0), len(rates) - 1)] > 0
        assert t <= 3.0 * len(rates)


@given(arrivals=st.sampled_from(ALL), parts=st.integers(1, 9), seed=st.integers(0, 100))
def test_the_workers_shares_are_together_the_one_schedule(
    arrivals: Arrivals, parts: int, seed: int
) -> None:
    whole = list(islice(schedule(arrivals, seed), 200))
    shares = [list(share(whole, part, parts)) for part in range(parts)]
    assert sorted(t for one in shares for t in one) == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("arrivals", "complaint"),
    [
        (Closed(), "closed"),
        (Constant(rate=0), "rate must be above 0, and is 0"),
        (Poisson(rate=-2), "rate must be above 0, and is -2"),
        (Poisson(rate=math.inf), "rate must be above 0"),
        (Gamma(rate=1, burstiness=0), "burstiness must be above 0"),
        (Bursts(size=0, every_s=1), "size must be 1 or more, and is 0"),
        (Bursts(size=1, every_s=0), "every_s must be above 0"),
        (Ramp(begin=-1, end=1, over_s=1), "begin must be 0 or above"),
        (Ramp(begin=0, end=0, over_s=1), "sends nothing"),
        (Ramp(begin=0, end=1, over_s=math.nan), "over_s must be above 0"),
        (Steps(rates=(), each_s=1), "rates is empty"),
        (Steps(rates=(1, -1), each_s=1), r"rates\[1\] must be 0 or above"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_before_the_first_request(
    arrivals: Arrivals, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        schedule(arrivals, 0)


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="part must be from 0 to 1, and is 2"):
        share([1.0], 2, 2)


@pytest.mark.parametrize("arrivals", ALL[:6], ids=repr)
def test_a_long_schedule_holds_no_more_memory_than_a_short_one(arrivals: Arrivals) -> None:
    times = schedule(arrivals, 0)
    next(times)
    tracemalloc.start()
    try:
        for _ in islice(times, 50_000):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 50_000
