"""From settings to an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from headrace.contracts.protocols import Backend
from headrace.net.clock import Clock
from headrace.traffic.admission import Admission
from headrace.traffic.breaker import Breaker, BreakerPolicy
from headrace.traffic.counts import Counts
from headrace.traffic.gauge import gauge_for
from headrace.traffic.keys import Key, Keys
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
    return _lane(backend, _door(s, clock), clock, s)


def open_lane_of_keys(
    backends: Sequence[Backend], clock: Clock, settings: EndpointSettings | None = None
) -> Lane:
    """The way to one provider by several keys, each of which one of ``backends`` shows.

    What ``settings`` bound is bounded for each key: places, queue and limits a minute.
    """
    s = settings or EndpointSettings()
    if len(backends) == 1:
        return open_lane(backends[0], clock, s)
    keys = [
        Key(number=number, backend=each, door=_door(s, clock), counts=Counts(clock.wall))
        for number, each in enumerate(backends, 1)
    ]
    return _lane(keys[0].backend, keys[0].door, clock, s, Keys(keys, clock, s.retry))


def _lane(
    backend: Backend, door: Admission, clock: Clock, s: EndpointSettings, keys: Keys | None = None
) -> Lane:
    return Lane(
        backend=backend,
        admission=door,
        keys=keys,
        retry=s.retry,
        budget=None if s.retry is None else RetryBudget(clock, ratio=s.retry_ratio),
        breaker=None if s.breaker is None else Breaker(backend.name, clock, s.breaker),
        first_token_s=s.first_token_s,
        total_s=s.total_s,
        whole_s=s.whole_s,
        gauge=gauge_for(backend, clock),
        counts=Counts(clock.wall),
    )


def _door(settings: EndpointSettings, clock: Clock) -> Admission:
    return Admission(
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        timeout_s=settings.queue_s,
        limits=_limits(settings, clock),
        clock=clock,
    )


def _limits(settings: EndpointSettings, clock: Clock) -> RateLimits | None:
    requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
    if requests is None and tokens is None:
        return None
    return RateLimits(clock, requests_per_minute=requests, tokens_per_minute=tokens)
