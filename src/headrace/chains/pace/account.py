"""What engines have in common that ask one provider with one key: its limits, and its patience."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from headrace.net.clock import Clock, Timer
from headrace.traffic.limits import Bucket

_MINUTE_S = 60.0
_BURST_S = 1.0
"""Providers count in shorter pieces than a minute: a minute's worth at once is refused."""
_FIRST_HOLD_S = 0.5
LONGEST_HOLD_S = 16.0
_PROOF = 3
"""So many refusals in a row mean everybody, where one has meant one request alone before."""


class Account:
    """One provider and key.

    A refusal holds back all who share the account for as long as it said, or for a time that
    doubles where it said none. Unless the provider serves others all the same: an answer to a
    request that was sent after the refused one ends the hold, and from then on one refusal is
    taken to mean one request, and three in a row to mean all.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self._clock = clock
        self._requests = _bucket(requests_per_minute, clock)
        self._tokens = _bucket(tokens_per_minute, clock)
        self._held_until = -inf
        self._timer: Timer | None = None
        self._opens: list[Callable[[], None]] = []
        self._refusals = 0
        self._first_refused = -inf
        self._picks = False
        self._holds = 0

    def tell(self, opens: Callable[[], None]) -> None:
        """Have ``opens`` called when a hold is over."""
        self._opens.append(opens)

    @property
    def held(self) -> bool:
        """Whether nobody may be sent now."""
        return self._timer is not None

    @property
    def held_s(self) -> float:
        """For how long nobody may be sent."""
        return max(0.0, self._held_until - self._clock.monotonic()) if self.held else 0.0

    @property
    def counts_tokens(self) -> bool:
        """Whether an estimate of tokens is worth making."""
        return self._tokens is not None

    def reserve(self, tokens: int) -> float:
        """A place in the minute for a request of so many tokens: seconds until it may be sent."""
        wait_s = 0.0
        if self._requests is not None:
            wait_s = self._requests.wait_s(1)
            self._requests.take(1)
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.wait_s(tokens))
            self._tokens.take(tokens)
        return wait_s

    def settle(self, estimated: int, used: int) -> None:
        """A request for which ``estimated`` tokens were reserved has used ``used``."""
        if self._tokens is not None:
            self._tokens.take(used - estimated)

    def refused(
        self, sent: float, said_s: float | None, *, most_s: float = LONGEST_HOLD_S
    ) -> None:
        """What was sent at ``sent`` was refused; ``said_s`` is how long to wait, where it was said,
        else it is ``most_s`` at most."""
        self._refusals += 1
        if self._refusals == 1:
            self._first_refused = sent
        if self._refusals < (_PROOF if self._picks else 1):
            return
        if said_s is None:
            said_s = min(_FIRST_HOLD_S * 2.0**self._holds, most_s)
        self._hold(said_s)

    def answered(self, sent: float) -> None:
        """What was sent at ``sent`` was answered."""
        if sent <= self._first_refused:
            return
        self._holds = self._refusals = 0
        if self.held:
            self._picks = True
            self._open()

    def _hold(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        if seconds <= 0 or until <= self._held_until:
            return
        if self._timer is None:
            self._holds += 1
        else:
            self._timer.cancel()
        self._held_until = until
        self._timer = self._clock.call_later(seconds, self._over)

    def _over(self) -> None:
        # It meant what it said: the next one means everybody again.
        self._picks = False
        self._open()

    def _open(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._held_until, self._refusals = None, -inf, 0
        for opens in self._opens:
            opens()


def _bucket(per_minute: float | None, clock: Clock) -> Bucket | None:
    if per_minute is None:
        return None
    return Bucket(per_minute, clock, full=max(1.0, per_minute * _BURST_S / _MINUTE_S))
