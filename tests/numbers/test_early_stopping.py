"""How many queries a percentile needs, and the intervals around it, against computed values."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.numbers.binomial import at_most
from headrace.numbers.early_stopping import decide, queries_needed
from headrace.numbers.intervals import percentile_interval, rank_bounds


@pytest.mark.parametrize(
    ("misses", "queries"),
    [(0, 459), (1, 662), (2, 838), (5, 1307), (10, 2010), (20, 3304)],
)
def test_mlperfs_table_comes_out(misses: int, queries: int) -> None:
    assert queries_needed(misses, 0.99, 0.99) == queries
    assert decide(queries, misses) == "kept"
    assert decide(queries - 1, misses) is None


def exactly(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@given(n=st.integers(1, 60), k=st.integers(-1, 61), p=st.fractions(0, 1, max_denominator=40))
def test_the_binomial_law_agrees_with_exact_arithmetic(n: int, k: int, p: Fraction) -> None:
    exact = float(exactly(min(k, n), n, p)) if k >= 0 else 0.0
    assert at_most(k, n, float(p)) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_tails_of_many_trials_are_right_too() -> None:
    exact = float(exactly(980, 1000, Fraction(99, 100)))
    assert at_most(980, 1000, 0.99) == pytest.approx(exact, rel=1e-9)


@given(misses=st.integers(0, 30), p=st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_it_is_the_fewest_queries_that_do(misses: int, p: float) -> None:
    n = queries_needed(misses, p)
    assert at_most(misses, n, 1 - p) <= 0.01 < at_most(misses, n - 1, 1 - p)


def test_many_misses_are_a_broken_promise() -> None:
    assert decide(100, 50) == "broken"
    assert decide(100, 1) is None
    assert decide(0, 0) is None
    with pytest.raises(ValueError, match="cannot have missed"):
        decide(1, 2)


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_server_just_at_the_limit_is_rarely_let_through(share: float) -> None:
    chance, n = random.Random(3), queries_needed(5, 1 - share)
    kept = sum(
        decide(n, sum(chance.random() < share for _ in range(n)), 1 - share) == "kept"
        for _ in range(400)
    )
    assert kept <= 400 * 0.01 + 3 * math.sqrt(400 * 0.01 * 0.99)


@pytest.mark.parametrize(("n", "p"), [(60, 0.5), (120, 0.9), (400, 0.99), (900, 0.95)])
def test_intervals_of_percentiles_cover_as_often_as_they_say(n: int, p: float) -> None:
    chance, hits, runs = random.Random(11), 0, 500
    true = -math.log(1 - p)
    for _ in range(runs):
        found = percentile_interval(sorted(chance.expovariate(1) for _ in range(n)), p)
        if found is None:  # one-sided: n cannot bound it above
            continue
        hits += found[0] <= true <= found[1]
    low, high = rank_bounds(n, p)
    if low is None or high is None:
        pytest.skip("too few samples for this percentile")
    assert hits / runs >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_percentile_has_an_upper_bound_from_as_many_samples_as_the_books_say() -> None:
    assert rank_bounds(299, 0.99, 0.90)[1] == 298
    assert rank_bounds(298, 0.99, 0.90)[1] is None
    # Conover, "Practical Nonparametric Statistics", 3rd ed., table of the sign test: n = 10, median.
    assert rank_bounds(10, 0.5, 0.95) == (1, 8)
    assert percentile_interval([], 0.5) is None


@given(n=st.integers(1, 400), p=st.sampled_from([0.5, 0.75, 0.9, 0.99]))
def test_bounds_are_as_tight_as_their_confidence_allows(n: int, p: float) -> None:
    low, high = rank_bounds(n, p)
    if low is not None:
        assert at_most(low, n, p) <= 0.025 + 1e-12
        assert at_most(low + 1, n, p) > 0.025
    if high is not None:
        assert 1 - at_most(high, n, p) <= 0.025 + 1e-9
        assert high == 0 or 1 - at_most(high - 1, n, p) > 0.025 - 1e-9
