"""How sure a mean is that comes of few samples."""

from __future__ import annotations

import random

import pytest

from headrace.numbers.welch import half_width


def test_the_interval_of_a_mean_is_students():
    # t of two degrees of freedom is 4.303; the std of these is 1, their mean 2.
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / 3**0.5 / 2)
    assert half_width([5.0, 5.0]) == 0


@pytest.mark.parametrize("samples", [[], [1.0], [0.0, 0.0], [-1.0, -2.0]])
def test_a_mean_without_a_spread_or_of_no_time_has_none(samples):
    assert half_width(samples) is None


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_it_holds_the_true_mean_nineteen_times_of_twenty(n):
    drawn = random.Random(n)
    held = 0
    for _ in range(4000):
        samples = [drawn.gauss(100, 3) for _ in range(n)]
        middle = sum(samples) / n
        width = half_width(samples)
        assert width is not None
        held += abs(middle - 100) <= width * middle
    assert 0.935 < held / 4000 < 0.965
