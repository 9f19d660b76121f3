"""A Tally in Prometheus' text format 0.0.4.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/. Three sets of names: those
vLLM's users have dashboards for (label ``model_name``), those of the OpenTelemetry GenAI
conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), and our own.
A server's time to first token counts from the call's arrival, as both of the others define it;
``headrace_time_to_first_token_seconds`` counts from sending to the backend, as our TTFT does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.numbers.histogram import FixedBuckets
from headrace.numbers.live import (
    DURATION_BOUNDS,
    FIRST_TOKEN_BOUNDS,
    OTEL_DURATION_BOUNDS,
    PER_TOKEN_BOUNDS,
    TOKEN_BOUNDS,
    VLLM_REQUEST_BOUNDS,
    Labels,
    Series,
    Tally,
    model_name,
)

Engines: TypeAlias = Mapping[str, Sequence[EngineMetrics]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OTEL_FIRST_TOKEN_BOUNDS = tuple(b for b in FIRST_TOKEN_BOUNDS if b <= 10)
_OTEL_PER_TOKEN_BOUNDS = tuple(b for b in PER_TOKEN_BOUNDS if b <= 2.5)

# vLLM's words for how a request ended; what it has no word for keeps ours.
_VLLM_REASONS = {"tool_calls": "stop", "cancelled": "abort"}
_OTEL_OPERATIONS = {"completion": "text_completion"}
_OTEL_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}


def write_metrics(tally: Tally, now: float, engines: Engines | None = None) -> bytes:
    """All metrics as they stand at the instant ``now``, to be sent as ``CONTENT_TYPE``.

    ``engines`` are what each backend's engines told of themselves, by the backend's name.
    """
    lines = [*_vllm(tally), *_otel(tally), *_own(tally, now), *_engines(engines or {}), ""]
    # A lone surrogate in a model's name has no UTF-8 form.
    return "\n".join(lines).encode("utf-8", "replace")


def _vllm(tally: Tally) -> Iterator[str]:
    by_model: dict[str, list[Series]] = {name: [] for name in tally.model_names()}
    for labels, series in tally.series.items():
        by_model[model_name(labels)].append(series)

    def each(count: Callable[[str, list[Series]], int]) -> Iterator[_Sample]:
        return (({"model_name": name}, count(name, group)) for name, group in by_model.items())

    def histograms(
        pick: Callable[[Series], FixedBuckets], bounds: tuple[float, ...]
    ) -> Iterator[_Distribution]:
        for name, group in by_model.items():
            yield {"model_name": name}, _merged(bounds, map(pick, group)), bounds

    yield from _family(
        "vllm:num_requests_running",
        "gauge",
        "Requests that are running.",
        each(lambda name, _: tally.running.get(name, 0)),
    )
    yield from _family(
        "vllm:num_requests_waiting",
        "gauge",
        "Requests that wait to be admitted.",
        each(lambda name, _: tally.waiting.get(name, 0)),
    )
    yield from _family(
        "vllm:prompt_tokens_total",
        "counter",
        "Input tokens, as backends counted them.",
        each(lambda _, group: sum(s.prompt_tokens for s in group)),
    )
    yield from _family(
        "vllm:generation_tokens_total",
        "counter",
        "Output tokens, as backends counted them.",
        each(lambda _, group: sum(s.completion_tokens for s in group)),
    )
    yield from _family(
        "vllm:request_success_total",
        "counter",
        "Requests that ended without an error or were aborted by the caller, by finish reason.",
        (
            ({"model_name": name, "finished_reason": reason}, n)
            for name, group in by_model.items()
            for reason, n in _finished(group).items()
        ),
    )
    yield from _histogram_family(
        "vllm:time_to_first_token_seconds",
        "Seconds from arrival to the first token, of successful requests.",
        histograms(lambda s: s.arrival_to_first, FIRST_TOKEN_BOUNDS),
    )
    yield from _histogram_family(
        "vllm:request_time_per_output_token_seconds",
        "Mean seconds per output token after the first, of successful requests.",
        histograms(lambda s: s.per_token, PER_TOKEN_BOUNDS),
    )
    yield from _histogram_family(
        "vllm:e2e_request_latency_seconds",
        "Seconds from arrival to the end, of successful requests.",
        (
            (
                {"model_name": name},
                _merged(DURATION_BOUNDS, (s.durations[""] for s in group if "" in s.durations)),
                VLLM_REQUEST_BOUNDS,
            )
            for name, group in by_model.items()
        ),
    )
    yield from _histogram_family(
        "vllm:request_queue_time_seconds",
        "Seconds from arrival to admission.",
        histograms(lambda s: s.queued, VLLM_REQUEST_BOUNDS),
    )


def _otel(tally: Tally) -> Iterator[str]:
    every = [(_otel_labels(labels), series) for labels, series in tally.series.items()]
    yield from _histogram_family(
        "gen_ai_server_time_to_first_token_seconds",
        "Seconds from arrival to the first token, of successful requests.",
        _merged_by_labels(
            ((labels, s.arrival_to_first) for labels, s in every), _OTEL_FIRST_TOKEN_BOUNDS
        ),
    )
    yield from _histogram_family(
        "gen_ai_server_time_per_output_token_seconds",
        "Mean seconds per output token after the first, of successful requests.",
        _merged_by_labels(((labels, s.per_token) for labels, s in every), _OTEL_PER_TOKEN_BOUNDS),
    )
    yield from _histogram_family(
        "gen_ai_server_request_duration_seconds",
        "Seconds from arrival to the end; error_type is empty where the request succeeded.",
        _merged_by_labels(
            (
                ({**labels, "error_type": error}, buckets)
                for labels, s in every
                for error, buckets in s.durations.items()
            ),
            OTEL_DURATION_BOUNDS,
        ),
    )
    yield from _histogram_family(
        "gen_ai_client_token_usage",
        "Tokens of a request, as the backend counted them.",
        _merged_by_labels(
            (
                ({**labels, "gen_ai_token_type": kind}, buckets)
                for labels, s in every
                for kind, buckets in (("input", s.input_tokens), ("output", s.output_tokens))
            ),
            TOKEN_BOUNDS,
        ),
    )


def _own(tally: Tally, now: float) -> Iterator[str]:
    yield from _family(
        "headrace_uptime_seconds",
        "gauge",
        "Seconds since counting began.",
        [({}, max(0.0, now - tally.started))],
    )
    yield from _family(
        "headrace_requests_total",
        "counter",
        "Finished requests; error_type is empty where the request succeeded.",
        (
            (
                {
                    **_own_labels(labels),
                    "status": "" if status is None else str(status),
                    "error_type": error,
                },
                n,
            )
            for labels, s in tally.series.items()
            for (status, error), n in s.ended.items()
        ),
    )
    yield from _family(
        "headrace_hedges_total",
        "counter",
        "Requests whose first token was late, by what became of a second request for it.",
        (
            ({**_own_labels(labels), "outcome": outcome}, n)
            for labels, s in tally.series.items()
            for outcome, n in s.hedges.items()
        ),
    )
    yield from _family(
        "headrace_cost_usd_total",
        "counter",
        "US dollars that calls with a known price cost.",
        (
            (_own_labels(labels), float(s.price_usd))
            for labels, s in tally.series.items()
            if s.priced
        ),
    )
    yield from _histogram_family(
        "headrace_time_to_first_token_seconds",
        "Seconds from sending to the backend to the first token, of successful requests.",
        (
            (_own_labels(labels), s.sent_to_first, FIRST_TOKEN_BOUNDS)
            for labels, s in tally.series.items()
        ),
    )


_ENGINE_FAMILIES = (
    ("running", "requests_running", "gauge", "Requests that the engine computes."),
    ("queued", "requests_waiting", "gauge", "Requests that wait in the engine."),
    ("batch_size", "batch_size", "gauge", "Requests in a step of the engine, in the mean."),
    ("batch_occupancy", "batch_occupancy", "gauge", "Share of the batch's places that are taken."),
    ("cache_usage", "cache_usage", "gauge", "Share of the cache of keys and values in use."),
    ("prefix_hit_rate", "prefix_hit_rate", "gauge", "Share of prompt tokens found in that cache."),
    ("prompt_tokens", "prompt_tokens_total", "counter", "Input tokens, as the engine counts."),
    ("completion_tokens", "generation_tokens_total", "counter", "Output tokens, as it counts."),
)


def _engines(engines: Engines) -> Iterator[str]:
    """What engines told, whoever sent them their requests; one that tells nothing has no line."""
    told = [
        ({"backend": backend, "engine": each.engine}, each)
        for backend, several in engines.items()
        for each in several
    ]
    for field, name, kind, help_text in _ENGINE_FAMILIES if told else ():
        values = ((labels, getattr(each, field)) for labels, each in told)
        known = [(labels, value) for labels, value in values if value is not None]
        yield from _family(f"headrace_engine_{name}", kind, help_text, known)


def _own_labels(labels: Labels) -> dict[str, str]:
    return {
        "operation": labels.operation,
        "requested_model": labels.requested_model,
        "model": labels.model,
        "provider": labels.provider,
        "backend": labels.backend,
    }


def _otel_labels(labels: Labels) -> dict[str, str]:
    provider = labels.provider or labels.backend
    return {
        "gen_ai_operation_name": _OTEL_OPERATIONS.get(labels.operation, labels.operation),
        "gen_ai_provider_name": _OTEL_PROVIDERS.get(provider, provider or "_OTHER"),
        "gen_ai_request_model": labels.requested_model,
        "gen_ai_response_model": labels.model,
    }


def _finished(group: Iterable[Series]) -> dict[str, int]:
    counts = dict.fromkeys(("stop", "length", "abort"), 0)
    for s in group:
        for ours, n in s.finished.items():
            reason = _VLLM_REASONS.get(ours, ours)
            counts[reason] = counts.get(reason, 0) + n
        counts["abort"] += sum(n for (_, e), n in s.ended.items() if e == "LLMCancelledError")
    return counts


def _merged(bounds: tuple[float, ...], parts: Iterable[FixedBuckets]) -> FixedBuckets:
    whole = FixedBuckets(bounds)
    for part in parts:
        whole.merge(part)
    return whole


def _merged_by_labels(
    parts: Iterable[tuple[Mapping[str, str], FixedBuckets]], bounds: tuple[float, ...]
) -> Iterator[_Distribution]:
    """The backend is no label of these, so several series may share their labels."""
    whole: dict[tuple[tuple[str, str], ...], FixedBuckets] = {}
    for labels, buckets in parts:
        key = tuple(labels.items())
        if key not in whole:
            whole[key] = FixedBuckets(buckets.bounds)
        whole[key].merge(buckets)
    return ((dict(key), buckets, bounds) for key, buckets in whole.items())


# The format itself.

_Sample = tuple[Mapping[str, str], float]
_Distribution = tuple[Mapping[str, str], FixedBuckets, tuple[float, ...]]


def _family(name: str, kind: str, help_text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value}"


def _histogram_family(name: str, help_text: str, parts: Iterable[_Distribution]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} histogram"
    for labels, buckets, bounds in parts:
        for bound, n in zip(bounds, buckets.cumulative(bounds), strict=True):
            yield f"{name}_bucket{_labels({**labels, 'le': str(bound)})} {n}"
        yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {buckets.count}"
        yield f"{name}_sum{_labels(labels)} {buckets.total}"
        yield f"{name}_count{_labels(labels)} {buckets.count}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
