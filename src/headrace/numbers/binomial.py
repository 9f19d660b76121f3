"""The binomial law, exactly enough for tails of any size, without scipy."""

from __future__ import annotations

import math


def log_probability(k: int, n: int, p: float) -> float:
    """ln P(X = k) of n trials that each hit with probability ``p``."""
    if p <= 0.0:
        return 0.0 if k == 0 else -math.inf
    if p >= 1.0:
        return 0.0 if k == n else -math.inf
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) of n trials that each hit with probability ``p``.

    The shorter side is summed from its largest term outwards, by the ratio of neighbours.
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    if k > n * p:
        return 1.0 - at_most(n - k - 1, n, 1.0 - p)
    term = math.exp(log_probability(k, n, p))
    total, i = term, k
    while i > 0 and term > total * 1e-17:
        term *= i * (1.0 - p) / ((n - i + 1) * p)
        total += term
        i -= 1
    return min(1.0, total)
