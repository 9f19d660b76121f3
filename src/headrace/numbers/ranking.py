"""From the scores of documents to their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from headrace.contracts.ranking import RankedDocument


def ranked(scores: Sequence[float], top_n: int | None = None) -> tuple[RankedDocument, ...]:
    """The documents of those ``scores``, the highest first, at most ``top_n``.

    Of two with one score the earlier goes first.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return tuple(
        RankedDocument(index=index, relevance_score=scores[index]) for index in order[:top_n]
    )


def sigmoid(logit: float) -> float:
    """The probability that a logit means: 1 / (1 + e^-logit)."""
    if logit < 0:  # e^-logit could be larger than any float
        grown = math.exp(logit)
        return grown / (1 + grown)
    return 1 / (1 + math.exp(-logit))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors: their product over their lengths' product.

    A vector without length has no direction, so nothing is like it: 0.
    """
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(map(mul, one, other)) / lengths if lengths else 0.0
