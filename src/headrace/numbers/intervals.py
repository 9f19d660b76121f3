"""Confidence intervals of percentiles that assume nothing of the distribution.

The number of samples below the true percentile ``p`` is binomial (n, p), whatever the law; so two
order statistics enclose it with a probability that is known beforehand. H. A. David and
H. N. Nagaraja, "Order Statistics", 3rd ed. (2003), section 7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from headrace.numbers.binomial import at_most


@lru_cache(maxsize=4096)
def rank_bounds(n: int, p: float, confidence: float = 0.95) -> tuple[int | None, int | None]:
    """The ranks (from 0, in ascending order) of the samples that enclose percentile ``p``.

    Each side misses with a probability of at most (1 - confidence) / 2; a side that no sample bounds
    is None. P(x[r] > q_p) = P(at most r samples lie at or below q_p) = P(Bin(n, p) <= r).
    """
    if not 0 < p < 1:
        raise ValueError(f"p is {p}; a percentile is a fraction between 0 and 1 (p99 is 0.99)")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it is a fraction between 0 and 1")
    tail = (1 - confidence) / 2
    # The lower bound x[r] may lie above the percentile with at most ``tail``.
    low = _largest(n, lambda r: at_most(r, n, p) <= tail)
    # The upper bound x[r] lies below it when more than r samples do: 1 - P(Bin <= r).
    high = _smallest(n, lambda r: at_most(n - r - 1, n, 1 - p) <= tail)
    return low, high


def percentile_interval(
    ordered: Sequence[float], p: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The two samples of ``ordered`` (ascending) that enclose percentile ``p``; None if either lacks."""
    if not ordered:
        return None
    low, high = rank_bounds(len(ordered), p, confidence)
    if low is None or high is None:
        return None
    return ordered[low], ordered[high]


def _largest(n: int, holds: Callable[[int], bool]) -> int | None:
    """The largest r from 0 to n - 1 for which ``holds``, which holds up to some r only."""
    if not n or not holds(0):
        return None
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _smallest(n: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest r from 0 to n - 1 for which ``holds``, which holds from some r on only."""
    if not n or not holds(n - 1):
        return None
    low, high = -1, n - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
