"""Intervals of ratios: how often they cover the truth, where neighbours are alike too."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.numbers.bootstrap import (
    block_length,
    mean_of,
    quantile_of,
    ratio_interval,
    resampled,
)


def alike(n: int, phi: float, mean_log: float, chance: np.random.Generator) -> np.ndarray:
    """Lognormal values whose logarithms are an AR(1) series of coefficient ``phi``."""
    noise = chance.normal(0, 0.3 * math.sqrt(1 - phi**2), n + 100)
    x = np.empty(n + 100)
    x[0] = noise[0]
    for i in range(1, n + 100):
        x[i] = phi * x[i - 1] + noise[i]
    return np.exp(mean_log + x[100:])


@pytest.mark.parametrize(
    ("phi", "p", "least"), [(0.0, 0.5, 0.89), (0.0, 0.95, 0.88), (0.5, 0.5, 0.88), (0.8, 0.5, 0.84)]
)
def test_an_interval_covers_the_true_ratio_about_as_often_as_it_says(
    phi: float, p: float, least: float
) -> None:
    chance, hits, runs = np.random.default_rng(5), 0, 120
    for run in range(runs):
        a = alike(500, phi, 4.0, chance)
        b = alike(500, phi, 4.0 + math.log(1.1), chance)
        of = quantile_of(p)
        found = ratio_interval(
            resampled([a], of, seed=run, resamples=200),
            resampled([b], of, seed=10_000 + run, resamples=200),
            ratio=float(of(b[None])[0] / of(a[None])[0]),
            confidence=0.95,
        )
        assert found is not None
        hits += found[0] <= 1.1 <= found[1]
    assert hits / runs >= least


def test_single_draws_would_be_too_sure_where_neighbours_are_alike() -> None:
    chance = np.random.default_rng(2)
    a = alike(2000, 0.9, 4.0, chance)
    blocks = resampled([a], mean_of, seed=1, resamples=400).std()
    single = a.std() / math.sqrt(len(a))
    assert blocks > 2 * single


def test_blocks_are_single_where_values_are_independent_and_long_where_they_are_not() -> None:
    chance = np.random.default_rng(8)
    assert block_length(chance.normal(size=2000)) <= 3
    assert block_length(alike(2000, 0.9, 0.0, chance)) >= 10
    assert block_length([1.0] * 100) == 1
    assert block_length([1.0, 2.0]) == 1


def test_quantiles_are_numpys() -> None:
    rows = np.random.default_rng(1).exponential(size=(5, 77))
    for p in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert quantile_of(p)(rows) == pytest.approx(np.quantile(rows, p, axis=1))


def test_the_same_seed_gives_the_same_resamples() -> None:
    a = np.random.default_rng(1).exponential(size=300)
    one = resampled([a[:100], a[100:]], mean_of, seed=3, resamples=50)
    assert (one == resampled([a[:100], a[100:]], mean_of, seed=3, resamples=50)).all()
    assert not (one == resampled([a[:100], a[100:]], mean_of, seed=4, resamples=50)).all()


def test_what_differs_from_stretch_to_stretch_is_in_the_interval() -> None:
    # Each stretch is constant, so that nothing but the stretches themselves can vary.
    found = resampled([[1.0] * 50, [3.0] * 50], mean_of, seed=1, resamples=200)
    assert set(found) == {1.0, 2.0, 3.0}


def test_stretches_of_a_wandering_server_are_seldom_called_different() -> None:
    chance, wrong, runs = np.random.default_rng(6), 0, 60

    def stretches() -> list[np.ndarray]:
        return [alike(60, 0.3, 4.0 + chance.normal(0, 0.1), chance) for _ in range(8)]

    of = quantile_of(0.5)
    for run in range(runs):
        a, b = stretches(), stretches()
        found = ratio_interval(
            resampled(a, of, seed=run, resamples=200),
            resampled(b, of, seed=999 + run, resamples=200),
            ratio=float(of(np.concatenate(b)[None])[0] / of(np.concatenate(a)[None])[0]),
            confidence=0.95,
        )
        assert found is not None
        wrong += not found[0] <= 1.0 <= found[1]
    # Eight stretches: the interval is a little too narrow, as a bootstrap of eight values is.
    assert wrong / runs <= 0.2


def test_zeros_have_no_ratio() -> None:
    none = np.zeros(100)
    some = np.ones(100)
    assert ratio_interval(none, some, ratio=0.0, confidence=0.95) is None
