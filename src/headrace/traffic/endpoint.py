"""From settings to an endpoint."""

from __future__ import annotations

from attrs import field, frozen

from headrace.contracts.protocols import Backend
from headrace.net.clock import Clock
from headrace.traffic.admission import Admission
from headrace.traffic.breaker import Breaker, BreakerPolicy
from headrace.traffic.gauge import gauge_for
from headrace.traffic.lane import Lane
from headrace.traffic.limits import RateLimits
from headrace.traffic.retry import RetryBudget, RetryPolicy


@frozen(kw_only=True)
class EndpointSettings:
    """How an endpoint is treated; the defaults suit a provider on the Internet.

    ``max_running`` calls run at once and ``max_waiting`` wait, for at most ``queue_s`` seconds.
    ``retry_ratio`` is how many retries all calls together may make, as a share of the calls. Limits
    of None are none; ``first_token_s``, ``total_s`` and ``whole_s`` are as in Lane.
    """

    max_running: int = 5
    max_waiting: int = 100
    # A full queue of calls of fifteen seconds each gets through in so long.
    queue_s: float = 300.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    retry: RetryPolicy | None = field(factory=RetryPolicy)
    retry_ratio: float = 0.1
    breaker: BreakerPolicy | None = field(factory=BreakerPolicy)
    first_token_s: float | None = None
    total_s: float | None = 60.0
    whole_s: float | None = None


def open_lane(backend: Backend, clock: Clock, settings: EndpointSettings | None = None) -> Lane:
    """The way to ``backend``, as ``settings`` have it; make one for each endpoint and share it."""
    s = settings or EndpointSettings()
    return Lane(
        backend=backend,
        admission=Admission(
            max_running=s.max_running,
            max_waiting=s.max_waiting,
            timeout_s=s.queue_s,
            limits=_limits(s, clock),
            clock=clock,
        ),
        retry=s.retry,
        budget=None if s.retry is None else RetryBudget(clock, ratio=s.retry_ratio),
        breaker=None if s.breaker is None else Breaker(backend.name, clock, s.breaker),
        first_token_s=s.first_token_s,
        total_s=s.total_s,
        whole_s=s.whole_s,
        gauge=gauge_for(backend, clock),
    )


def _limits(settings: EndpointSettings, clock: Clock) -> RateLimits | None:
    requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
    if requests is None and tokens is None:
        return None
    return RateLimits(clock, requests_per_minute=requests, tokens_per_minute=tokens)
