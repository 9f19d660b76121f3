"""What a load test reports. ``LoadReport`` as JSON is a stable format: its ``format`` names it.

A figure that the sample cannot carry is None. Times in figures are milliseconds; instants in series
are seconds from the run's beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import frozen

from headrace.contracts.load import LoadPlan, Promise
from headrace.contracts.record import CallRecord

FORMAT = "headrace.load/1"

Phase: TypeAlias = Literal["warmup", "measured", "cooldown"]
Verdict: TypeAlias = Literal["VALID", "SUSPECT", "INVALID"]
Ended: TypeAlias = Literal["complete", "interrupted", "too many errors", "target lost"]


@frozen(kw_only=True)
class Sample:
    """One request of a load test: its record, and what only the sender knows.

    Instants are in ``record.timeline`` (``intended``: None in a closed loop; ``queued``: when the
    sender took it up). ``gaps_s`` are the times between its pieces of output. ``coalesced`` counts
    pieces that have the instant of the piece before them, so that the gap is not known to be
    true. ``connect_s`` is what setting up its connection took, None where it was there.
    ``error`` is the message behind ``record.error_kind``; ``cut``: the run ended before it did.
    """

    record: CallRecord
    index: int
    phase: Phase = "measured"
    scenario: str | None = None
    input_tokens: int | None = None
    asked_output_tokens: int | None = None
    gaps_s: tuple[float, ...] = ()
    coalesced: int = 0
    reads: int = 0
    connect_s: float | None = None
    conversation: int | None = None
    turn: int = 0
    error: str | None = None
    cut: bool = False


@frozen(kw_only=True)
class Distribution:
    """A metric over the requests that have it, in ``unit``.

    ``percentiles`` by name (``p50``, ``p75``, ``p90``, ``p95``, ``p99``, ``p99.9``): None where there
    are fewer samples than ``stats.percentile_needs``. ``intervals``: 95% confidence bounds of each,
    by order statistics, None where the sample has none. ``histogram`` is LogHistogram.to_plain.
    """

    unit: Literal["ms", "tokens", "tokens/s"]
    count: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    percentiles: Mapping[str, float | None] = {}
    intervals: Mapping[str, tuple[float, float] | None] = {}
    histogram: Mapping[str, object] = {}


@frozen(kw_only=True)
class Counts:
    """Requests by fate. ``measured`` = ``ok`` + ``failed`` + ``cut``; the others are beside it."""

    sent: int = 0
    measured: int = 0
    ok: int = 0
    failed: int = 0
    cut: int = 0
    warmup: int = 0
    cooldown: int = 0
    never_sent: int = 0


@frozen(kw_only=True)
class ErrorCount:
    """Failures of one kind, with the first one's message."""

    kind: str
    count: int
    status: int | None = None
    example: str = ""


@frozen(kw_only=True)
class Figures:
    """The figures of a set of requests: a run's, a scenario's.

    ``latency`` and ``ttft`` count from the intended time (from sending in a closed loop);
    ``service`` and ``service_ttft`` from when the request was sent. ``tpot`` is a request's mean time
    per token after the first, ``itl`` every gap between two pieces. Rates are per second of the
    measured time; ``goodput_per_s`` counts the requests that met every promise on them.
    """

    counts: Counts
    seconds: float
    requests_per_s: float | None = None
    input_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    goodput_per_s: float | None = None
    error_share: float | None = None
    latency: Distribution | None = None
    service: Distribution | None = None
    ttft: Distribution | None = None
    service_ttft: Distribution | None = None
    tpot: Distribution | None = None
    itl: Distribution | None = None
    input_tokens: Distribution | None = None
    output_tokens: Distribution | None = None
    output_speed: Distribution | None = None


@frozen(kw_only=True)
class Doubt:
    """One thing that speaks against the figures, how much, and what to do about it."""

    name: str
    verdict: Verdict
    text: str
    value: float | None = None
    limit: float | None = None


@frozen(kw_only=True)
class Trust:
    """Whether the sender kept up, so that the figures are the server's and not its own.

    Lags are ms at p99: ``schedule_lag`` from when a request could be sent to when it was,
    ``read_lag`` from when bytes arrived (the kernel's word) to when they were read, None where the
    kernel does not say, ``loop_lag`` from when the sender's own ticks were due to when its loop came
    to them. ``cpu_share`` is of the busiest process's core, ``wait_share`` how much of the time it was
    ready and had no core, ``steal_share`` what a hypervisor took of all cores' time, each None where
    the system does not say; ``lost_connections`` how many connections the server closed that could
    have been kept.
    """

    verdict: Verdict
    doubts: tuple[Doubt, ...] = ()
    times_from: Literal["kernel", "read"] = "read"
    schedule_lag_ms: float | None = None
    schedule_lag_max_ms: float | None = None
    read_lag_ms: float | None = None
    coalesced_share: float | None = None
    cpu_share: float | None = None
    cpu_s_per_1k_tokens: float | None = None
    lost_connections: int = 0
    peak_rss_bytes: int | None = None
    loop_lag_ms: float | None = None
    loop_lag_max_ms: float | None = None
    wait_share: float | None = None
    steal_share: float | None = None


@frozen(kw_only=True)
class PromiseResult:
    """A promise and what came: ``kept`` is None where the sample is too small to say."""

    promise: Promise
    value: float | None
    kept: bool | None
    text: str = ""


@frozen(kw_only=True)
class Moment:
    """One interval of the time line, ``at`` seconds from the beginning and ``seconds`` long.

    ``done`` ended well in it, ``failed`` did not; those that the run's end cut off are in neither.
    Latencies are of the requests that ended (TTFT: that had their first token) in it, in ms.
    ``heat`` counts those latencies by bucket of ``LoadReport.heat_bounds_ms``.
    """

    at: float
    seconds: float
    sent: int = 0
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    ttft_p50: float | None = None
    ttft_p95: float | None = None
    itl_p50: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_max: float | None = None
    heat: tuple[int, ...] = ()


@frozen(kw_only=True)
class ServerSeries:
    """One metric that the server told about itself while it ran: values at instants.

    A counter's values are by how much a second it grew since the instant before.
    """

    name: str
    labels: str = ""
    kind: Literal["gauge", "counter"] = "gauge"
    at: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@frozen(kw_only=True)
class Columns:
    """Each measured request, as columns of equal length; times in ms, instants in s.

    What compares two runs and what draws a distribution again reads these. They are in the order in
    which the requests began. ``error`` is the error's kind, or ``cut``; only a request that ended
    well has latencies.
    """

    index: tuple[int, ...] = ()
    intended_s: tuple[float | None, ...] = ()
    sent_s: tuple[float | None, ...] = ()
    latency_ms: tuple[float | None, ...] = ()
    service_ms: tuple[float | None, ...] = ()
    ttft_ms: tuple[float | None, ...] = ()
    tpot_ms: tuple[float | None, ...] = ()
    worst_gap_ms: tuple[float | None, ...] = ()
    connect_ms: tuple[float | None, ...] = ()
    input_tokens: tuple[int | None, ...] = ()
    output_tokens: tuple[int | None, ...] = ()
    chunks: tuple[int, ...] = ()
    status: tuple[int | None, ...] = ()
    error: tuple[str | None, ...] = ()
    scenario: tuple[str | None, ...] = ()


@frozen(kw_only=True)
class LoadReport:
    """A whole run. ``closed_loop``: the load waited for the server, so latencies flatter it."""

    run_id: str
    started: str
    plan: LoadPlan
    ended: Ended
    closed_loop: bool
    figures: Figures
    trust: Trust
    format: str = FORMAT
    version: str = ""
    errors: tuple[ErrorCount, ...] = ()
    connect: Distribution | None = None
    promises: tuple[PromiseResult, ...] = ()
    scenarios: Mapping[str, Figures] = {}
    series: tuple[Moment, ...] = ()
    heat_bounds_ms: tuple[float, ...] = ()
    server: tuple[ServerSeries, ...] = ()
    requests: Columns | None = None
    notes: tuple[str, ...] = ()
