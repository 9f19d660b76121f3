"""The whole of what a profile found; as JSON a stable format, ``report.json`` of a run's artifacts.

The summary for the wire is in ``profiling``. Times are milliseconds, memory is bytes, rates are a
second. What is not known is None or absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import frozen

from headrace.contracts.profiling import (
    LLMProfileReportSummary,
    LLMProfileRequest,
    OperatorSummary,
    Stats,
)

FORMAT = "headrace.profile/1"

StageName: TypeAlias = Literal["preprocess", "vision", "prefill", "decode"]
"""``vision`` lies inside prefill and is never added to it."""


@frozen(kw_only=True)
class Peak:
    """What a device can do at best: FLOP/s in ``dtype``, bytes/s of its memory, and who says so."""

    source: Literal["measured", "datasheet"]
    dtype: str
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    spread: float | None = None
    cpu_share: float | None = None
    text: str = ""


@frozen(kw_only=True)
class StageFigures:
    """One stage over all timed passes, one figure an input and repeat.

    ``flops`` and ``bytes`` are of one pass over all inputs, by the analytic model; ``intensity`` is
    FLOPs a byte, ``floor_ms`` the least time that the device could have taken for them,
    ``bound`` what that floor is made of. ``mfu``, ``mbu`` and ``of_floor`` are floor over time of each.
    ``flops_per_s`` and ``bytes_per_s`` are what was reached: those of one pass over its time.
    """

    stage: StageName
    time_ms: Stats
    values_ms: tuple[float, ...] = ()
    share: float | None = None
    inside: StageName | None = None
    tokens: int | None = None
    flops: float | None = None
    bytes: float | None = None
    intensity: float | None = None
    floor_ms: float | None = None
    bound: Literal["compute", "memory"] | None = None
    mfu: float | None = None
    mbu: float | None = None
    of_floor: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None


@frozen(kw_only=True)
class MemoryMoment:
    """Memory in use ``at_ms`` after the first timed pass began."""

    at_ms: float
    allocated: int
    stage: StageName | None = None


@frozen(kw_only=True)
class Noise:
    """How quiet the machine was while it was timed.

    ``cpu_share`` is the share of the cores it asked for that the process got, ``variation`` the largest
    coefficient of variation of a stage. ``verdict``: clean where the figures can be compared with
    another run's.
    """

    verdict: Literal["clean", "noisy", "unknown"]
    text: str
    cpu_share: float | None = None
    variation: float | None = None
    stolen_share: float | None = None


@frozen(kw_only=True)
class Overhead:
    """How much longer a pass took when watched, as a ratio; it is in no time told here.

    ``prefill`` and ``decode`` under the operator profiler, the others while FLOPs were counted.
    """

    prefill: float | None = None
    decode: float | None = None
    counting_prefill: float | None = None
    counting_decode: float | None = None


@frozen(kw_only=True)
class KernelSummary:
    """A kernel of the GPU over all its launches in a stage, as NVIDIA's profilers tell it.

    ``memory_share`` and ``compute_share`` are shares of what the device sustains at most; nsys does
    not know them.
    """

    name: str
    source: Literal["nsys", "ncu"]
    calls: int
    time_ms: float
    stage: str | None = None
    memory_share: float | None = None
    compute_share: float | None = None


@frozen(kw_only=True)
class Recommendation:
    """Something that can be done, the number that speaks for it, and what it would gain at most."""

    text: str
    because: str
    gain: float | None = None


@frozen(kw_only=True)
class Prediction:
    """What the model said to one input."""

    input: str
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None


@frozen(kw_only=True)
class Environment:
    """Where it ran: versions and hardware, by name."""

    device: str
    device_name: str | None
    facts: Mapping[str, str] = {}


@frozen(kw_only=True)
class ProfileReport:
    """A whole profile. ``verdict`` is one sentence that somebody can act on.

    ``kv_bytes`` is the largest cache as it lay in memory, ``kv_bytes_needed`` what the analytic model
    says for as many tokens. ``ended`` says why a run that is not ``complete`` ended early.
    """

    run_id: str
    started: str
    request: LLMProfileRequest
    summary: LLMProfileReportSummary
    verdict: str
    environment: Environment
    noise: Noise
    format: str = FORMAT
    version: str = ""
    model_name: str = ""
    parameters: int | None = None
    weight_bytes: int | None = None
    kv_bytes_per_token: float | None = None
    dtype: str = ""
    attention: str = ""
    compiled: bool = False
    inputs: tuple[str, ...] = ()
    repeats: int = 0
    ttft_ms: Stats | None = None
    tpot_ms: Stats | None = None
    total_ms: Stats | None = None
    stages: tuple[StageFigures, ...] = ()
    operators: tuple[OperatorSummary, ...] = ()
    kernels: tuple[KernelSummary, ...] = ()
    memory: tuple[MemoryMoment, ...] = ()
    peak_memory: int | None = None
    kv_bytes: int | None = None
    kv_bytes_needed: float | None = None
    peaks: tuple[Peak, ...] = ()
    overhead: Overhead | None = None
    recommendations: tuple[Recommendation, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    uncounted: tuple[str, ...] = ()
    conventions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    ended: str | None = None
