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
    """One provider and key. ``turn`` numbers requests in the order in which they are sent.

    A refusal that says for how long holds back all who share the account until then. Unless the
    provider serves others all the same: an answer to a request that was sent after the refused one
    ends the hold, and from then on one refusal is taken to mean one request, and three in a row to
    mean all. (A provider that has run out serves nobody; one that drops one request in twenty serves
    all others, and to stop for each of those would be to stop.)

    Refusals that say nothing hold all back only where three came and nobody was answered: for a time
    that doubles, until somebody is.
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
        self._turns = self._opened = self._first_refused = 0
        self._refusals = self._holds = 0
        self._said = self._picks = False

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

    def turn(self) -> int:
        """The number of a request that is sent now."""
        self._turns += 1
        return self._turns

    def refused(self, turn: int, said_s: float | None, *, most_s: float = LONGEST_HOLD_S) -> None:
        """A request was refused; ``said_s`` is how long to wait, where that was said, else it is
        ``most_s`` at most."""
        if not self._refusals:
            self._first_refused = turn
        self._refusals += 1
        if self._refusals < (_PROOF if self._picks or said_s is None else 1):
            return
        if said_s is not None:
            self._hold(said_s, said=True)
        elif not self.held:
            self._hold(min(_FIRST_HOLD_S * 2.0**self._holds, most_s), said=False)

    def answered(self, turn: int) -> None:
        """A request was answered."""
        if turn <= (self._first_refused if self._said else self._opened):
            return
        self._holds = self._refusals = 0
        if self.held:
            self._picks = self._picks or self._said
            self._open()

    def _hold(self, seconds: float, *, said: bool) -> None:
        until = self._clock.monotonic() + seconds
        if seconds <= 0 or until <= self._held_until:
            return
        if self._timer is None:
            self._holds += 1
        else:
            self._timer.cancel()
        self._held_until, self._said = until, said
        self._timer = self._clock.call_later(seconds, self._over)

    def _over(self) -> None:
        # It meant what it said: the next one means everybody again.
        self._picks = False
        self._open()

    def _open(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._held_until, self._said = None, -inf, False
        self._refusals, self._opened = 0, self._turns
        for opens in self._opens:
            opens()


def _bucket(per_minute: float | None, clock: Clock) -> Bucket | None:
    if per_minute is None:
        return None
    return Bucket(per_minute, clock, full=max(1.0, per_minute * _BURST_S / _MINUTE_S))
