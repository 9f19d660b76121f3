"""Timed passes into figures: stages with their spread and their share of the device's limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.bench.profile.noise import Spread
from headrace.bench.profile.passes import Timed
from headrace.bench.profile.work import Work
from headrace.contracts.profile_report import StageFigures, StageName
from headrace.contracts.profiling import Stats
from headrace.numbers.roofline import Roof, floor, intensity, mbu, mfu
from headrace.numbers.stats import mean, sample_std
from headrace.numbers.welch import half_width

_COUNTS = 0.05
"""Any other stage counts for the verdict on noise from this share of the whole."""
_QUOTED: frozenset[StageName] = frozenset({"prefill", "decode"})

_TIMES: dict[StageName, Callable[[Timed], float]] = {
    "preprocess": lambda t: t.preprocess_s,
    "vision": lambda t: t.vision_s,
    "prefill": lambda t: t.prefill_s,
    "decode": lambda t: t.decode_s,
}


def stats(values: Sequence[float]) -> Stats | None:
    """Mean and sample standard deviation (0 of one value, whose ``count`` tells); None of none."""
    middle = mean(values)
    if middle is None:
        return None
    return Stats(
        mean=middle,
        std=sample_std(values) or 0.0,
        count=len(values),
        minimum=min(values),
        maximum=max(values),
    )


def stage_figures(
    passes: Sequence[Timed], work: dict[StageName, Work], inputs: int, roof: Roof
) -> tuple[StageFigures, ...]:
    """Each stage that ran. ``work`` and ``tokens`` are of one pass over all ``inputs``."""
    whole = mean([timed.whole_s for timed in passes])
    found = []
    for stage, time_of in _TIMES.items():
        values = [time_of(timed) for timed in passes]
        if stage == "vision" and not any(values):
            continue
        if stage == "decode" and not any(timed.steps_s for timed in passes):
            continue
        time_ms = stats([value * 1e3 for value in values])
        if time_ms is None:
            continue
        need = work.get(stage, Work())
        seconds = time_ms.mean / 1e3 * inputs
        least = floor(need.flops, need.bytes, roof)
        once = passes[:inputs]
        tokens = {
            "prefill": sum(timed.input_tokens for timed in once),
            "decode": sum(len(timed.steps_s) for timed in once),
        }
        found.append(
            StageFigures(
                stage=stage,
                time_ms=time_ms,
                values_ms=tuple(value * 1e3 for value in values),
                share=time_ms.mean / 1e3 / whole if whole else None,
                inside="prefill" if stage == "vision" else None,
                tokens=tokens.get(stage),
                flops=need.flops,
                bytes=need.bytes,
                intensity=intensity(need.flops, need.bytes),
                floor_ms=None if least is None else least.seconds * 1e3,
                bound=None if least is None else least.bound,
                mfu=mfu(need.flops, seconds, roof),
                mbu=mbu(need.bytes, seconds, roof),
                of_floor=None if least is None or not seconds else least.seconds / seconds,
            )
        )
    return tuple(found)


def whole_shares(
    passes: Sequence[Timed], work: dict[StageName, Work], inputs: int, roof: Roof
) -> tuple[float | None, float | None]:
    """MFU and MBU of the whole run: prefill's and decode's work over all of its time."""
    whole = mean([timed.whole_s for timed in passes])
    parts = [work[stage] for stage in ("prefill", "decode") if stage in work]
    if whole is None or not parts:
        return None, None
    seconds = whole * inputs
    flops = [part.flops for part in parts]
    moved = [part.bytes for part in parts]
    return (
        None if None in flops else mfu(sum(f for f in flops if f is not None), seconds, roof),
        None if None in moved else mbu(sum(b for b in moved if b is not None), seconds, roof),
    )


def aggregates(passes: Sequence[Timed]) -> dict[str, Stats]:
    """Times and rates by name, a figure an input and repeat."""
    samples: dict[str, list[float]] = {
        "ttft_ms": [timed.first_token_s * 1e3 for timed in passes],
        "tpot_ms": [timed.token_s * 1e3 for timed in passes if timed.token_s is not None],
        "total_ms": [timed.whole_s * 1e3 for timed in passes],
        "prefill_tokens_per_s": [timed.input_tokens / timed.prefill_s for timed in passes],
        "decode_tokens_per_s": [1 / timed.token_s for timed in passes if timed.token_s],
    }
    for stage, time_of in _TIMES.items():
        values = [time_of(timed) * 1e3 for timed in passes]
        if any(values):
            samples[f"{stage}_ms"] = values
    made = {name: stats(values) for name, values in samples.items()}
    return {name: value for name, value in made.items() if value is not None}


def spreads(passes: Sequence[Timed], inputs: int) -> list[Spread]:
    """How far repeats lie apart, of each stage's time over all inputs.

    Of whole repeats alone; of reading the input and of decoding always, since the time to the first
    token and that of each after it are quoted, and of another stage that takes a twentieth of the
    time or more.
    """
    repeats = [passes[i : i + inputs] for i in range(0, len(passes) - inputs + 1, inputs)]
    whole = mean([sum(t.whole_s for t in repeat) for repeat in repeats])
    found = []
    for stage, time_of in _TIMES.items():
        sums = [sum(time_of(timed) for timed in repeat) for repeat in repeats]
        middle, std, unsure = mean(sums), sample_std(sums), half_width(sums)
        if not middle or std is None or unsure is None or not whole:
            continue
        if stage in _QUOTED or middle / whole >= _COUNTS:
            found.append(Spread(stage=stage, variation=std / middle, half_width=unsure))
    return found
