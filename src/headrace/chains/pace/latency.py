"""How long answers take, and so how long one may take until it is given up."""

from __future__ import annotations

from collections import deque

_SEEN = 512
_ENOUGH = 5
_TIMES = 5.0


class Latencies:
    """The last answers to one step.

    An answer is given up after ``_TIMES`` the time within which 99 of 100 came (all, of fewer), at
    least ``least_s``; after ``first_s`` while ``_ENOUGH`` have not been seen. A request whose answer
    was given up gets twice as long the next time: what is slow by nature comes through, and makes
    the others' time longer.
    """

    def __init__(self, *, least_s: float, first_s: float) -> None:
        self._least_s, self._first_s = least_s, first_s
        self._took_s: deque[float] = deque(maxlen=_SEEN)
        self.longest_s = first_s

    def add(self, took_s: float) -> None:
        """One more was answered."""
        self._took_s.append(took_s)

    def look(self) -> None:
        """Reckon ``longest_s`` anew."""
        seen = len(self._took_s)
        if seen < _ENOUGH:
            return
        usual_s = sorted(self._took_s)[max(0, int(0.99 * seen) - 1) if seen >= 100 else -1]
        self.longest_s = min(max(_TIMES * usual_s, self._least_s), self._first_s)
