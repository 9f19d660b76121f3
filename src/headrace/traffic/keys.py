"""Several keys for one provider: each with a queue, limits and a back-off of its own.

A call goes by the key that has the least to do. One that has reached its limit, or is refused, is
left alone for a while; who waits for it, or was told so, goes on to the others at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from attrs import define, field

from headrace.contracts.errors import LLMAuthError, LLMError, LLMRateLimitError
from headrace.contracts.protocols import Backend
from headrace.contracts.snapshot import KeyStats
from headrace.net.clock import Clock
from headrace.traffic.admission import Admission
from headrace.traffic.counts import Counts
from headrace.traffic.retry import RetryPolicy

# One that the provider does not take is tried again now and then: keys are topped up and renewed.
_REFUSED_S = 60.0


@define(kw_only=True, eq=False)
class Key:
    """Who is asked with one key, and the door that leads there.

    Until ``refused_until`` the provider is thought not to take it. ``limited`` is how often in a row
    it was told to slow down.
    """

    number: int
    backend: Backend
    door: Admission
    counts: Counts = field(factory=Counts)
    refused_until: float = -inf
    limited: int = 0
    asked: int = 0


class Keys:
    """The keys of one endpoint. Calls are spread over those that are open by what each has to do.

    ``policy`` has the back-off: for a limit of which the provider does not say when it ends, the key
    rests for so long as a retry would wait.
    """

    def __init__(self, keys: Sequence[Key], clock: Clock, policy: RetryPolicy | None) -> None:
        self._keys = tuple(keys)
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._turns = 0

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def choose(self, rated_tokens: int) -> Key:
        """By which key a call goes: of those that are open that with the least to do."""
        now = self._clock.monotonic()
        best = min(self._keys, key=lambda key: self._rank(key, now, rated_tokens))
        self._turns += 1
        best.asked = self._turns
        return best

    def failed(self, key: Key, error: LLMError) -> bool:
        """An attempt by ``key`` has failed; whether that says something of the key alone, and
        another one is open."""
        if isinstance(error, LLMRateLimitError):
            self._rest(key, error)
        elif isinstance(error, LLMAuthError):
            key.refused_until = self._clock.monotonic() + _REFUSED_S
        else:
            return False
        if not self._any_open():
            return False
        self._turn_away(key)
        return True

    def answers(self, key: Key) -> None:
        """The provider has answered by ``key``: it takes it."""
        key.limited = 0
        key.refused_until = -inf

    def opens_in_s(self) -> float | None:
        """How long until one that was told to slow down may be asked; ``None`` where none was."""
        resting = [key for key in self._keys if key.limited and not self._is_refused(key)]
        return min((max(0.0, key.door.opens_in_s) for key in resting), default=None)

    def level(self) -> None:
        """Have somebody who waits for a busy key go on to one that has nothing to do."""
        longest = max(self._keys, key=lambda key: key.door.waiting)
        if longest.door.waiting and any(
            key.door.fits(0) and not self._is_refused(key) for key in self._keys
        ):
            longest.door.turn_away(1)

    def stats(self) -> tuple[KeyStats, ...]:
        """What each did, by attempts, and how it stands."""
        return tuple(self._stats(key) for key in self._keys)

    def reset_stats(self) -> None:
        """Count from nothing."""
        for key in self._keys:
            key.counts.reset()

    def _rank(self, key: Key, now: float, rated_tokens: int) -> tuple[float, ...]:
        door = key.door
        wait_s = max(0.0, door.opens_in_s)
        if door.limits is not None:
            wait_s = max(wait_s, door.limits.wait_s(rated_tokens))
        refused_s = max(0.0, key.refused_until - now)
        load = (door.running + door.waiting + 1) / door.max_running
        return (refused_s, wait_s, load, key.asked)

    def _rest(self, key: Key, error: LLMError) -> None:
        policy = self._policy
        seconds = error.retry_after_s
        if not seconds:
            seconds = min(policy.first_delay_s * policy.factor**key.limited, policy.max_delay_s)
        key.limited += 1
        if seconds > policy.max_retry_after_s:
            # Nobody is to wait for it so long, but whoever has no other key is to hear of it.
            key.refused_until = self._clock.monotonic() + seconds
            return
        key.door.pause(seconds)
        if seconds > 0:
            self._clock.call_later(seconds, self._one_is_back)

    def _one_is_back(self) -> None:
        """Those who wait at others that still rest need not wait any longer."""
        if self._any_open():
            for key in self._keys:
                if key.door.opens_in_s > 0:
                    self._turn_away(key)

    def _turn_away(self, key: Key) -> None:
        key.door.turn_away()

    def _any_open(self) -> bool:
        return any(key.door.opens_in_s <= 0 and not self._is_refused(key) for key in self._keys)

    def _is_refused(self, key: Key) -> bool:
        return key.refused_until > self._clock.monotonic()

    def _stats(self, key: Key) -> KeyStats:
        told = key.counts.stats(
            "", running=key.door.running, waiting=key.door.waiting, circuit=None
        )
        return KeyStats(
            key=key.number,
            requests=told.requests,
            successes=told.successes,
            failures=told.failures,
            cancelled=told.cancelled,
            prompt_tokens=told.prompt_tokens,
            completion_tokens=told.completion_tokens,
            running=told.running,
            waiting=told.waiting,
            rests_s=max(0.0, key.door.opens_in_s),
            refused=self._is_refused(key),
            last_error=told.last_error,
        )
