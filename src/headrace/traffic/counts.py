"""What one endpoint did so far, counted."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from attrs import define, field

from headrace.contracts.errors import LLMCancelledError
from headrace.contracts.responses import Usage
from headrace.contracts.snapshot import CircuitState, EndpointStats
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.live import summary
from headrace.stores.secret import redact

_MOST_FRESH = 64
_MOST_SAID = 300


@define(eq=False)
class Sums:
    """What EndpointStats tells of, as it grows."""

    requests: int = 0
    successes: int = 0
    cancelled: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price_usd: Decimal = Decimal(0)
    priced: int = 0
    failures: dict[str, int] = field(factory=dict)
    latency: LogHistogram = field(factory=LogHistogram)
    last_error: str | None = None
    last_error_at: float | None = None


class Counts:
    """The calls of one endpoint; one event loop owns it. ``wall`` is the clock's Unix time."""

    def __init__(self, wall: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self.reset()

    def reset(self) -> None:
        """From nothing."""
        self.sums = Sums()
        self._since = self._now()
        self._fresh: list[float] = []
        """Latencies not counted yet: together they cost a third of what each alone does."""

    def taken(self) -> Sums:
        """What was counted, which is counted here no more."""
        self._count()
        sums, self.sums = self.sums, Sums()
        sums.last_error = _told(sums.last_error)
        return sums

    def came(self) -> None:
        """A call has come."""
        self.sums.requests += 1

    def retried(self) -> None:
        """One of them makes one more attempt."""
        self.sums.retries += 1

    def cost(self, price_usd: Decimal | None) -> None:
        """One of them has cost so much, where that is known."""
        if price_usd is not None:
            self.sums.price_usd += price_usd
            self.sums.priced += 1

    def ended(
        self,
        error_kind: str | None,
        took_s: float,
        usage: Usage | None,
        error: BaseException | None = None,
    ) -> None:
        """One of them is over, ``took_s`` after it came."""
        sums = self.sums
        if usage is not None:
            sums.prompt_tokens += usage.prompt_tokens or 0
            sums.completion_tokens += usage.completion_tokens or 0
        if error_kind is None:
            sums.successes += 1
            self._fresh.append(took_s if took_s > 0.0 else 0.0)
            if len(self._fresh) >= _MOST_FRESH:
                self._count()
        elif error_kind == LLMCancelledError.__name__:
            sums.cancelled += 1
        else:
            sums.failures[error_kind] = sums.failures.get(error_kind, 0) + 1
            sums.last_error = f"{error_kind}: {error}"
            sums.last_error_at = self._now()

    def stats(
        self, name: str, *, running: int, waiting: int, circuit: CircuitState | None
    ) -> EndpointStats:
        """All of it, with how things stand now."""
        self._count()
        sums = self.sums
        return EndpointStats(
            name=name,
            requests=sums.requests,
            successes=sums.successes,
            failures=dict(sums.failures),
            cancelled=sums.cancelled,
            retries=sums.retries,
            prompt_tokens=sums.prompt_tokens,
            completion_tokens=sums.completion_tokens,
            price_usd=sums.price_usd if sums.priced else None,
            priced=sums.priced,
            latency=summary(sums.latency),
            last_error=_told(sums.last_error),
            last_error_at=sums.last_error_at,
            since=self._since,
            running=running,
            waiting=waiting,
            circuit=circuit,
        )

    def _now(self) -> float | None:
        return None if self._wall is None else self._wall()

    def _count(self) -> None:
        fresh, self._fresh = self._fresh, []
        self.sums.latency.add_all(fresh)


def _told(error: str | None) -> str | None:
    """Looked through when somebody asks: in a storm of errors hardly any of them is asked for."""
    return None if error is None else redact(error)[:_MOST_SAID]
