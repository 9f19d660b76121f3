"""Records as OpenTelemetry spans and metrics, in the words of the GenAI conventions.

https://opentelemetry.io/docs/specs/semconv/gen-ai/ (status "development": names may still change;
ours are those of semantic conventions 1.40). Needs the extra ``otel``; where spans and metrics go,
and how they are sampled, is set up in OpenTelemetry itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.contracts.record import CallRecord
from headrace.numbers.timeline import (
    end_to_end,
    queue_time,
    time_per_output_token,
    time_to_first_token,
    wall_time,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

# Our operations where the conventions have another word for them.
_OPERATIONS = {"completion": "text_completion"}
# Our providers' names where the conventions have another for them.
_PROVIDERS = {"azure": "azure.ai.openai", "mistral": "mistral_ai", "xai": "x_ai"}
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4.0**power for power in range(14))


class OpenTelemetrySink:
    """Makes one span of each call, and its measurements.

    The span is a child of the one that is current where the call begins, whoever ends it; it begins
    and ends when the call did. Prompts and answers are not in it. The providers are the global ones if left out.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as missing:
            raise ImportError(
                "OpenTelemetry is not installed; run: pip install 'headrace[otel]'"
            ) from missing
        self._tracer = trace.get_tracer("headrace", tracer_provider=tracer_provider)
        meter = metrics.get_meter("headrace", meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._client_kind = trace.SpanKind.CLIENT
        self._failed = trace.Status(trace.StatusCode.ERROR)
        self._here = context.get_current
        self._parents: dict[str, Context] = {}
        """Of the calls under way, by their ids."""

    def began(self, call_id: str) -> None:
        """A call begins here: whatever span is current now is the parent of its span."""
        self._parents[call_id] = self._here()

    def __call__(self, record: CallRecord) -> None:
        """Emit the span and the measurements of ``record``."""
        parent = self._parents.pop(record.call_id, None)
        shared = _shared(record)
        self._measure(record, shared)
        t = record.timeline
        begin, end = (
            wall_time(t, t.queued if t.queued is not None else t.sent),
            wall_time(t, t.done),
        )
        span = self._tracer.start_span(
            " ".join(filter(None, (shared["gen_ai.operation.name"], _asked_model(record)))),
            context=parent,
            kind=self._client_kind,
            attributes={**shared, **_details(record)},
            start_time=_nanoseconds(begin),
        )
        for attempt in record.attempts if len(record.attempts) > 1 else ():
            span.add_event(
                "headrace.attempt",
                {
                    "headrace.backend": attempt.backend,
                    **({"headrace.hedged": True} if attempt.hedged else {}),
                    **({"error.type": attempt.error_kind} if attempt.error_kind else {}),
                    **({"http.response.status_code": attempt.status} if attempt.status else {}),
                },
                timestamp=_nanoseconds(wall_time(t, attempt.begin)),
            )
        if record.error_kind is not None:
            span.set_status(self._failed)
        span.end(end_time=_nanoseconds(end))

    def _measure(self, record: CallRecord, shared: Mapping[str, Any]) -> None:
        duration, first = end_to_end(record.timeline), time_to_first_token(record.timeline)
        if duration is not None:
            self._duration.record(duration, shared)
        if first is not None and record.stream:
            self._first.record(first, shared)
        usage = record.usage
        if usage is None:
            return
        # Tokens are counted apart from how a call ended.
        counted = {key: value for key, value in shared.items() if key != "error.type"}
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**counted, "gen_ai.token.type": kind})


def _shared(record: CallRecord) -> dict[str, Any]:
    """The attributes that spans and measurements have alike: few values each."""
    provider = record.provider or "headrace"
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": _OPERATIONS.get(record.operation, record.operation),
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": _asked_model(record),
        "gen_ai.response.model": None if record.error_kind else record.model,
        "error.type": record.error_kind,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _details(record: CallRecord) -> dict[str, Any]:
    """What a span says besides; ours are under ``headrace.``."""
    t, usage = record.timeline, record.usage
    attributes: dict[str, Any] = {
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.finish_reasons": None
        if record.finish_reason is None
        else (record.finish_reason,),
        "gen_ai.response.time_to_first_chunk": time_to_first_token(t) if record.stream else None,
        "http.response.status_code": record.status,
        "headrace.call_id": record.call_id,
        "headrace.request_id": record.request_id,
        "headrace.run_id": record.run_id,
        "headrace.backend": record.backend,
        "headrace.route": record.route,
        "headrace.queue_s": queue_time(t),
        "headrace.attempts": len(record.attempts) or None,
        "headrace.hedge": None if record.hedge is None else record.hedge.outcome,
        "headrace.dropped": record.dropped or None,
        # As text: a float would be another amount.
        "headrace.price_usd": None if record.price_usd is None else f"{record.price_usd:f}",
    }
    if usage is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.input_cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.input_cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.output_reasoning_tokens,
            "headrace.tpot_s": time_per_output_token(t, usage.completion_tokens),
        }
    return {key: value for key, value in attributes.items() if value is not None}


def _asked_model(record: CallRecord) -> str | None:
    return record.requested_model or record.model


def _nanoseconds(unix_s: float | None) -> int | None:
    return None if unix_s is None else round(unix_s * 1e9)
