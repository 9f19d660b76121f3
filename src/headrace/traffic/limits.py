"""So many requests and tokens a minute, and no more: the promise made to a provider.

Counted as providers count them: a bucket that holds a minute's worth and fills evenly. So a burst
may use up the whole of it at once, and any ``t`` seconds see at most ``rate * (1 + t / 60)``.
"""

from __future__ import annotations

from headrace.net.clock import Clock

_MINUTE_S = 60.0
# A wait computed from a deficit ends a rounding error before the deficit does.
_ROUNDING = 1e-6


class Bucket:
    """Gains ``per_minute`` in a minute and holds at most ``full``, or as much as that; it may be
    overdrawn."""

    __slots__ = ("_clock", "_level", "_rate", "_seen", "full", "per_minute")

    def __init__(self, per_minute: float, clock: Clock, *, full: float | None = None) -> None:
        if not per_minute > 0:
            raise ValueError(
                f"a limit of {per_minute} a minute lets nothing through; give 1 or more"
            )
        self.per_minute = per_minute
        self.full = per_minute if full is None else full
        self._clock = clock
        self._rate = per_minute / _MINUTE_S
        self._level = self.full
        self._seen = clock.monotonic()

    def wait_s(self, amount: float, spared: float = 0.0) -> float:
        """Seconds until ``amount`` is there; what is more than a full bucket waits for a full one.

        With ``spared``, until that part of a full bucket is there beside it.
        """
        missing = min(amount + spared * self.full, self.full) - self._filled()
        return missing / self._rate if missing > _ROUNDING else 0.0

    def take(self, amount: float) -> None:
        """Take ``amount``, or give back where it is negative."""
        self._level = min(self.full, self._filled() - amount)

    def _filled(self) -> float:
        now = self._clock.monotonic()
        self._level = min(self.full, self._level + (now - self._seen) * self._rate)
        self._seen = now
        return self._level


class RateLimits:
    """Requests and tokens a minute of one endpoint; ``None`` is without limit.

    A request's tokens are an estimate until its usage is known; ``settle`` then makes up for the
    difference.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, clock)

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited, so that an estimate of them is worth making."""
        return self._tokens is not None

    def wait_s(self, tokens: int, spared: float = 0.0) -> float:
        """Seconds until a request of so many tokens may begin, and leave the part ``spared``."""
        wait = 0.0 if self._requests is None else self._requests.wait_s(1, spared)
        return wait if self._tokens is None else max(wait, self._tokens.wait_s(tokens, spared))

    def take(self, tokens: int) -> None:
        """A request of so many tokens begins."""
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def settle(self, estimated: int, used: int) -> None:
        """A request for which ``estimated`` tokens were taken has used ``used``."""
        if self._tokens is not None:
            self._tokens.take(used - estimated)
