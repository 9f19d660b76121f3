"""Distributions in bounded memory: logarithmic buckets for quantiles, fixed ones for Prometheus.

Both merge without loss, so workers can count apart and be shown together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

ACCURACY = 0.01
"""Relative error of a quantile, a share of its value, where nothing finer is asked for."""

FINE = 0.001
"""For gaps between tokens: by 1% a true gap of 10.00 ms would be told as 10.08."""

SMALLEST = 1e-9
LARGEST = 1e9


class _Scale:
    """The buckets of one accuracy."""

    __slots__ = ("first", "gamma", "last", "per_ln")

    def __init__(self, accuracy: float) -> None:
        self.gamma = (1 + accuracy) / (1 - accuracy)
        self.per_ln = 1 / math.log(self.gamma)
        self.first = math.ceil(math.log(SMALLEST) * self.per_ln)
        self.last = math.ceil(math.log(LARGEST) * self.per_ln)


_SCALES = {accuracy: _Scale(accuracy) for accuracy in (ACCURACY, FINE)}


class LogHistogram:
    """Counts of non-negative values in buckets that widen with the value (as DDSketch's do).

    Bucket i holds the values in (g^(i-1), g^i] with g = (1 + a) / (1 - a) and a the ``accuracy``
    (``ACCURACY`` or ``FINE``), and stands for 2 g^i / (g + 1), which is within the share a of every
    value in it. So a quantile is within that share (and floating-point rounding) of the sample at
    rank floor(q * (n - 1)), for values from 1e-9 to 1e9. Smaller values count as zero; larger ones
    share the last bucket, where only the exact ``maximum`` is reliable. ``count``, ``total``,
    ``minimum`` and ``maximum`` are exact. At most 2,075 buckets exist (20,725 of the fine ones),
    whatever the number of values.
    """

    __slots__ = ("_scale", "accuracy", "buckets", "count", "maximum", "minimum", "total", "zeros")

    def __init__(self, accuracy: float = ACCURACY) -> None:
        self.accuracy = accuracy
        self._scale = _SCALES[accuracy]
        self.buckets: dict[int, int] = {}
        self.zeros = 0
        self.count = 0
        self.total = 0.0
        self.minimum: float | None = None
        self.maximum: float | None = None

    def add(self, value: float) -> None:
        """Count ``value``, which is finite and not negative (ValueError otherwise)."""
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{value} cannot be counted: a finite value from 0 up is expected")
        if value < SMALLEST:
            self.zeros += 1
        else:
            i = math.ceil(math.log(value) * self._scale.per_ln)
            i = min(i, self._scale.last)
            self.buckets[i] = self.buckets.get(i, 0) + 1
        self.count += 1
        self.total += value
        if self.minimum is None or value < self.minimum:
            self.minimum = value
        if self.maximum is None or value > self.maximum:
            self.maximum = value

    def add_all(self, values: Sequence[float]) -> None:
        """``add`` each of ``values``, at a third of the cost; all of them or, with ValueError, none."""
        if not values:
            return
        low, high, total = min(values), max(values), sum(values)
        # A NaN can hide from min and max, but not from the sum.
        if not (low >= 0.0 and high < math.inf and not math.isnan(total)):
            raise ValueError(
                f"{low} to {high} cannot be counted: finite values from 0 up are expected"
            )
        log, ceil, per_ln, buckets = math.log, math.ceil, self._scale.per_ln, self.buckets
        if low < SMALLEST:
            kept: Sequence[float] = [v for v in values if v >= SMALLEST]
            self.zeros += len(values) - len(kept)
        else:
            kept = values
        for v in kept:
            i = ceil(log(v) * per_ln)
            if i in buckets:
                buckets[i] += 1
            else:
                i = min(i, self._scale.last)
                buckets[i] = buckets.get(i, 0) + 1
        self.count += len(values)
        self.total += total
        if self.minimum is None or low < self.minimum:
            self.minimum = low
        if self.maximum is None or high > self.maximum:
            self.maximum = high

    def merge(self, other: LogHistogram) -> None:
        """Count here all that ``other``, which is of the same accuracy, counted."""
        if other.accuracy != self.accuracy:
            raise ValueError(
                f"a histogram of accuracy {other.accuracy} cannot be merged into one of {self.accuracy}"
            )
        for i, n in other.buckets.items():
            self.buckets[i] = self.buckets.get(i, 0) + n
        self.zeros += other.zeros
        self.count += other.count
        self.total += other.total
        if other.minimum is not None and (self.minimum is None or other.minimum < self.minimum):
            self.minimum = other.minimum
        if other.maximum is not None and (self.maximum is None or other.maximum > self.maximum):
            self.maximum = other.maximum

    def mean(self) -> float | None:
        """total / count; ``None`` when empty."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The value below which the share ``q`` of the values lies; ``None`` when empty."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> list[float | None]:
        """``quantile`` of each of ``qs``, in one pass over the buckets."""
        for q in qs:
            if not 0 <= q <= 1:
                raise ValueError(f"q is {q}; a quantile is a fraction from 0 to 1")
        if self.minimum is None or self.maximum is None:
            return [None] * len(qs)
        found: list[float | None] = [None] * len(qs)
        steps = iter(sorted(self.buckets.items()))
        gamma = self._scale.gamma
        reached, value = self.zeros, 0.0
        for at, q in sorted(enumerate(qs), key=lambda pair: pair[1]):
            rank = math.floor(q * (self.count - 1))
            while reached <= rank:
                i, n = next(steps)
                reached += n
                value = 2 * gamma**i / (gamma + 1)
            found[at] = min(max(value, self.minimum), self.maximum)
        return found

    def values(self) -> Iterator[tuple[float, int]]:
        """The value that each bucket stands for and how many it holds, in ascending order."""
        gamma = self._scale.gamma
        if self.zeros:
            yield 0.0, self.zeros
        for i, n in sorted(self.buckets.items()):
            yield 2 * gamma**i / (gamma + 1), n

    def to_plain(self) -> dict[str, object]:
        """All of it in values that JSON knows."""
        return {
            "accuracy": self.accuracy,
            "zeros": self.zeros,
            "count": self.count,
            "total": self.total,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "buckets": {str(i): n for i, n in sorted(self.buckets.items())},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> LogHistogram:
        """What ``to_plain`` wrote; ValueError where it is something else."""
        accuracy = plain.get("accuracy")
        if not isinstance(accuracy, float) or accuracy not in _SCALES:
            known = " and ".join(map(str, _SCALES))
            raise ValueError(f"histogram of accuracy {accuracy!r}; only {known} can be read")
        buckets = plain.get("buckets")
        if not isinstance(buckets, Mapping):
            raise ValueError(f"histogram buckets are {buckets!r}; an object of counts is expected")
        made = cls(accuracy)
        first, last = made._scale.first, made._scale.last
        for key, n in buckets.items():
            i = int(key)
            if not first <= i <= last:
                raise ValueError(f"histogram bucket {i} is outside {first} to {last}")
            made.buckets[i] = _whole(n, f"buckets.{i}")
        made.zeros = _whole(plain.get("zeros"), "zeros")
        made.count = _whole(plain.get("count"), "count")
        if made.count != made.zeros + sum(made.buckets.values()):
            raise ValueError(f"histogram count {made.count} is not the sum of its buckets")
        made.total = _real(plain.get("total"), "total")
        if made.count:
            made.minimum = _real(plain.get("minimum"), "minimum")
            made.maximum = _real(plain.get("maximum"), "maximum")
        return made


class FixedBuckets:
    """Exact counts of values up to each of ``bounds``, as Prometheus histograms have them.

    ``bounds`` ascend; a value equal to a bound is within it. ``counts[i]`` holds the values in
    (bounds[i-1], bounds[i]], and one more at the end those above every bound.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count ``value``."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: Sequence[float]) -> None:
        """Count each of ``values``."""
        counts, bounds = self.counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def merge(self, other: FixedBuckets) -> None:
        """Count here all that ``other``, which has the same bounds, counted."""
        if other.bounds != self.bounds:
            raise ValueError(f"bounds {other.bounds} cannot be merged into bounds {self.bounds}")
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """How many values are at most each of ``bounds``, which are some of ours."""
        running, up_to = 0, {}
        for bound, n in zip(self.bounds, self.counts, strict=False):
            running += n
            up_to[bound] = running
        return [up_to[bound] for bound in bounds]


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"histogram {name} is {value!r}; a whole number from 0 up is expected")
    return value


def _real(value: object, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"histogram {name} is {value!r}; a number is expected")
    return float(value)
