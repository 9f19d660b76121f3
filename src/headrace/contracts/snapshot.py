"""How things stand now: what a dashboard shows and a health page sums up.

Computed from records by ``headrace.numbers.live``; nothing here is measured apart from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.engines import ServerSnapshot
from headrace.contracts.record import HedgeOutcome

Outcome: TypeAlias = Literal["ok", "error", "cancelled"]
CircuitState: TypeAlias = Literal["closed", "open", "half_open"]


@frozen(kw_only=True)
class LatencySummary:
    """A distribution of seconds over ``count`` calls.

    The quantiles are within 1% of a sample's value; one is ``None`` where there are too few calls
    to say it with 95% confidence (p50 needs 5, p90 29, p95 59, p99 299). ``mean_s``, ``min_s`` and
    ``max_s`` are exact.
    """

    count: int = 0
    mean_s: float | None = None
    min_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None


@frozen(kw_only=True)
class GroupSnapshot:
    """What one model did, or one backend; the fields mean what they mean in Snapshot."""

    name: str
    running: int = 0
    queued: int = 0
    requests: Mapping[Outcome, int] = field(factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: LatencySummary = LatencySummary()
    tpot: LatencySummary = LatencySummary()
    e2e: LatencySummary = LatencySummary()
    queue: LatencySummary = LatencySummary()
    errors: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class EngineSnapshot:
    """One engine in the box: whether it answers now, and how often it was started anew."""

    name: str
    ready: bool = False
    restarts: int = 0


@frozen(kw_only=True)
class LaneSnapshot:
    """The way to one backend as it stands now, and which models go by it.

    ``running`` of ``places`` are taken and ``waiting`` wait for one, at most ``max_waiting``;
    ``tokens`` of ``max_tokens`` are held by those that run, where tokens are counted. ``circuit``
    is the breaker's state, where there is one. ``engines`` are a backend in the box's. ``server``
    is the process of an engine that we start. ``metrics`` are what its engines told of themselves
    within the last seconds; none where they do not.
    """

    name: str
    models: tuple[str, ...] = ()
    provider: str | None = None
    running: int = 0
    places: int = 0
    waiting: int = 0
    max_waiting: int = 0
    tokens: int = 0
    max_tokens: int | None = None
    circuit: CircuitState | None = None
    engines: tuple[EngineSnapshot, ...] = ()
    metrics: tuple[EngineMetrics, ...] = ()
    server: ServerSnapshot | None = None


@frozen(kw_only=True)
class WorkerSnapshot:
    """One of several processes that share a server's port.

    ``requests`` is how many it has answered, those among them that it handed on; ``rss_bytes`` what
    it holds in memory, where that is known; ``restarts`` how many before it died in its place.
    """

    pid: int
    requests: int = 0
    rss_bytes: int | None = None
    restarts: int = 0


@frozen(kw_only=True)
class IntervalSnapshot:
    """The calls that ended within one interval; ``begin`` is its first instant.

    ``ttft``, ``tpot`` and ``e2e`` count calls by how long that took them, as HistorySnapshot's
    ``bounds`` divide it; they mean what they mean in Snapshot.
    """

    begin: float
    requests: Mapping[Outcome, int] = field(factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: tuple[int, ...] = ()
    tpot: tuple[int, ...] = ()
    e2e: tuple[int, ...] = ()


@frozen(kw_only=True)
class RecentCall:
    """One finished call in a line, without anything that was said in it.

    ``ended`` is Unix time; times are seconds, ``None`` where they are not known; ``attempts`` is
    how often a backend was asked, ``hedge`` what became of a second request because the first one was
    late. ``policy`` and ``reason`` say how its route chose the first.
    """

    ended: float
    operation: str
    outcome: Outcome
    request_id: str | None = None
    model: str | None = None
    backend: str | None = None
    provider: str | None = None
    policy: str | None = None
    reason: str | None = None
    stream: bool = False
    status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    attempts: int = 0
    hedge: HedgeOutcome | None = None
    queue_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    price_usd: Decimal | None = None


@frozen(kw_only=True)
class HistorySnapshot:
    """The last ``kept_s`` seconds in intervals of ``interval_s``, and the last calls.

    Each list of counts in an interval has one more than ``bounds``: up to the first bound, between
    each two, above the last; in seconds. Intervals without a call are left out. ``revision`` grows
    with each call. Who has seen a revision can be given what came since: the intervals that have
    changed, whole, and the calls that are new.
    """

    interval_s: float
    kept_s: float
    bounds: tuple[float, ...]
    revision: int = 0
    intervals: tuple[IntervalSnapshot, ...] = ()
    recent: tuple[RecentCall, ...] = ()


@frozen(kw_only=True)
class Snapshot:
    """All calls since ``uptime_s`` seconds ago, as they stood at the instant ``taken``.

    ``taken`` is an instant of the records' monotonic clock, in seconds. ``running`` and ``queued``
    count calls at that instant; ``requests`` counts the finished ones by outcome and ``errors`` by
    the error class's name. ``prompt_tokens`` and ``completion_tokens`` add up what backends
    reported; a call whose backend reported none adds nothing. The three rates are of the calls
    that finished within the last ``window_s`` seconds, divided by ``window_s``, and
    ``batch_occupancy`` is the mean of those among them that ran in a batch, 1.0 being full.
    ``price_usd`` is what the ``priced`` calls cost together, ``None`` where none had a price.
    ``ttft`` is from sending to the first token, ``tpot`` the mean time per output token after the
    first, ``e2e`` from arrival to the end, ``queue`` from arrival to admission; the first three
    are of successful calls only.

    A server that is watched adds its ``version``, whether it is ``draining`` (takes no new
    requests), how its ``lanes`` stand, the ``workers`` that live where there are any, and the
    ``history`` of the last minutes.
    """

    taken: float
    uptime_s: float
    running: int = 0
    queued: int = 0
    requests: Mapping[Outcome, int] = field(factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    window_s: float = 0.0
    requests_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None
    batch_occupancy: float | None = None
    price_usd: Decimal | None = None
    priced: int = 0
    ttft: LatencySummary = LatencySummary()
    tpot: LatencySummary = LatencySummary()
    e2e: LatencySummary = LatencySummary()
    queue: LatencySummary = LatencySummary()
    errors: Mapping[str, int] = field(factory=dict)
    models: tuple[GroupSnapshot, ...] = ()
    backends: tuple[GroupSnapshot, ...] = ()
    version: str | None = None
    draining: bool = False
    lanes: tuple[LaneSnapshot, ...] = ()
    workers: tuple[WorkerSnapshot, ...] = ()
    history: HistorySnapshot | None = None


@frozen(kw_only=True)
class KeyStats:
    """What was asked by one of an endpoint's keys, the ``key``-th of them; the key itself is not told.

    Here ``requests`` are attempts. The key is left alone for another ``rests_s`` seconds, because it
    has reached a limit; ``refused`` says that the provider lately did not take it.
    """

    key: int
    requests: int = 0
    successes: int = 0
    failures: Mapping[str, int] = field(factory=dict)
    cancelled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    running: int = 0
    waiting: int = 0
    rests_s: float = 0.0
    refused: bool = False
    last_error: str | None = None


@frozen(kw_only=True)
class EndpointStats:
    """What one endpoint did since it was made or its counts were last set back to nothing.

    ``requests`` came to it; of those ``successes`` were answered to the end, ``failures`` ended in
    an error, by its class's name, ``cancelled`` were ended by the caller, and the others wait or
    run. ``retries`` are attempts beyond the first of each. Tokens are what the backend reported,
    ``price_usd`` what the ``priced`` calls cost together. ``latency`` is of the successes, from
    coming here to the end of the answer, waiting included. ``last_error`` is what the last failure
    said, without keys, at the Unix time ``last_error_at``. ``since`` is the Unix time from which on
    is counted. ``running`` (places taken), ``waiting`` and ``circuit`` are as they stand now; an
    endpoint without a breaker has no ``circuit``. Of one with several ``keys`` each is told.
    """

    name: str
    requests: int = 0
    successes: int = 0
    failures: Mapping[str, int] = field(factory=dict)
    cancelled: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price_usd: Decimal | None = None
    priced: int = 0
    latency: LatencySummary = LatencySummary()
    last_error: str | None = None
    last_error_at: float | None = None
    since: float | None = None
    running: int = 0
    waiting: int = 0
    circuit: CircuitState | None = None
    keys: tuple[KeyStats, ...] = ()
