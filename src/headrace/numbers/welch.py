"""How sure a mean is and how far two lie apart, told from few samples (Student, Biometrika 6, 1908;
Welch, Biometrika 34, 1947)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.numbers.stats import mean, sample_std

# Student's t, two-sided 95%, for 1 to 30 degrees of freedom; beyond them the normal's 1.96 is near.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def ratio_of_means(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float] | None:
    """mean(b) / mean(a) with its 95% interval; None below two samples of each, or of no time.

    The interval is exp(ln ratio -+ t * se), se^2 = (std_a / mean_a)^2 / n_a + (std_b / mean_b)^2 / n_b,
    t by Welch's degrees of freedom, rounded down.
    """
    mean_a, mean_b, std_a, std_b = mean(a), mean(b), sample_std(a), sample_std(b)
    if mean_a is None or mean_b is None or std_a is None or std_b is None:
        return None
    if mean_a <= 0 or mean_b <= 0:
        return None
    ratio = mean_b / mean_a
    part_a, part_b = (std_a / mean_a) ** 2 / len(a), (std_b / mean_b) ** 2 / len(b)
    if part_a + part_b == 0:
        return ratio, ratio, ratio
    freedom = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    # Rounded down is the wider interval; a hair below a whole number is that number.
    degrees = max(1, math.floor(freedom + 1e-9))
    width = _t95(degrees) * math.sqrt(part_a + part_b)
    return ratio, ratio * math.exp(-width), ratio * math.exp(width)


def half_width(samples: Sequence[float]) -> float | None:
    """Half of the 95% interval of the mean, as a share of the mean: t * std / (sqrt(n) * mean).

    None below two samples, or of no time.
    """
    middle, std = mean(samples), sample_std(samples)
    if middle is None or std is None or middle <= 0:
        return None
    return _t95(len(samples) - 1) * std / math.sqrt(len(samples)) / middle


def _t95(degrees: int) -> float:
    return _T95[degrees - 1] if degrees <= len(_T95) else 1.96
