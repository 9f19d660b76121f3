"""The distribution of the last values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.numbers.lately import Lately


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=200), st.integers(1, 30))
def test_it_speaks_of_the_last_values_at_least_so_many_and_at_most_twice(values, kept):
    lately = Lately(kept)
    for n, value in enumerate(values, 1):
        lately.add(value)
        assert min(n, kept) <= lately.count <= 2 * kept
    last = sorted(values[-lately.count :])
    assert last[0] * 0.99 <= (lately.quantile(0.0) or 0) <= last[-1] * 1.01


def test_a_quantile_is_that_of_no_more_than_sixteen_values_ago():
    lately = Lately(50)
    for _ in range(100):
        lately.add(1.0)
    assert lately.quantile(0.95) == 1.0
    for _ in range(16):
        lately.add(9.0)
    assert lately.quantile(0.95) == pytest.approx(9.0, rel=0.01)
    for _ in range(84):
        lately.add(9.0)
    assert lately.quantile(0.0) == pytest.approx(9.0, rel=0.01)


def test_nothing_is_known_of_nothing():
    assert Lately(5).quantile(0.5) is None
    with pytest.raises(ValueError, match="kept is 0"):
        Lately(0)
