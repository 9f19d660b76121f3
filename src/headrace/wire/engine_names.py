"""How each engine calls what it tells about itself: one table for the gateway and the load test.

Where a name has changed the newer one stands first. A name is as Prometheus shows it, so counters
end in ``_total`` where the engine's library adds that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from attrs import frozen

from headrace.wire.prometheus_text import MetricKind

Values: TypeAlias = Mapping[str, Sequence[float]]
"""What stands on a page, by name: one value for each replica, model or other label."""


@frozen
class Total:
    """All values of ``names`` together, where the first of them is there."""

    names: tuple[str, ...]

    def of(self, values: Values) -> float | None:
        """Their sum."""
        if self.names[0] not in values:
            return None
        return sum(sum(values.get(name, ())) for name in self.names)


@frozen
class Share:
    """``part`` in ``whole``, each of several names added up, where all of them are there."""

    part: tuple[str, ...]
    whole: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once."""
        return tuple(dict.fromkeys((*self.part, *self.whole)))

    def of(self, values: Values) -> float | None:
        """Their ratio; of nothing there is none."""
        if any(name not in values for name in self.names):
            return None
        whole = sum(sum(values[name]) for name in self.whole)
        return sum(sum(values[name]) for name in self.part) / whole if whole else None


@frozen
class Mean:
    """The mean of all values of ``name``: a share is not added up over replicas."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    def of(self, values: Values) -> float | None:
        """Their mean."""
        found = values.get(self.name)
        return sum(found) / len(found) if found else None


Figure: TypeAlias = Total | Share | Mean


@frozen(kw_only=True)
class EngineNames:
    """One engine's names for the fields of EngineMetrics; the first figure that is there counts.

    ``source`` is the page that says so. ``running_holds_queued`` says that it counts those who wait
    among those who run. ``known_by`` is a name that is on no other engine's page, where its other
    names are. ``also`` are further metrics that a load report shows.
    """

    engine: str
    source: str
    running: tuple[Figure, ...] = ()
    queued: tuple[Figure, ...] = ()
    batch_size: tuple[Figure, ...] = ()
    cache_usage: tuple[Figure, ...] = ()
    prefix_hit_rate: tuple[Figure, ...] = ()
    prompt_tokens: tuple[Figure, ...] = ()
    completion_tokens: tuple[Figure, ...] = ()
    running_holds_queued: bool = False
    known_by: str | None = None
    also: tuple[str, ...] = ()

    def named(self, field: str) -> tuple[Figure, ...]:
        """What it has for ``field`` of EngineMetrics."""
        figures: tuple[Figure, ...] = getattr(self, field)
        return figures

    def names(self) -> tuple[str, ...]:
        """Every metric of its page that tells something."""
        told = (name for field in FIELDS for figure in self.named(field) for name in figure.names)
        return tuple(dict.fromkeys((*told, *self.also)))


FIELDS = (
    "running",
    "queued",
    "batch_size",
    "cache_usage",
    "prefix_hit_rate",
    "prompt_tokens",
    "completion_tokens",
)

ENGINES: tuple[EngineNames, ...] = (
    # numbers.prometheus: it uses vLLM's names for what both have.
    EngineNames(
        engine="headrace",
        source="operations.md#metrics",
        known_by="headrace_uptime_seconds",
        running=(Total(("vllm:num_requests_running",)),),
        queued=(Total(("vllm:num_requests_waiting",)),),
        prompt_tokens=(Total(("vllm:prompt_tokens_total",)),),
        completion_tokens=(Total(("vllm:generation_tokens_total",)),),
        also=("headrace_requests_total",),
    ),
    # Before 0.10 gpu_cache_usage_perc (https://docs.vllm.ai/en/v0.8.5/serving/metrics.html), and
    # the counters of prefixes had gpu_ in their names; version 0 had a rate instead of them.
    EngineNames(
        engine="vllm",
        source="https://docs.vllm.ai/en/stable/usage/metrics/",
        running=(Total(("vllm:num_requests_running",)),),
        queued=(Total(("vllm:num_requests_waiting",)),),
        cache_usage=(Mean("vllm:kv_cache_usage_perc"), Mean("vllm:gpu_cache_usage_perc")),
        prefix_hit_rate=(
            Share(("vllm:prefix_cache_hits_total",), ("vllm:prefix_cache_queries_total",)),
            Share(("vllm:gpu_prefix_cache_hits_total",), ("vllm:gpu_prefix_cache_queries_total",)),
            Mean("vllm:gpu_prefix_cache_hit_rate"),
        ),
        prompt_tokens=(Total(("vllm:prompt_tokens_total",)),),
        completion_tokens=(Total(("vllm:generation_tokens_total",)),),
        also=("vllm:num_preemptions_total",),
    ),
    # With --enable-metrics.
    EngineNames(
        engine="sglang",
        source="https://docs.sglang.io/docs/references/production_metrics",
        running=(Total(("sglang:num_running_reqs",)),),
        queued=(Total(("sglang:num_queue_reqs",)),),
        cache_usage=(Mean("sglang:token_usage"),),
        prefix_hit_rate=(
            Share(("sglang:cached_tokens_total",), ("sglang:prompt_tokens_total",)),
            Mean("sglang:cache_hit_rate"),
        ),
        prompt_tokens=(Total(("sglang:prompt_tokens_total",)),),
        completion_tokens=(Total(("sglang:generation_tokens_total",)),),
        also=("sglang:num_used_tokens", "sglang:gen_throughput"),
    ),
    # With --metrics. Its prompt tokens are without the cached ones, which older builds do not tell;
    # the cache's gauge is gone from newer ones.
    EngineNames(
        engine="llama-server",
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        running=(Total(("llamacpp:requests_processing",)),),
        queued=(Total(("llamacpp:requests_deferred",)),),
        batch_size=(Mean("llamacpp:n_busy_slots_per_decode"),),
        cache_usage=(Mean("llamacpp:kv_cache_usage_ratio"),),
        prefix_hit_rate=(
            Share(
                ("llamacpp:prompt_tokens_cached_total",),
                ("llamacpp:prompt_tokens_cached_total", "llamacpp:prompt_tokens_total"),
            ),
        ),
        prompt_tokens=(
            Total(("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total")),
        ),
        completion_tokens=(Total(("llamacpp:tokens_predicted_total",)),),
    ),
    # OpenTelemetry names, whose dots its Prometheus exporter makes underscores and to which it adds
    # their unit. Who waits for the scheduler runs already, as the HTTP server counts.
    EngineNames(
        engine="max",
        source="https://github.com/modular/modular/blob/main/max/python/max/serve/telemetry/metrics.py",
        running=(Total(("maxserve_num_requests_running",)),),
        queued=(Total(("maxserve_num_requests_queued",)),),
        running_holds_queued=True,
        batch_size=(Share(("maxserve_batch_size_sum",), ("maxserve_batch_size_count",)),),
        cache_usage=(
            Share(("maxserve_cache_num_used_blocks",), ("maxserve_cache_num_total_blocks",)),
        ),
        prefix_hit_rate=(
            Share(
                ("maxserve_cache_hits_tokens_total",),
                ("maxserve_cache_hits_tokens_total", "maxserve_cache_misses_tokens_total"),
            ),
        ),
        prompt_tokens=(Total(("maxserve_num_input_tokens_total",)),),
        completion_tokens=(Total(("maxserve_num_output_tokens_total",)),),
    ),
    # Its counts of tokens are the sums of its histograms.
    EngineNames(
        engine="tgi",
        source="https://huggingface.co/docs/text-generation-inference/reference/metrics",
        running=(Total(("tgi_batch_current_size",)),),
        queued=(Total(("tgi_queue_size",)),),
        prompt_tokens=(Total(("tgi_request_input_length_sum",)),),
        completion_tokens=(Total(("tgi_request_generated_tokens_sum",)),),
        also=("tgi_batch_current_max_tokens", "tgi_request_count", "tgi_request_success"),
    ),
)

_COUNTERS = ("_total", "_sum", "_count", "_success")


def kind_of(name: str) -> MetricKind:
    """What a metric of the table is; some pages call a gauge of theirs a counter."""
    return "counter" if name.endswith(_COUNTERS) else "gauge"
