"""Statistics of plain samples, and how many samples a percentile needs before it may be told.

A percentile is named by its fraction: p99 is ``0.99``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(samples: Sequence[float]) -> float | None:
    """Sum / count, summed without loss; ``None`` of no samples."""
    return math.fsum(samples) / len(samples) if samples else None


def sample_std(samples: Sequence[float]) -> float | None:
    """Standard deviation of a sample: sqrt(sum((x - mean)^2) / (n - 1)); ``None`` below two."""
    middle = mean(samples)
    if middle is None or len(samples) < 2:
        return None
    return math.sqrt(math.fsum((x - middle) ** 2 for x in samples) / (len(samples) - 1))


def percentile(samples: Sequence[float], p: float) -> float | None:
    """The value at rank p * (n - 1) of the sorted samples, linear between neighbours.

    ``None`` of no samples. The same definition as numpy's default (Hyndman and Fan, type 7).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; a percentile is a fraction from 0 to 1 (p99 is 0.99)")
    if not samples:
        return None
    ordered = sorted(samples)
    rank = p * (len(ordered) - 1)
    below = math.floor(rank)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    # Equal neighbours are returned as they are: the interpolation could round beyond them.
    return low if low == high else low + (high - low) * (rank - below)


def percentile_needs(p: float, confidence: float = 0.95) -> int:
    """How many samples there must be before percentile ``p`` has an upper bound at all.

    The largest of n samples lies above the true percentile with probability 1 - p^n; the smallest
    n with 1 - p^n >= confidence is ceil(ln(1 - confidence) / ln(p)). At 95%: p50 5, p90 29,
    p95 59, p99 299, p99.9 2995.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}; a percentile that samples can bound is from 0 to below 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it is a fraction between 0 and 1")
    if p == 0:
        return 1
    # From just below the quotient upwards, since the quotient itself is rounded.
    n = max(1, math.floor(math.log(1 - confidence) / math.log(p)) - 1)
    while p**n > 1 - confidence:
        n += 1
    return n


def supported_percentile(
    samples: Sequence[float], p: float, confidence: float = 0.95
) -> float | None:
    """``percentile``, or ``None`` where there are fewer samples than ``percentile_needs``."""
    if len(samples) < percentile_needs(p, confidence):
        return None
    return percentile(samples, p)
