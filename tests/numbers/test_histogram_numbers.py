"""Distributions: their error, their merging and their bounds in memory."""

import json
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.numbers.histogram import ACCURACY, FINE, FixedBuckets, LogHistogram

VALUES = st.floats(1e-9, 1e9)
MANY = st.lists(st.just(0.0) | VALUES, min_size=1, max_size=60)
BOUNDS = (0.1, 1.0, 2.5, 10.0)


def counted(values):
    h = LogHistogram()
    for value in values:
        h.add(value)
    return h


@given(MANY, st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_the_sample_at_its_rank(values, q):
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    assert counted(values).quantile(q) == pytest.approx(exact, rel=ACCURACY * (1 + 1e-6))


@given(st.integers(0, 2**32), st.floats(0.5, 50.0), st.floats(0.001, 0.5))
@settings(max_examples=10, deadline=None)
def test_the_gaps_of_ten_thousand_tokens_are_told_within_a_tenth_of_a_percent(seed, middle, spread):
    random = Random(seed)
    gaps = sorted(middle * random.lognormvariate(0.0, spread) for _ in range(10_000))
    h = LogHistogram(FINE)
    h.add_all(gaps)
    for q in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert h.quantile(q) == pytest.approx(gaps[math.floor(q * 9999)], rel=FINE * (1 + 1e-6))
    assert LogHistogram.from_plain(json.loads(json.dumps(h.to_plain()))).to_plain() == h.to_plain()


def test_a_gap_of_ten_milliseconds_is_told_as_ten():
    h = LogHistogram(FINE)
    h.add_all([9.0] + [10.0] * 9998 + [11.0])
    assert h.quantile(0.5) == pytest.approx(10.0, abs=0.01)


def test_histograms_of_two_accuracies_do_not_add_up():
    with pytest.raises(ValueError, match=r"accuracy 0\.001 cannot be merged into one of 0\.01"):
        LogHistogram().merge(LogHistogram(FINE))


@given(MANY)
def test_count_sum_and_extremes_are_exact(values):
    h = counted(values)
    assert (h.count, h.minimum, h.maximum) == (len(values), min(values), max(values))
    assert h.total == pytest.approx(math.fsum(values))
    assert h.mean() == pytest.approx(math.fsum(values) / len(values))


@given(st.lists(MANY, max_size=4))
def test_merging_is_counting_together(parts):
    merged = LogHistogram()
    for part in parts:
        merged.merge(counted(part))
    together = counted([v for part in parts for v in part])
    a, b = merged.to_plain(), together.to_plain()
    assert a.pop("total") == pytest.approx(b.pop("total"))
    assert a == b


@given(st.lists(VALUES, max_size=20))
def test_a_histogram_comes_back_from_json_as_it_was(values):
    plain = counted(values).to_plain()
    assert LogHistogram.from_plain(json.loads(json.dumps(plain))).to_plain() == plain


@pytest.mark.parametrize(
    "change",
    [{"accuracy": 0.02}, {"count": 3}, {"zeros": -1}, {"buckets": {"99999": 1}}, {"total": "1"}],
)
def test_a_histogram_that_contradicts_itself_is_refused(change):
    with pytest.raises(ValueError, match="histogram"):
        LogHistogram.from_plain({**counted([1.0]).to_plain(), **change})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_length_of_time_is_refused(value):
    with pytest.raises(ValueError, match="finite value"):
        LogHistogram().add(value)


def test_an_empty_histogram_has_no_quantile():
    assert LogHistogram().quantiles((0.5, 0.99)) == [None, None]
    assert LogHistogram().mean() is None


def test_memory_is_bounded_over_all_magnitudes():
    h = counted(10 ** (e / 100) for e in range(-3000, 3000))
    assert len(h.buckets) <= 2075
    assert h.quantile(1) == h.maximum or h.quantile(1) >= 1e9 * (1 - ACCURACY)


@given(st.lists(st.sampled_from((*BOUNDS, 0.0)) | st.floats(0, 20), max_size=40))
def test_fixed_buckets_count_exactly_and_include_their_bound(values):
    buckets = FixedBuckets(BOUNDS)
    for value in values:
        buckets.add(value)
    some = BOUNDS[1:3]
    assert buckets.cumulative(some) == [sum(v <= b for v in values) for b in some]
    assert buckets.count == len(values)


def test_fixed_buckets_of_other_bounds_are_not_merged():
    with pytest.raises(ValueError, match="cannot be merged"):
        FixedBuckets(BOUNDS).merge(FixedBuckets((1.0,)))
