"""How quiet the machine was: what of the processor we got, and how far repeats lie apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from headrace.contracts.profile_report import Noise, StageName

STEADY, SURE, WHOLE, STOLEN = 0.05, 0.07, 0.95, 0.02
"""Clean is: each stage's repeats within 5%, its mean known within 7%, 95% of the processor time that was
asked for, 2% stolen at most. Two means that are each known within 7% lie within 10% of one another."""
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")


@frozen(kw_only=True)
class Spread:
    """How far a stage's repeats lie apart: std / mean; and half of its mean's 95% interval / mean."""

    stage: StageName
    variation: float
    half_width: float


@frozen(kw_only=True)
class Reading:
    """Clocks at one moment.

    ``waited_s`` is how long our threads stood ready without a core; ``ticks`` are those that the
    machine's host took, and all.
    """

    wall_s: float
    cpu_s: float
    waited_s: float | None
    ticks: tuple[int, int] | None


def read_clocks() -> Reading:
    """The clocks now; what this system does not tell is None."""
    ticks = None
    if _STAT.is_file():
        each = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
        ticks = (each[7], sum(each))
    return Reading(
        wall_s=time.perf_counter(),
        cpu_s=time.process_time(),
        waited_s=_waited(),
        ticks=ticks,
    )


def _waited() -> float | None:
    """Seconds on run queues of all our threads: the second figure of schedstat, in ns."""
    if not _TASKS.is_dir():
        return None
    waited = 0
    try:
        for task in _TASKS.iterdir():
            waited += int((task / "schedstat").read_text().split()[1])
    except FileNotFoundError:
        # Kernels without schedstat, and a thread that has just ended.
        return None
    return waited / 1e9


def noise_of(before: Reading, after: Reading, spreads: Sequence[Spread], threads: int) -> Noise:
    """The verdict on the time between two readings; ``spreads`` are of the stages that count."""
    cpu = after.cpu_s - before.cpu_s
    share = None
    if before.waited_s is not None and after.waited_s is not None:
        waited = max(0.0, after.waited_s - before.waited_s)
        share = cpu / (cpu + waited) if cpu + waited > 0 else None
    stolen = None
    if before.ticks is not None and after.ticks is not None:
        of_host, whole = (now - then for now, then in zip(after.ticks, before.ticks, strict=True))
        stolen = of_host / whole if whole > 0 else None
    worst = max(spreads, key=lambda each: each.variation, default=None)
    variation = None if worst is None else worst.variation
    busy = cpu / ((after.wall_s - before.wall_s) * threads)
    wrong = []
    if worst is not None and worst.variation > STEADY:
        wrong.append(
            f"repeats of {worst.stage} differ by {worst.variation:.1%} (coefficient of variation)"
        )
    elif worst is not None and worst.half_width > SURE:
        wrong.append(
            f"the mean of {worst.stage} is known within {worst.half_width:.1%} only; more repeats "
            "tell more"
        )
    if share is not None and share < WHOLE:
        wrong.append(f"other programs took {1 - share:.0%} of the processor time that it asked for")
    if stolen is not None and stolen > STOLEN:
        wrong.append(f"{stolen:.1%} of the machine's time was stolen by its host")
    of_cores = f"it kept {threads} {'core' if threads == 1 else 'cores'} {busy:.0%} busy"
    if wrong:
        return Noise(
            verdict="noisy",
            text=f"Noisy: {'; '.join(wrong)}; {of_cores}. Compare these times with care.",
            cpu_share=share,
            variation=variation,
            stolen_share=stolen,
        )
    if variation is None:
        text = f"Unknown: one repeat does not tell how far repeats differ; {of_cores}."
        return Noise(
            verdict="unknown", text=text, cpu_share=share, variation=None, stolen_share=stolen
        )
    got = "" if share is None else f", it got {share:.0%} of the processor time that it asked for"
    return Noise(
        verdict="clean",
        text=f"Clean: repeats differ by {variation:.1%}{got}; {of_cores}.",
        cpu_share=share,
        variation=variation,
        stolen_share=stolen,
    )
