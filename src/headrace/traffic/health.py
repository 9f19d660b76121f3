"""Whether one of several lanes is asked in its turn, or after the others until it is well again."""

from __future__ import annotations

from collections import deque

from headrace.contracts.errors import LLMAuthError, LLMError, LLMRateLimitError
from headrace.net.clock import Clock
from headrace.traffic.breaker import says_ill

WINDOW_S = 10
LEAST_CALLS = 10
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_LONGEST_PAUSE_S = 120.0
# How long a call that tries an ill lane keeps others from trying it too.
_PROBE_S = 1.0


class Health:
    """How one lane has done lately, for the choice among several.

    It is ill once it asks for patience (``Retry-After``), once its circuit opens, and once more
    than half of at least LEAST_CALLS calls within WINDOW_S seconds have failed, though never so
    many in a row. After a rest one call tries it (``tries``); its first output makes the lane well,
    its failure lengthens the rest. An attempt reports with the ``era`` in which it began: what was
    asked before the lane fell ill says nothing of how it is now.
    """

    __slots__ = ("_clock", "_recent", "_rest_s", "_well_since", "era", "until", "well")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.well = True
        self.until = 0.0
        """Where it is ill: the instant from which on it may be tried."""
        self.era = 0
        self._rest_s = _FIRST_REST_S
        self._well_since = clock.monotonic()
        self._recent: deque[list[int]] = deque()
        """[second, calls, failures], from the first failure on: without one, nothing is counted."""

    def tries(self) -> bool:
        """Whether this call may try the ill lane; if so, nobody else may for a while."""
        now = self._clock.monotonic()
        if now < self.until:
            return False
        self.until = now + _PROBE_S
        return True

    def answers(self, era: int) -> None:
        """An attempt has brought output."""
        if not self.well and era == self.era:
            self.well = True
            self._well_since = self._clock.monotonic()
            self._recent.clear()

    def succeeded(self) -> None:
        """An attempt has come to a good end."""
        if self._recent:
            self._count(failures=0)

    def failed(self, era: int, error: LLMError, shut_s: float = 0.0) -> None:
        """An attempt has failed with ``error``; the lane's circuit is open for ``shut_s`` more."""
        if era != self.era or not says_unable(error):
            return
        if error.retry_after_s:
            shut_s = max(shut_s, min(error.retry_after_s, _LONGEST_PAUSE_S))
        if shut_s > 0:
            self._fall(shut_s)
        elif not self.well:
            self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
            self._fall(self._rest_s)
        else:
            calls, failures = self._count(failures=1)
            if calls >= LEAST_CALLS and 2 * failures > calls:
                was_well_s = self._clock.monotonic() - self._well_since
                longer_s = min(2 * self._rest_s, _LONGEST_REST_S)
                self._rest_s = _FIRST_REST_S if was_well_s > _LONGEST_REST_S else longer_s
                self._fall(self._rest_s)

    def _fall(self, rest_s: float) -> None:
        self.well = False
        self.until = self._clock.monotonic() + rest_s
        self.era += 1
        self._recent.clear()

    def _count(self, *, failures: int) -> tuple[int, int]:
        """One more call; all calls and failures of the window."""
        recent, second = self._recent, int(self._clock.monotonic())
        while recent and recent[0][0] <= second - WINDOW_S:
            recent.popleft()
        if failures or recent:
            if not recent or recent[-1][0] != second:
                recent.append([second, 0, 0])
            recent[-1][1] += 1
            recent[-1][2] += failures
        return sum(each[1] for each in recent), sum(each[2] for each in recent)


def says_unable(error: LLMError) -> bool:
    """Whether ``error`` says that the lane cannot serve anyone now, and another one should.

    Beside an ill endpoint's errors: its limits, and that it refuses our key. What is wrong with one
    request says nothing about the next.
    """
    return says_ill(error) or isinstance(error, LLMRateLimitError | LLMAuthError)
