"""Whether to ask again, and when: one policy for a call, one budget for all calls of an endpoint."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from attrs import field, frozen

from headrace.contracts.errors import LLMError
from headrace.net.clock import Clock


def _between(least: float, most: float) -> Any:
    def check(_: object, attribute: Any, value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"{attribute.name} is {value}, must be {least:g} to {most:g}")

    return check


@frozen(kw_only=True)
class RetryPolicy:
    """``retries`` more attempts, after 1 s, 2 s, 4 s and so on up to ``max_delay_s``.

    Of each delay the share ``jitter`` is left to chance: with 0.5 ("equal jitter") a delay of 4 s
    is 2 to 4 s. That parts callers who failed together and still never asks an ailing server again
    at once, as a share of 1 ("full jitter") may; the load of a storm is bounded by RetryBudget.

    Where the server said how long to wait, it is that long exactly; where that is longer than
    ``max_retry_after_s``, or the error says that asking again is useless (``transient``), the error
    is the caller's at once. ``kinds`` are the errors that are worth an attempt at all.
    """

    retries: int = field(default=5, validator=_between(0, 100))
    first_delay_s: float = field(default=1.0, validator=_between(0, 3600))
    factor: float = field(default=2.0, validator=_between(1, 100))
    max_delay_s: float = field(default=16.0, validator=_between(0, 3600))
    jitter: float = field(default=0.5, validator=_between(0, 1))
    max_retry_after_s: float = field(default=120.0, validator=_between(0, 86_400))
    kinds: tuple[type[LLMError], ...] = (LLMError,)

    def delay_s(self, retry: int, error: LLMError, random: Random) -> float | None:
        """Seconds to wait before the ``retry``-th retry (from 1) after ``error``; ``None``: none."""
        if retry > self.retries or not error.transient or not isinstance(error, self.kinds):
            return None
        asked = error.retry_after_s
        if asked:
            if asked > self.max_retry_after_s:
                error.add_note(
                    f"not asked again: the server wants {asked:g} s of patience, and "
                    f"max_retry_after_s is {self.max_retry_after_s:g}"
                )
                return None
            return asked
        delay = min(self.first_delay_s * self.factor ** (retry - 1), self.max_delay_s)
        return delay * (1 - self.jitter * random.random())


class RetryBudget:
    """How many retries the calls of one endpoint may make together.

    In any ``window_s`` seconds they are at most the share ``ratio`` of the calls begun in it, or
    ``floor`` where that is more, so that a storm of failures cannot double the load while a single
    caller keeps all its retries. The window moves in tenths of itself.
    """

    def __init__(
        self, clock: Clock, *, ratio: float = 0.1, floor: int = 20, window_s: float = 10.0
    ) -> None:
        self.ratio, self.floor = ratio, floor
        self._clock = clock
        self._slot_s = window_s / 10
        self._slots: deque[list[int]] = deque()
        """[number, calls, retries] of each slot in which anything happened."""

    def began(self) -> None:
        """A call makes its first attempt."""
        slots, number = self._slots, int(self._clock.monotonic() // self._slot_s)
        slot = slots[-1] if slots and slots[-1][0] == number else self._slot()
        slot[1] += 1

    def spend(self) -> bool:
        """Whether one more retry may be made; if so, it is counted."""
        slot = self._slot()
        calls = sum(each[1] for each in self._slots)
        retries = sum(each[2] for each in self._slots)
        if retries + 1 > max(self.floor, self.ratio * calls):
            return False
        slot[2] += 1
        return True

    def _slot(self) -> list[int]:
        slots, number = self._slots, int(self._clock.monotonic() // self._slot_s)
        while slots and slots[0][0] <= number - 10:
            slots.popleft()
        if not slots or slots[-1][0] != number:
            slots.append([number, 0, 0])
        return slots[-1]
