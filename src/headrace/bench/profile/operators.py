"""Operators by their own time, in a run apart: one prefill and a few decode steps.

Watching costs time, so nothing that is told as a time of the model comes from here; how much it
cost is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen

from headrace.bench.profile import needs
from headrace.bench.profile.counting import Counted, counter
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.passes import Runner
from headrace.bench.profile.preparing import prepare
from headrace.bench.profile.stopping import Stop, ends_if_asked
from headrace.bench.profile.watching import Watch
from headrace.contracts.profiling import OperatorSummary
from headrace.numbers.roofline import Roof, share_of_limit

STEPS = 4
TRACE = "trace.json.gz"
_STAGE = "headrace: "
_LOOKS = 3
"""The profiler looks so often, and the quietest time is told: other programs only ever add to it."""
_KERNELS = {
    "aten::convolution": (
        "aten::mkldnn_convolution",
        "aten::cudnn_convolution",
        "aten::_slow_conv2d_forward",
        "aten::slow_conv3d_forward",
        "aten::_conv_depthwise2d",
    ),
    "aten::_scaled_dot_product_flash_attention": ("aten::_flash_attention_forward",),
    "aten::_scaled_dot_product_efficient_attention": ("aten::_efficient_attention_forward",),
    "aten::mean": ("aten::sum",),
    "aten::embedding": ("aten::index_select",),
    "aten::bmm": ("aten::mkldnn_bmm",),
}
"""Who does the work of an operator that is counted by its outer name: theirs is the time."""
_WORTH_TELLING = 0.005
"""An operator without a formula is named where it took this share of the time of its stage."""


@frozen(kw_only=True)
class Spent:
    """Wall seconds of one prefill and of one decode step."""

    prefill_s: float
    step_s: float | None


@frozen(kw_only=True)
class Observed:
    """What the run apart found; ``profiled`` and ``counted`` are how long it took under each."""

    input: str
    steps: int
    operators: tuple[OperatorSummary, ...]
    uncounted: tuple[str, ...]
    profiled: Spent
    counted: Spent
    vision: Counted | None


@define
class _Own:
    host_us: float = 0.0
    device_us: float = 0.0
    calls: int = 0


def observe(
    runner: Runner, given: Given, most: int, roof: Roof, stop: Stop, artifacts: Path | None
) -> Observed:
    """Profile and count ``given``; the trace goes to ``artifacts``."""
    steps = min(STEPS, most - 1)
    counts = counter(lambda: "vision" if runner.watch.inside else str(runner.stage))
    ends_if_asked(stop)
    own, profiled = _quietest(runner, given, steps, stop, artifacts)
    ends_if_asked(stop)
    # After the profiler: a compiled model runs as it is written while it is counted.
    with counts:
        # Not inference_mode: there an operator made of others is not seen as these.
        counted = _run(runner, given, steps, stop, needs.torch().no_grad())
    found, own = _by_kernel(counts.found, own)
    operators = _operators(own, found, roof)
    vision = [each for (stage, _), each in found.items() if stage == "vision"]
    return Observed(
        input=given.name,
        steps=steps,
        operators=operators,
        uncounted=_uncounted(own, found),
        profiled=profiled,
        counted=counted,
        vision=Counted(flops=sum(each.flops for each in vision)) if vision else None,
    )


def _run(runner: Runner, given: Given, steps: int, stop: Stop, mode: Any) -> Spent:
    """One prefill and ``steps`` more, each under its stage."""
    torch = needs.torch()
    mark = torch.profiler.record_function
    now = time.perf_counter
    with mode:
        inputs = prepare(runner.loaded, given)
        runner.finish()
        began = now()
        with runner.running("prefill"), mark(_STAGE + "prefill"):
            token, cache = runner.prefill(inputs)
            runner.finish()
        read = now()
        with runner.running("decode"), mark(_STAGE + "decode"):
            for _ in range(steps):
                ends_if_asked(stop)
                token, cache = runner.step(token, cache)
                runner.finish()
        done = now()
    return Spent(prefill_s=read - began, step_s=(done - read) / steps if steps else None)


def _quietest(
    runner: Runner, given: Given, steps: int, stop: Stop, artifacts: Path | None
) -> tuple[dict[tuple[str, str], _Own], Spent]:
    looks = []
    for _ in range(_LOOKS):
        ends_if_asked(stop)
        profiler, spent = _profile(runner, given, steps, stop)
        looks.append((spent.prefill_s + steps * (spent.step_s or 0.0), profiler, spent))
    _, profiler, spent = min(looks, key=lambda look: look[0])
    if artifacts is not None:
        profiler.export_chrome_trace(str(artifacts / TRACE))
    return _own_times(profiler.events()), spent


def _profile(runner: Runner, given: Given, steps: int, stop: Stop) -> tuple[Any, Spent]:
    torch = needs.torch()
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CPU, kinds.CUDA] if runner.loaded.on_cuda else [kinds.CPU]
    runner.watch.marking = True
    try:
        with torch.profiler.profile(activities=activities) as profiler:
            # As it was timed, or a compiled model would be compiled anew.
            spent = _run(runner, given, steps, stop, torch.inference_mode())
    finally:
        runner.watch.marking = False
    return profiler, spent


def _by_kernel(
    found: dict[tuple[str, str], Counted], own: dict[tuple[str, str], _Own]
) -> tuple[dict[tuple[str, str], Counted], dict[tuple[str, str], _Own]]:
    """Counts and times under one name each: the kernel's, or the operator's where several did it."""
    counts, times = dict(found), dict(own)
    for (stage, name), counted in found.items():
        kernels = [k for k in _KERNELS.get(name, ()) if (stage, k) in own]
        if any((stage, kernel) in found for kernel in kernels):
            continue
        if len(kernels) == 1:
            counts[stage, kernels[0]] = counts.pop((stage, name))
        elif kernels:
            # Which of them did which FLOPs is not told, so their times are told together too.
            parts = [times.pop((stage, kernel)) for kernel in kernels]
            outer = times.get((stage, name), _Own())
            times[stage, name] = _Own(
                host_us=outer.host_us + sum(part.host_us for part in parts),
                device_us=outer.device_us + sum(part.device_us for part in parts),
                calls=counted.calls,
            )
    return counts, times


def _own_times(events: Sequence[Any]) -> dict[tuple[str, str], _Own]:
    """Own times by stage and operator; a stage is a span of the host's time."""
    # A kernel on the device is an event of its own too; its time is already its operator's.
    events = [event for event in events if event.device_type.name == "CPU"]
    spans: list[tuple[float, float, str]] = []
    for event in events:
        if event.name == Watch.MARK:
            spans.insert(0, (event.time_range.start, event.time_range.end, "vision"))
        elif event.name.startswith(_STAGE):
            stage = event.name.removeprefix(_STAGE)
            spans.append((event.time_range.start, event.time_range.end, stage))
    found: dict[tuple[str, str], _Own] = {}
    for event in events:
        if event.name == Watch.MARK or event.name.startswith(_STAGE):
            continue
        at = event.time_range.start
        stage = next((name for start, end, name in spans if start <= at <= end), None)
        if stage is None:
            continue  # preparing the input
        entry = found.setdefault((stage, event.name), _Own())
        entry.host_us += event.self_cpu_time_total
        entry.device_us += event.self_device_time_total
        entry.calls += 1
    return found


def _operators(
    own: dict[tuple[str, str], _Own], found: dict[tuple[str, str], Counted], roof: Roof
) -> tuple[OperatorSummary, ...]:
    made = []
    whole = _whole(own)
    for (stage, name), each in own.items():
        counted = found.get((stage, name))
        taken_us = each.device_us or each.host_us
        flops = counted.flops if counted is not None and counted.known else None
        moved = counted.bytes if counted is not None else None
        share = (
            share_of_limit(flops or 0.0, moved, taken_us / 1e6, roof) if moved or flops else None
        )
        made.append(
            OperatorSummary(
                op_name=name,
                total_time_ms=each.host_us / 1e3,
                cuda_time_ms=each.device_us / 1e3,
                calls=each.calls,
                stage=stage,
                flops=flops,
                bytes=moved,
                share_of_roof=share,
                share_of_stage=taken_us / whole[stage] if whole[stage] else None,
            )
        )
    return tuple(sorted(made, key=lambda o: -(o.cuda_time_ms or o.total_time_ms)))


def _whole(own: dict[tuple[str, str], _Own]) -> dict[str, float]:
    """Own time of all operators of each stage, in microseconds."""
    whole: dict[str, float] = {}
    for (stage, _), each in own.items():
        whole[stage] = whole.get(stage, 0.0) + (each.device_us or each.host_us)
    return whole


def _uncounted(
    own: dict[tuple[str, str], _Own], found: dict[tuple[str, str], Counted]
) -> tuple[str, ...]:
    """Operators without a formula that took time, and how much of their stage's."""
    whole = _whole(own)
    shares: dict[str, list[tuple[float, str]]] = {}
    for (stage, name), each in own.items():
        share = (each.device_us or each.host_us) / whole[stage] if whole[stage] else 0.0
        if share >= _WORTH_TELLING and not _is_accounted(name, found.get((stage, name))):
            shares.setdefault(name, []).append((share, stage))
    lines = []
    for name, by_stage in shares.items():
        parts = [f"{share:.1%} of {stage}'s" for share, stage in sorted(by_stage, reverse=True)]
        lines.append((max(by_stage), f"{name}: no FLOP formula, {', '.join(parts)} operator time"))
    return tuple(line for _, line in sorted(lines, reverse=True))


def _is_accounted(name: str, counted: Counted | None) -> bool:
    """Whether nothing of it is missing: it has a formula, is a view, or others do its work."""
    if counted is not None:
        return counted.known or counted.bytes == 0
    has_kernel = needs.torch()._C._dispatch_has_kernel_for_dispatch_key
    try:
        return bool(has_kernel(name, "CompositeImplicitAutograd"))
    except RuntimeError:
        return False  # no operator of torch's: a compiled kernel, say
