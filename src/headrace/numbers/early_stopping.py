"""When a run is long enough to say that a percentile holds: MLPerf's rule of early stopping.

A query misses when it is later than the limit. The promise "percentile p is below the limit" says
that the chance of a miss is at most 1 - p. Of n queries with t misses it is kept, with confidence c,
where so few misses would come with a probability of at most 1 - c if the chance were just 1 - p:
P(Bin(n, 1 - p) <= t) <= 1 - c. MLCommons, "MLPerf Inference: early stopping" (2021),
https://github.com/mlcommons/inference/blob/master/docs/early_stopping ; at p99 and 99% confidence:
0 misses need 459 queries, 1 662, 2 838, 5 1307, 10 2010, 20 3304.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from headrace.numbers.binomial import at_most

CONFIDENCE = 0.99


@lru_cache(maxsize=4096)
def queries_needed(misses: int, p: float = 0.99, confidence: float = CONFIDENCE) -> int:
    """The fewest queries of which ``misses`` may miss while percentile ``p`` is known to hold."""
    if misses < 0:
        raise ValueError(f"misses is {misses}; a number from 0 up is expected")
    if not 0 < p < 1 or not 0 < confidence < 1:
        raise ValueError(f"p is {p} and confidence {confidence}; both are between 0 and 1")
    low, high = misses, max(1, 2 * misses, math.ceil((misses + 1) / (1 - p)))
    while at_most(misses, high, 1 - p) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if at_most(misses, middle, 1 - p) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def decide(
    n: int, misses: int, p: float = 0.99, confidence: float = CONFIDENCE
) -> Literal["kept", "broken"] | None:
    """What ``misses`` of ``n`` queries say of percentile ``p``, or None while they say nothing yet.

    Broken, with the same confidence, where so many misses would come with a probability of at most
    1 - confidence if the chance of one were just 1 - p: P(Bin(n, 1 - p) >= misses).
    """
    if misses > n:
        raise ValueError(f"{misses} of {n} cannot have missed")
    if at_most(misses, n, 1 - p) <= 1 - confidence and n > 0:
        return "kept"
    if misses and at_most(n - misses, n, p) <= 1 - confidence:
        return "broken"
    return None
