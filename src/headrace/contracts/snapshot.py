"""How things stand now: what a dashboard shows and a health page sums up.

Computed from records by ``headrace.numbers.live``; nothing here is measured apart from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

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
class Snapshot:
    """All calls since ``uptime_s`` seconds ago, as they stood at the instant ``taken``.

    ``taken`` is an instant of the records' monotonic clock, in seconds. ``running`` and ``queued``
    count calls at that instant; ``requests`` counts the finished ones by outcome and ``errors`` by
    the error class's name. ``prompt_tokens`` and ``completion_tokens`` add up what backends
    reported; a call whose backend reported none adds nothing. The two rates are tokens of the
    calls that finished within the last ``window_s`` seconds, divided by ``window_s``.
    ``ttft`` is from sending to the first token, ``tpot`` the mean time per output token after the
    first, ``e2e`` from arrival to the end, ``queue`` from arrival to admission; the first three
    are of successful calls only.
    """

    taken: float
    uptime_s: float
    running: int = 0
    queued: int = 0
    requests: Mapping[Outcome, int] = field(factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    window_s: float = 0.0
    prompt_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None
    ttft: LatencySummary = LatencySummary()
    tpot: LatencySummary = LatencySummary()
    e2e: LatencySummary = LatencySummary()
    queue: LatencySummary = LatencySummary()
    errors: Mapping[str, int] = field(factory=dict)
    models: tuple[GroupSnapshot, ...] = ()
    backends: tuple[GroupSnapshot, ...] = ()


@frozen(kw_only=True)
class EndpointStats:
    """What one endpoint did since it was made or its counts were last set back to nothing.

    ``requests`` came to it; of those ``successes`` were answered to the end, ``failures`` ended in
    an error, by its class's name, ``cancelled`` were ended by the caller, and the others wait or
    run. ``retries`` are attempts beyond the first of each. Tokens are what the backend reported.
    ``latency`` is of the successes, from coming here to the end of the answer, waiting included.
    ``running`` (places taken), ``waiting`` and ``circuit`` are as they stand now; an endpoint
    without a breaker has no ``circuit``.
    """

    name: str
    requests: int = 0
    successes: int = 0
    failures: Mapping[str, int] = field(factory=dict)
    cancelled: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: LatencySummary = LatencySummary()
    running: int = 0
    waiting: int = 0
    circuit: CircuitState | None = None
