"""An endpoint that fails again and again is left alone for a while, and then tried with one call."""

from __future__ import annotations

from attrs import field, frozen

from headrace.contracts.errors import LLMError, LLMProviderError, LLMUnavailableError
from headrace.contracts.snapshot import CircuitState
from headrace.net.clock import Clock

# While one call tries whether it is well again, the others cannot be told how long that takes.
_PROBE_RETRY_AFTER_S = 1.0


@frozen(kw_only=True)
class BreakerPolicy:
    """The circuit opens after ``failures`` in a row and stays so for ``open_s`` seconds."""

    failures: int = field(default=5)
    open_s: float = field(default=30.0)

    @failures.validator
    def _check_failures(self, _: object, value: int) -> None:
        if value < 1:
            raise ValueError(f"failures is {value}, must be at least 1")


def says_ill(error: LLMError) -> bool:
    """Whether ``error`` says that the endpoint itself is ill.

    The provider's errors do: failures, time-outs, overload, answers that make no sense. An answer
    that refuses the request, the key or the rate (429) comes from an endpoint that works; it says
    nothing for it either, as a front may well refuse for an engine that is dead.
    """
    return isinstance(error, LLMProviderError)


class Breaker:
    """The circuit of one endpoint: closed (all calls), open (none), half open (one, to see).

    Each attempt asks to ``enter`` and then reports once or more often how it went, with the number
    that ``enter`` gave it: what an attempt from before the circuit last opened reports is old news.
    """

    def __init__(self, name: str, clock: Clock, policy: BreakerPolicy | None = None) -> None:
        self._name = name
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._era = 0
        self._failures = 0
        self.open_until: float | None = None
        """Until when nobody is asked, and from when on one call tries; ``None``: it is closed."""
        self._probing = False
        self._last = ""

    @property
    def state(self) -> CircuitState:
        """How the circuit stands now."""
        if self.open_until is None:
            return "closed"
        return "open" if self._clock.monotonic() < self.open_until else "half_open"

    @property
    def shut_s(self) -> float:
        """How long the circuit stays open yet; 0 where it is not."""
        left = 0.0 if self.open_until is None else self.open_until - self._clock.monotonic()
        return max(0.0, left)

    def check(self) -> None:
        """Raise LLMUnavailableError, with ``retry_after_s``, where a call may not go through now."""
        if self.open_until is None:
            return
        left = self.open_until - self._clock.monotonic()
        if left > 0:
            raise LLMUnavailableError(
                f"{self._name} has failed {self._failures} times in a row (last: {self._last}); it "
                f"is left alone for another {left:.1f} s",
                retry_after_s=left,
                code="circuit_open",
            )
        if self._probing:
            raise LLMUnavailableError(
                f"{self._name} has failed {self._failures} times in a row (last: {self._last}); one "
                "call is trying whether it is well again",
                retry_after_s=_PROBE_RETRY_AFTER_S,
                code="circuit_open",
            )

    def enter(self) -> int:
        """An attempt begins, if it may (else as ``check``); the number is for its reports."""
        if self.open_until is not None:
            self.check()
            self._probing = True
        return self._era

    def answers(self, era: int) -> None:
        """An attempt has brought output: enough for a probe, however long the rest may take."""
        if era == self._era and self._probing:
            self.open_until = None
            self._probing = False
            self._failures = 0

    def succeeded(self, era: int) -> None:
        """An attempt has come to a good end."""
        if era == self._era:
            if self._probing:
                self.answers(era)
            self._failures = 0

    def failed(self, era: int, error: LLMError, *, again: bool = False) -> None:
        """An attempt has failed with ``error``; it counts where that says that the endpoint is ill.

        The failures of one call count as one: ``again`` is a retry's. Else a single patient caller
        would shut the circuit on the last of its own retries.
        """
        if era != self._era:
            return
        if not says_ill(error):
            self.left(era)
            return
        if not again or self._probing:
            self._failures += 1
        self._last = type(error).__name__
        if self._probing or self._failures >= self._policy.failures:
            self.open_until = self._clock.monotonic() + self._policy.open_s
            self._probing = False
            self._era += 1

    def left(self, era: int) -> None:
        """An attempt is over and says nothing about the endpoint."""
        if era == self._era:
            self._probing = False
