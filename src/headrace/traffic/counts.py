"""What one endpoint did so far, counted."""

from __future__ import annotations

from headrace.contracts.errors import LLMCancelledError
from headrace.contracts.responses import Usage
from headrace.contracts.snapshot import CircuitState, EndpointStats
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.live import summary

_MOST_FRESH = 64


class Counts:
    """The calls of one endpoint; one event loop owns it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """From nothing."""
        self._requests = self._successes = self._cancelled = self._retries = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._failures: dict[str, int] = {}
        self._latency = LogHistogram()
        self._fresh: list[float] = []
        """Latencies not counted yet: together they cost a third of what each alone does."""

    def came(self) -> None:
        """A call has come."""
        self._requests += 1

    def retried(self) -> None:
        """One of them makes one more attempt."""
        self._retries += 1

    def ended(self, error_kind: str | None, took_s: float, usage: Usage | None) -> None:
        """One of them is over, ``took_s`` after it came."""
        if usage is not None:
            self._prompt_tokens += usage.prompt_tokens or 0
            self._completion_tokens += usage.completion_tokens or 0
        if error_kind is None:
            self._successes += 1
            self._fresh.append(took_s if took_s > 0.0 else 0.0)
            if len(self._fresh) >= _MOST_FRESH:
                self._count()
        elif error_kind == LLMCancelledError.__name__:
            self._cancelled += 1
        else:
            self._failures[error_kind] = self._failures.get(error_kind, 0) + 1

    def stats(
        self, name: str, *, running: int, waiting: int, circuit: CircuitState | None
    ) -> EndpointStats:
        """All of it, with how things stand now."""
        self._count()
        return EndpointStats(
            name=name,
            requests=self._requests,
            successes=self._successes,
            failures=dict(self._failures),
            cancelled=self._cancelled,
            retries=self._retries,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            latency=summary(self._latency),
            running=running,
            waiting=waiting,
            circuit=circuit,
        )

    def _count(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._latency.add_all(fresh)
