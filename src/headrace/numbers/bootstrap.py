"""Ratios of two runs, with intervals that know that neighbouring requests are alike.

Requests that follow one another share a queue, so a bootstrap of single requests gives intervals
that are too narrow. Here blocks of neighbours are drawn instead (the circular block bootstrap of
D. N. Politis and J. P. Romano, 1992), whose length follows from the autocorrelation (Politis and
White, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23, 2004,
with the correction by Patton, Politis and White, 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000

Statistic: TypeAlias = "Callable[[Floats], Floats]"
"""Of resamples in rows, one number for each row."""


def block_length(values: Sequence[float] | Floats) -> int:
    """How many neighbours are drawn together: 1 of independent values, at most a quarter of all."""
    import numpy as np

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 8 or float(x.var()) == 0.0:
        return 1
    centred = x - x.mean()
    # Heavy tails hide the autocorrelation that the queue makes; ranks show it.
    centred = np.argsort(np.argsort(centred, kind="stable"), kind="stable") - (n - 1) / 2
    most = min(n - 1, math.ceil(math.sqrt(n)) + max(5, math.ceil(math.sqrt(math.log10(n)))))
    covariance = np.array([float(centred[: n - k] @ centred[k:]) / n for k in range(most + 1)])
    correlation = covariance / covariance[0]
    quiet = max(5, math.ceil(math.sqrt(math.log10(n))))
    bound = 2 * math.sqrt(math.log10(n) / n)
    m: int = next(
        (
            k
            for k in range(most - quiet + 1)
            if np.all(abs(correlation[k + 1 : k + 1 + quiet]) < bound)
        ),
        most,
    )
    if m == 0:
        return 1
    reach = min(2 * m, most)
    lags = np.arange(1, reach + 1)
    # The flat-top window: 1 up to half of the reach, then falling to 0.
    window = np.clip(2 * (1 - lags / reach), 0.0, 1.0)
    tail = window * covariance[1 : reach + 1]
    g = 2 * float(np.sum(tail * lags))
    d = 4 / 3 * (float(covariance[0]) + 2 * float(np.sum(tail))) ** 2
    if g == 0 or d == 0:
        return 1
    length = float((2 * g * g / d) ** (1 / 3) * n ** (1 / 3))
    return max(1, min(math.ceil(length), n // 4 or 1))


def resampled(
    parts: Sequence[Sequence[float]], statistic: Statistic, *, seed: int, resamples: int = RESAMPLES
) -> Floats:
    """``statistic`` of ``resamples`` resamples of ``parts``, each drawn from itself in blocks.

    Parts are stretches of one run that do not follow one another in time. Where there are several
    they are drawn too, with replacement, before their values are: what differs from stretch to stretch
    of the same server is chance, of which the values within a stretch say nothing.
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    arrays = [np.asarray(part, dtype=float) for part in parts if len(part)]
    lengths = [block_length(part) for part in arrays]
    found = np.empty(resamples)
    if len(arrays) > 1:
        for row in range(resamples):
            chosen = chance.integers(0, len(arrays), size=len(arrays))
            drawn = [_drawn(arrays[i], lengths[i], 1, chance) for i in chosen]
            found[row] = statistic(np.concatenate(drawn, axis=1))[0]
        return found
    at_once = max(1, min(resamples, 4_000_000 // max(1, len(arrays[0]))))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        found[begin : begin + rows] = statistic(_drawn(arrays[0], lengths[0], rows, chance))
    return found


def _drawn(part: Floats, size: int, rows: int, chance: Any) -> Floats:
    import numpy as np

    n = len(part)
    starts = chance.integers(0, n, size=(rows, math.ceil(n / size)))
    index = (starts[:, :, None] + np.arange(size)) % n
    picked: Floats = part[index.reshape(rows, -1)[:, :n]]
    return picked


def ratio_interval(
    a: Floats, b: Floats, *, ratio: float, confidence: float
) -> tuple[float, float] | None:
    """The interval of B / A from resamples of each, by the percentiles of their ratio.

    Taken of its logarithm, so that A / B has the inverse one. ``ratio`` is that of the samples
    themselves. None where the resamples say nothing (zeros).
    """
    import numpy as np

    usable = (a > 0) & (b > 0)
    if usable.sum() < 0.95 * len(a) or ratio <= 0:
        return None
    logs = np.log(b[usable]) - np.log(a[usable])
    tail = (1 - confidence) / 2
    low, high = np.quantile(logs, (tail, 1 - tail))
    return float(math.exp(low)), float(math.exp(high))


def quantile_of(p: float) -> Statistic:
    """Percentile ``p`` of each row, linear between neighbours (type 7, as ``stats.percentile``)."""

    def of(rows: Floats) -> Floats:
        import numpy as np

        n = rows.shape[1]
        at = p * (n - 1)
        below = math.floor(at)
        above = min(below + 1, n - 1)
        parted = np.partition(rows, (below, above), axis=1)
        low, high = parted[:, below], parted[:, above]
        found: Floats = low + (high - low) * (at - below)
        return found

    return of


def mean_of(rows: Floats) -> Floats:
    """The mean of each row."""
    found: Floats = rows.mean(axis=1)
    return found
