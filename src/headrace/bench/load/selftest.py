"""How far this machine's load generator can be trusted, found by driving a server that is known.

The mock's delays are set, and it says itself how late its own writes were. What a run reports beyond
that is the generator's doing. The load rises until two steps in a row are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from headrace.contracts.load import Closed, Constant, Length, LoadPlan, Synthetic
from headrace.contracts.load_report import Distribution, LoadReport, Verdict

TTFT_MS, ITL_MS, TOKENS = 50.0, 10.0, 100
STREAMS = (1, 8, 32, 64, 128, 256, 512)
RATES = (50, 100, 200, 400, 800, 1600)
_WITHIN = 0.05
_ANSWERS = 3
_RATE_S = 4.0


@frozen(kw_only=True)
class Lateness:
    """How late the mock's writes were in a step, in ms: its share of what a run is off by."""

    p50_ms: float
    p99_ms: float


@frozen(kw_only=True)
class Step:
    """One load, what the run said of it, and by how much of the truth that is off.

    ``off`` is the worst of TTFT p50 and p99 and ITL p50 and p99 (for a rate: of TTFT alone), as a share
    of the truth. ``good``: within 5%, and the run's own verdict is not INVALID. ``server_late``: it was
    off, but the mock itself was late by so much.
    """

    what: str
    streams: int | None
    rate: float | None
    chunks_per_s: float
    ttft_p50: float | None
    ttft_p99: float | None
    itl_p50: float | None
    itl_p99: float | None
    off: float | None
    verdict: Verdict
    cpu_share: float | None
    server_p99_ms: float
    good: bool
    server_late: bool


@frozen(kw_only=True)
class Trusted:
    """What a self-test found: the largest load of each kind below which every step was good."""

    steps: tuple[Step, ...]
    streams: int | None
    chunks_per_s: float | None
    rate: float | None
    times_from: str = "read"

    format: str = "headrace.selftest/1"


def selftest(
    url: str,
    run: Callable[[LoadPlan], LoadReport],
    lateness: Callable[[], Lateness],
    *,
    streams: Sequence[int] = STREAMS,
    rates: Sequence[float] = RATES,
    watch: Callable[[Step], None] = lambda step: None,
) -> Trusted:
    """Drive the mock at ``url`` through rising loads by ``run``.

    ``lateness`` gives that of the mock since it was last asked. The mock answers with ``TOKENS`` tokens
    after ``TTFT_MS``, one every ``ITL_MS``; a request may ask for fewer.
    """
    steps: list[Step] = []
    times_from = "read"

    def climb(plans: Sequence[tuple[str, LoadPlan]]) -> list[Step]:
        nonlocal times_from
        mine: list[Step] = []
        for what, plan in plans:
            report = run(plan)
            times_from = report.trust.times_from
            step = _step(what, plan, report, lateness())
            steps.append(step)
            mine.append(step)
            watch(step)
            if report.ended == "interrupted" or (
                len(mine) > 1 and not (mine[-1].good or mine[-2].good)
            ):
                break
        return mine

    many = climb([(f"{n} streams", _closed(url, n)) for n in streams])
    fast = climb([(f"{r:g} requests/s", _open(url, r)) for r in rates])
    best = _last_good(many)
    quick = _last_good(fast)
    return Trusted(
        steps=tuple(steps),
        streams=best.streams if best is not None else None,
        chunks_per_s=best.chunks_per_s if best is not None else None,
        rate=quick.rate if quick is not None else None,
        times_from=times_from,
    )


def conclusion(found: Trusted) -> list[str]:
    """What it means, in sentences."""
    said = []
    if found.streams is None:
        said.append(
            "Not even the smallest load was measured well: something else keeps this machine busy."
        )
    else:
        said.append(
            f"Figures can be trusted up to {found.streams} streams at once "
            f"({found.chunks_per_s:,.0f} pieces of output a second) for each process."
        )
    if found.rate is not None:
        said.append(f"Requests are sent on time up to {found.rate:,.0f} a second.")
    worse = [s for s in found.steps if not s.good]
    if any(s.server_late for s in worse):
        said.append(
            "In some steps the mock itself was late: give it a core of its own, and leave the machine alone."
        )
    elif not worse:
        said.append("No step was wrong: the limit lies beyond what was tried.")
    else:
        said.append("Beyond that use --workers, with a core for each.")
    return said


def _closed(url: str, streams: int) -> LoadPlan:
    return LoadPlan(
        url=url,
        model="mock",
        arrivals=Closed(concurrency=streams),
        workload=Synthetic(input=Length(mean=32), output=Length(mean=TOKENS)),
        requests=max(_ANSWERS * streams, 8),
    )


def _open(url: str, rate: float) -> LoadPlan:
    return LoadPlan(
        url=url,
        model="mock",
        arrivals=Constant(rate=rate),
        workload=Synthetic(input=Length(mean=32), output=Length(mean=1)),
        requests=max(300, int(rate * _RATE_S)),
    )


def _step(what: str, plan: LoadPlan, report: LoadReport, late: Lateness) -> Step:
    figures, streams = report.figures, None
    if isinstance(plan.arrivals, Closed):
        streams = plan.arrivals.concurrency
    ttft, itl = figures.ttft, figures.itl if streams is not None else None
    # A percentile that few samples cannot bound is still what was seen: the largest stands for it.
    seen = [
        (_at(ttft, "p50"), TTFT_MS),
        (_at(ttft, "p99"), TTFT_MS),
        (_at(itl, "p50"), ITL_MS),
        (_at(itl, "p99"), ITL_MS),
    ]
    offs = [abs(value / true - 1) for value, true in seen if value is not None]
    off = max(offs, default=None)
    good = off is not None and off <= _WITHIN and report.trust.verdict != "INVALID"
    itl_limit = _WITHIN * (ITL_MS if streams is not None else TTFT_MS)
    return Step(
        what=what,
        streams=streams,
        rate=plan.arrivals.rate if isinstance(plan.arrivals, Constant) else None,
        chunks_per_s=figures.output_tokens_per_s or 0.0,
        ttft_p50=seen[0][0],
        ttft_p99=seen[1][0],
        itl_p50=seen[2][0],
        itl_p99=seen[3][0],
        off=off,
        verdict=report.trust.verdict,
        cpu_share=report.trust.cpu_share,
        server_p99_ms=late.p99_ms,
        good=good,
        server_late=not good and late.p99_ms > itl_limit,
    )


def _at(found: Distribution | None, name: str) -> float | None:
    if found is None:
        return None
    value = found.percentiles.get(name)
    return value if value is not None else found.maximum


def _last_good(steps: Sequence[Step]) -> Step | None:
    """The last of the good steps that the first bad one follows."""
    best = None
    for step in steps:
        if not step.good:
            break
        best = step
    return best
