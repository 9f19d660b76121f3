"""The one record that every call leaves, whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from headrace.contracts.quick import quick_init
from headrace.contracts.requests import LLMRequest, ResponseMode
from headrace.contracts.responses import LLMResponse, Usage
from headrace.contracts.routing import RouteDecision

Operation: TypeAlias = Literal[
    "chat",
    "completion",
    "embeddings",
    "rerank",
    "classification",
    "transcription",
    "translation",
    "speech",
    "image",
    "moderation",
    "inference",
]
HedgeOutcome: TypeAlias = Literal["won", "lost", "not_allowed"]


@quick_init
@frozen(kw_only=True)
class Timeline:
    """When things happened to one call: seconds of a monotonic clock; ``None`` did not happen.

    ``wall_anchor`` is the Unix time, in seconds, of the monotonic instant ``anchor``, so that any
    instant ``t`` was at ``wall_anchor + (t - anchor)``. ``intended`` is when a load test meant to
    send. A call is ``queued`` when we have it, ``admitted`` when it may run, ``sent`` when its
    last byte went out; ``first_byte`` is the answer's, ``first_token`` and ``last_token`` its
    first and last piece of output, ``done`` the end of it all.
    """

    anchor: float
    wall_anchor: float
    intended: float | None = None
    queued: float | None = None
    admitted: float | None = None
    sent: float | None = None
    first_byte: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    done: float | None = None


@define(kw_only=True)
class Marks:
    """The instants of a call while it runs: whoever sees one happen writes it down.

    The one contract that changes, because it belongs to one running call; what comes of it is the
    call's Timeline. Instants are as there. ``backend`` and ``provider`` name who took the call,
    ``status`` is the last HTTP status that came back, ``attempts`` what was
    tried, and ``dropped`` the settings that the backend could not be given. ``idempotency_key``
    comes from above: by it a backend can know a call that it is asked for once more. So does
    ``whole_within_s``: the caller has no use for pieces and waits so many seconds for all of them.
    ``whole_s`` is how long an answer that is asked whole may take to begin, where somebody has said.
    ``batch_occupancy`` is how full the batch was in which the call was asked, 1.0 being full.
    ``price_usd`` is what the call cost, once it has ended. ``came_whole``: the answer came in one
    piece, so nobody knows when its first token was made. ``sends`` is as in Attempt, ``hedge`` as in
    CallRecord. ``whole`` comes from above too: nobody sees the answer before its end, so a backend
    may begin it again (LLMDelta.begins_again). ``response_mode`` is the way in which an answer that
    meets a schema was asked for.
    """

    sent: float | None = None
    first_byte: float | None = None
    backend: str | None = None
    provider: str | None = None
    status: int | None = None
    attempts: list[Attempt] = field(factory=list)
    dropped: list[str] = field(factory=list)
    idempotency_key: str | None = None
    whole_within_s: float | None = None
    whole_s: float | None = None
    batch_occupancy: float | None = None
    price_usd: Decimal | None = None
    came_whole: bool = False
    sends: int = 1
    hedge: Hedge | None = None
    whole: bool = False
    response_mode: ResponseMode | None = None


@frozen(kw_only=True)
class StageMark:
    """One stage inside the engine (preprocess, vision, prefill, decode), where it tells us.

    ``begin`` and ``end`` are instants of the same clock as the record's timeline.
    """

    stage: str
    begin: float
    end: float


@quick_init
@frozen(kw_only=True)
class Attempt:
    """One try of a call at one backend; ``error_kind`` is the error class's name, or ``None``.

    ``sends`` is 2 where the request was sent once more below us: the connection that was kept from
    an earlier call had been closed by the peer before it answered a byte. ``hedged``: it was made
    beside another attempt that was late. The one of the two that lost tells what it is known to
    have used and cost (``usage``, ``price_usd``); that is not in the record's own.
    """

    backend: str
    begin: float
    end: float
    status: int | None = None
    error_kind: str | None = None
    sends: int = 1
    hedged: bool = False
    usage: Usage | None = None
    price_usd: Decimal | None = None


@frozen(kw_only=True)
class Hedge:
    """The first token of a call was late, ``after_s`` seconds after the attempt began.

    ``won`` and ``lost`` say how a second request did, which went to ``backend``; where both failed,
    or the caller left, it has ``lost``. ``not_allowed``: there was none, for ``reason``.
    """

    outcome: HedgeOutcome
    after_s: float
    backend: str | None = None
    reason: str | None = None


@quick_init
@frozen(kw_only=True)
class CallRecord:
    """What one call did, when and at what cost; every number is computed from these.

    ``chunks`` counts the pieces of output received. ``fingerprint`` is a hash of the request.
    ``decision`` is what the route made of it, where several backends answer there, and
    ``response_mode`` the way in which an answer that meets a schema was asked for. ``request`` and
    ``response`` are kept only when asked for: they hold the user's text.
    """

    call_id: str
    operation: Operation
    timeline: Timeline
    run_id: str | None = None
    parent_id: str | None = None
    request_id: str | None = None
    fingerprint: str | None = None
    backend: str | None = None
    provider: str | None = None
    requested_model: str | None = None
    model: str | None = None
    route: str | None = None
    decision: RouteDecision | None = None
    stream: bool = False
    chunks: int = 0
    attempts: tuple[Attempt, ...] = ()
    hedge: Hedge | None = None
    stages: tuple[StageMark, ...] = ()
    usage: Usage | None = None
    price_usd: Decimal | None = None
    batch_occupancy: float | None = None
    finish_reason: str | None = None
    status: int | None = None
    error_kind: str | None = None
    dropped: tuple[str, ...] = ()
    response_mode: ResponseMode | None = None
    request: LLMRequest | None = field(default=None, repr=False)
    response: LLMResponse | None = field(default=None, repr=False)


RecordSink: TypeAlias = Callable[[CallRecord], None]
