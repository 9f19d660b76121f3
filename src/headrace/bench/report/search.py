"""A search for the highest rate, for the terminal, as it goes on and when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.contracts.load_find import Found, Outcome, Trial
from headrace.contracts.load_report import Distribution

if TYPE_CHECKING:
    from rich.console import Console

_MARKS: dict[Outcome, str] = {"kept": "●", "broken": "○", "undecided": "?", "generator": "✕"}
_BAR = 24
_LIMIT, _BEYOND = 10, 6
"""Cells of the bar of a trial up to its limit, and at most beyond it."""


def trial_line(trial: Trial) -> str:
    """One line for a trial that is over."""
    how = "a look" if trial.quick else "again" if trial.confirms else "in earnest"
    return (
        f"{trial.rate:9.4g}/s  {how:10}  {_to_the_limit(trial)}  "
        f"{_pair('TTFT', trial.figures.ttft)}{_pair('latency', trial.figures.latency)}"
        f"{trial.outcome}: {trial.text}"
    )


def _to_the_limit(trial: Trial) -> str:
    """A bar of the percentile that comes nearest to its limit, which is the bar's mark.

    Rate above rate, the bars draw the knee while the search goes on.
    """
    figures = trial.figures
    seen = {
        "ttft": figures.ttft,
        "tpot": figures.tpot,
        "itl": figures.itl,
        "latency": figures.latency,
    }
    shares = []
    for result in trial.promises:
        promise = result.promise
        d = seen.get(promise.metric)
        if d is not None and promise.p is not None:
            value = _of(d, f"p{promise.p * 100:.10g}")
            if value is not None:
                shares.append(value / promise.below)
    if not shares:
        return " " * (_LIMIT + _BEYOND + 1)
    cells = min(_LIMIT + _BEYOND, round(max(shares) * _LIMIT))
    drawn = "█" * min(cells, _LIMIT) + " " * (_LIMIT - cells)
    return f"{drawn}│{'█' * max(0, cells - _LIMIT):{_BEYOND}}"


def sentence(found: Found) -> str:
    """What was found."""
    if found.rate is None:
        return f"No rate held the promises: {found.reason}."
    good = "" if found.goodput_per_s is None else f" (goodput {found.goodput_per_s:.4g}/s)"
    sure = "" if found.confirmed else ", not confirmed by a second trial"
    return f"It holds {found.rate:.4g} requests/s{good}{sure}; {found.reason}."


def show_found(found: Found, console: Console) -> None:
    """Print the answer and the knee: the latency at each rate, as a bar."""
    console.print(sentence(found))
    promises = [r.promise.text for r in found.trials[-1].promises] if found.trials else []
    if promises:
        console.print(f"promises: {', '.join(promises)}")
    shown = sorted(_best(found.trials).values(), key=lambda t: t.rate)
    worst = max((_p95(t) or 0.0 for t in shown), default=0.0)
    if not worst:
        return
    console.print("")
    console.print(f"{'rate':>11}    {'latency p95':>12}  ● held  ○ did not")
    for trial in shown:
        value = _p95(trial)
        wide = round(_BAR * (value or 0.0) / worst)
        text = "-" if value is None else f"{value:,.4g} ms"
        console.print(
            f"{trial.rate:9.4g}/s {_MARKS[trial.outcome]} {text:>13}  {'█' * wide or '▏'}"
        )


def _best(trials: tuple[Trial, ...]) -> dict[float, Trial]:
    """The longest trial of each rate."""
    best: dict[float, Trial] = {}
    for trial in trials:
        known = best.get(trial.rate)
        if known is None or trial.requests >= known.requests:
            best[trial.rate] = trial
    return best


def _p95(trial: Trial) -> float | None:
    d = trial.figures.latency
    return None if d is None else _of(d, "p95")


def _pair(name: str, d: Distribution | None) -> str:
    if d is None:
        return ""
    p50, high = _of(d, "p50"), _of(d, "p99")
    return f"{name} {_ms(p50)} p50 {_ms(high)} p99  "


def _of(d: Distribution, name: str) -> float | None:
    """The percentile, or the largest value where the sample cannot carry it."""
    value = d.percentiles.get(name)
    return d.maximum if value is None else value


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g} ms"
