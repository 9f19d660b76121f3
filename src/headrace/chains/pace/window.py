"""How many requests may be under way at an engine: found out by asking it.

The window is judged once for each time that it was filled and answered, by requests that were sent
since it last changed; so one burst of refusals is one reason, not many.

- Refusals take from it in proportion to their share of late, as DCTCP has it (RFC 8257): a full
  halving where all were refused, next to nothing where few were. Classic AIMD (TCP Reno) halves for
  any, and against a server that refuses one request in twenty, whatever the load, it would send a
  tenth of what is served.
- Answers that take much longer than they used to take from it as well: by as much as they took
  longer, as Netflix's concurrency-limits has it (Gradient2), down to a quarter of ``most``. Batching
  engines are slower the more they do at once and get more done by it, so latency is compared with
  what was usual lately, and never takes all.
- A window without either doubles. It is at its full size again within a few answers of an
  engine that is well again; what an overshoot costs is little, since so much is taken.
"""

from __future__ import annotations

FIRST = 16
"""What is asked at once before anything is known."""
_FEW_REFUSALS = 0.1
_GROWTH = 2.0
_STEADY = 1 / 16
"""Of ``most``, gained in every round: where few are served it settles instead of ending at one."""
_USUAL_RISE = 2.0
_SMALL_RISE_S = 0.25
"""A busy machine of ours may add so much."""
_LEAST_BY_LATENCY = 0.25
_LONG_MEMORY = 500
_LATE = 1 / 32


class Window:
    """At most ``most``; ``size`` is what it is now."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = float(min(FIRST, most))
        self.size = int(self._size)
        self._since = 0.0
        self._answers = self._refusals = 0
        self._share = 0.0
        self._took_s = self._usual_took_s = 0.0
        self._usual_s: dict[str, tuple[float, int]] = {}

    def answered(self, kind: str, sent: float, now: float) -> None:
        """A request of ``kind`` was answered; what is usual is another thing for each kind."""
        took_s = now - sent
        usual_s, seen = self._usual_s.get(kind, (took_s, 0))
        seen = min(seen + 1, _LONG_MEMORY)
        self._usual_s[kind] = usual_s + (took_s - usual_s) / seen, seen
        if sent < self._since:
            return
        self._answers += 1
        self._share -= self._share * _LATE
        self._took_s += took_s
        self._usual_took_s += usual_s
        if self._answers + self._refusals >= self.size:
            self._judge(now)

    def refused(self, sent: float, now: float) -> None:
        """A request was refused for want of room, or cut after it had waited too long."""
        if sent < self._since:
            return
        self._refusals += 1
        self._share += (1 - self._share) * _LATE
        if self._answers + self._refusals >= self.size:
            self._judge(now)

    def _judge(self, now: float) -> None:
        share = self._share
        rise = self._took_s / self._usual_took_s if self._usual_took_s > 0 else 1.0
        rise_s = (self._took_s - self._usual_took_s) / max(1, self._answers)
        size = self._size
        if share > _FEW_REFUSALS:
            gain = _STEADY * self.most if share < 0.5 else 0.0
            size = size * (1 - share / 2) + gain
        elif rise > _USUAL_RISE and rise_s > _SMALL_RISE_S:
            least = min(size, _LEAST_BY_LATENCY * self.most)
            size = max(size * max(0.5, _USUAL_RISE / rise), least)
        else:
            size = size * _GROWTH
        self._size = min(max(size, 1.0), float(self.most))
        self.size = int(self._size)
        self._since = now
        self._answers = self._refusals = 0
        self._took_s = self._usual_took_s = 0.0
