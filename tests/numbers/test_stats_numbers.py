"""Statistics against numpy and the standard library."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.numbers.stats import (
    mean,
    percentile,
    percentile_needs,
    sample_std,
    supported_percentile,
)

VALUES = st.floats(-1e9, 1e9)
SAMPLES = st.lists(VALUES, min_size=1, max_size=50)


@given(SAMPLES)
def test_the_mean_is_that_of_the_standard_library(samples):
    assert mean(samples) == pytest.approx(statistics.fmean(samples), rel=1e-12, abs=1e-9)


@given(st.lists(VALUES, min_size=2, max_size=50))
def test_the_deviation_is_that_of_the_standard_library(samples):
    assert sample_std(samples) == pytest.approx(statistics.stdev(samples), rel=1e-9, abs=1e-6)


@given(SAMPLES, st.floats(0, 1))
def test_a_percentile_is_that_of_numpy(samples, p):
    assert percentile(samples, p) == pytest.approx(np.quantile(samples, p), rel=1e-9, abs=1e-6)


def test_no_samples_have_no_statistics():
    assert (mean([]), sample_std([]), percentile([], 0.5)) == (None, None, None)
    assert sample_std([1.0]) is None


@pytest.mark.parametrize(
    ("p", "needs"), [(0, 1), (0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)]
)
def test_a_percentile_needs_as_many_samples_as_bound_it(p, needs):
    assert percentile_needs(p) == needs


@given(st.floats(0.01, 0.999), st.floats(0.01, 0.999))
def test_the_needed_number_is_the_smallest_that_gives_the_confidence(p, confidence):
    n = percentile_needs(p, confidence)
    assert p**n <= 1 - confidence
    assert n == 1 or p ** (n - 1) > 1 - confidence


def test_a_percentile_is_refused_one_sample_too_early():
    samples = [float(i) for i in range(299)]
    assert supported_percentile(samples[:298], 0.99) is None
    assert supported_percentile(samples, 0.99) == percentile(samples, 0.99) is not None


@pytest.mark.parametrize("p", [-0.1, 1.1, 99])
def test_a_percentile_in_hundredths_is_refused(p):
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0], p)


def test_the_largest_possible_value_can_never_be_bounded():
    with pytest.raises(ValueError, match="below 1"):
        percentile_needs(1.0)
