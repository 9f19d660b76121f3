"""What an engine tells about itself, in the same words whatever engine it is."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class EngineMetrics:
    """An engine at one instant, whoever asks it; what it does not tell is ``None``.

    ``running`` requests are computed and ``queued`` wait in the engine. One step computes
    ``batch_size`` of them in the mean since the engine began, and ``batch_occupancy`` is the share
    of its places that are taken now, 1.0 being full. ``cache_usage`` is the share of the cache for
    keys and values that is taken, and ``prefix_hit_rate`` the share of the prompts' tokens that
    were found there since the engine began (SGLang's without counters: in its last batch).
    ``prompt_tokens`` and ``completion_tokens`` are those since it began. ``loaded`` are the models
    that it holds in memory, told by engines that load them as they are asked for.
    """

    engine: str
    running: int | None = None
    queued: int | None = None
    batch_size: float | None = None
    batch_occupancy: float | None = None
    cache_usage: float | None = None
    prefix_hit_rate: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    loaded: tuple[str, ...] | None = None
