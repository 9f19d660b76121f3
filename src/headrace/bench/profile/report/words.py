"""Figures of a profile as people read them; every form of the report says them so."""

from __future__ import annotations

from headrace.bench.report.words import NOTHING, number
from headrace.contracts.profile_report import Peak, ProfileReport, StageFigures
from headrace.contracts.profiling import OperatorSummary

_STEPS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def scaled(value: float | None, unit: str) -> str:
    """Three figures with a decimal prefix: 4.21 TFLOP/s."""
    if value is None:
        return NOTHING
    by, prefix = next(((by, name) for by, name in _STEPS if abs(value) >= by), (1.0, ""))
    part = value / by
    digits = 0 if abs(part) >= 99.95 or part == int(part) else 1 if abs(part) >= 9.995 else 2
    return f"{part:.{digits}f} {prefix}{unit}"


def flops(value: float | None) -> str:
    """Work."""
    return scaled(value, "FLOP")


def flops_per_s(value: float | None) -> str:
    """Work a second."""
    return scaled(value, "FLOP/s")


def bytes_(value: float | None) -> str:
    """An amount of memory, in powers of ten."""
    return scaled(value, "B")


def bytes_per_s(value: float | None) -> str:
    """What is moved a second."""
    return scaled(value, "B/s")


def intensity(value: float | None) -> str:
    """FLOPs a byte."""
    return f"{number(value)} FLOP/B" if value is not None else NOTHING


def gain(value: float | None) -> str:
    """What can be gained at most: a share of the time, or how many times faster."""
    return NOTHING if value is None else f"{number(value)}×"


def model_of(report: ProfileReport) -> str:
    """The model, or where it was where nothing names it."""
    return report.model_name or report.request.model_path


def device_of(report: ProfileReport) -> str:
    """The device, as its maker calls it where that is known."""
    return report.environment.device_name or report.environment.device


def stage_of(stage: StageFigures) -> str:
    """A stage, and the one that it is a part of."""
    return stage.stage if stage.inside is None else f"{stage.stage} (in {stage.inside})"


def own_ms(operator: OperatorSummary) -> float:
    """An operator's own time where its work was done: on the GPU, where it ran there."""
    return operator.cuda_time_ms or operator.total_time_ms


def peak_name(peak: Peak) -> str:
    """Who says a peak, and of what."""
    return f"{peak.source}, {peak.dtype}" if peak.dtype else peak.source
