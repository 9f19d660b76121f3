"""The distribution of what was seen lately: old values go as new ones come, and no clock is read."""

from __future__ import annotations

from headrace.numbers.histogram import LogHistogram

# A quantile walks over every bucket, so it is told again for so many new values only.
_REFRESH = 16


class Lately:
    """Counts of the last ``kept`` to twice ``kept`` values, in the buckets of a LogHistogram.

    They are kept in two halves; when the newer one is full, it becomes the older one.
    """

    def __init__(self, kept: int) -> None:
        if kept < 1:
            raise ValueError(f"kept is {kept}, must be at least 1")
        self._kept = kept
        self._older, self._newer = LogHistogram(), LogHistogram()
        self._told: dict[float, float | None] = {}
        self._since_told = 0

    @property
    def count(self) -> int:
        """How many values it speaks of."""
        return self._older.count + self._newer.count

    def add(self, value: float) -> None:
        """Count ``value``, which is finite and not negative."""
        if self._newer.count >= self._kept:
            self._older, self._newer = self._newer, LogHistogram()
        self._newer.add(value)
        self._since_told += 1
        if self._since_told >= _REFRESH or self.count <= _REFRESH:
            self._told.clear()
            self._since_told = 0

    def quantile(self, q: float) -> float | None:
        """The value below which the share ``q`` of them lies, of fewer than 16 values ago; ``None``
        when empty."""
        if q not in self._told:
            both = LogHistogram()
            both.merge(self._older)
            both.merge(self._newer)
            self._told[q] = both.quantile(q)
        return self._told[q]
