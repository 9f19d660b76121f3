"""What is answered: whole responses, stream deltas, usage and where an answer came from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.quick import quick_init

LLMStreamEventKind: TypeAlias = Literal["delta", "completed"]
FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "error", "cancelled", "other"
]


@quick_init
@frozen(kw_only=True)
class Usage:
    """Tokens of one call as the backend counted them; ``None`` is unknown, never zero.

    ``prompt_tokens`` is the sum of the three input parts and ``completion_tokens`` of the two
    output parts, where a backend tells the parts apart.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_uncached_tokens: int | None = None
    input_cache_read_tokens: int | None = None
    input_cache_write_tokens: int | None = None
    output_text_tokens: int | None = None
    output_reasoning_tokens: int | None = None


@quick_init
@frozen(kw_only=True)
class Provenance:
    """Where an answer came from, for audit and for doing it again.

    ``started_at`` and ``completed_at`` are UTC in ISO 8601; ``config_hash`` is a stable hash of
    the backend's configuration.
    """

    backend_name: str
    backend_kind: str
    model_id: str
    base_url: str | None
    started_at: str
    completed_at: str
    config_hash: str

    @staticmethod
    def now_iso(now: datetime | None = None) -> str:
        """``now`` (an aware instant of the caller's clock; the present if left out) as ISO 8601 UTC."""
        instant = datetime.now(timezone.utc) if now is None else now.astimezone(timezone.utc)
        return instant.isoformat()


@frozen(kw_only=True)
class TopLogprob:
    """One alternative at a position; ``logprob`` is a natural logarithm.

    ``token_id`` is its number in the model's vocabulary, where the backend tells.
    """

    token: str
    logprob: float
    token_bytes: bytes | None = None
    token_id: int | None = None


@frozen(kw_only=True)
class TokenLogprob:
    """An output token with its log probability (natural logarithm) and the alternatives to it."""

    token: str
    logprob: float
    token_bytes: bytes | None = None
    top: tuple[TopLogprob, ...] = ()
    token_id: int | None = None


@quick_init
@frozen(kw_only=True)
class LLMChoice:
    """One of several answers to a request with ``n`` above 1."""

    index: int
    text: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    stop_sequence: str | None = None


@quick_init
@frozen(kw_only=True)
class LLMResponse:
    """A whole answer.

    ``finish_reason`` is one of FinishReason's words and ``raw_finish_reason`` the provider's own.
    With ``n`` above 1, ``choices`` holds every answer and the fields here are those of the first;
    otherwise it is empty. ``raw_output`` and ``raw`` are the provider's payload, where it was kept.
    ``dropped`` lists settings of the request that the backend could not be given.
    ``system_fingerprint`` names the build and settings that answered; ``provider_fields`` are what
    else a provider told because its ``provider_options`` asked for it. ``reasoning_parts`` are as in
    LLMMessage; ``stop_sequence`` is the one of the request's ``stop`` that ended the answer, where
    the backend tells.
    """

    text: str
    model: str | None = None
    provider: str | None = None
    finish_reason: str | None = None
    usage: Usage | dict[str, int] | None = None
    latency_ms: int | None = None
    raw_output: dict[str, object] | None = field(default=None, repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    raw: dict[str, object] | None = field(default=None, repr=False)
    provenance: Provenance | None = None
    raw_finish_reason: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    choices: tuple[LLMChoice, ...] = ()
    response_id: str | None = None
    created: int | None = None
    request_id: str | None = None
    price_usd: Decimal | None = None
    dropped: tuple[str, ...] = ()
    system_fingerprint: str | None = None
    provider_fields: dict[str, object] | None = None
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    stop_sequence: str | None = None


@frozen(kw_only=True)
class ToolCallDelta:
    """A piece of one tool call; ``call_id`` and ``name`` come with its first piece only.

    ``index`` tells the calls of one answer apart and counts from 0 in the order they began.
    """

    call_id: str | None = None
    name: str | None = None
    arguments_json_delta: str | None = None
    index: int = 0


@quick_init
@frozen(kw_only=True)
class LLMDelta:
    """A piece of a streamed answer; what is ``None`` did not come with this piece.

    ``index`` is the choice it belongs to. ``finish_reason`` comes once per choice, ``usage_delta``
    holds the totals so far (providers send it once, last), ``model`` and ``response_id`` come at
    least with the first piece. ``system_fingerprint`` and ``provider_fields`` are as in LLMResponse.
    ``reasoning_part`` ends a piece of reasoning whose text came in the ``reasoning_delta``s since
    the one before; it holds the whole of it. ``stop_sequence`` comes with the finish reason.
    ``begins_again`` takes back all that this choice said before; it comes only where Marks.whole
    allows it.
    """

    text_delta: str | None = None
    tool_call_delta: ToolCallDelta | None = None
    usage_delta: Usage | None = None
    reasoning_delta: str | None = None
    refusal_delta: str | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    index: int = 0
    model: str | None = None
    response_id: str | None = None
    system_fingerprint: str | None = None
    provider_fields: dict[str, object] | None = None
    reasoning_part: ReasoningPart | None = None
    stop_sequence: str | None = None
    begins_again: bool = False


@quick_init
@frozen(kw_only=True)
class LLMStreamEvent:
    """One event of ``stream_chat``: a delta, or ``completed`` with the assembled response."""

    kind: LLMStreamEventKind
    delta_text: str | None = None
    response: LLMResponse | None = None
    delta: LLMDelta | None = None


@frozen(kw_only=True)
class EmbeddingResult:
    """One vector for each input, in input order: shape (inputs, dimensions)."""

    vectors: Sequence[Sequence[float]]
    model_id: str | None = None
    usage: Usage | None = None
