"""Service level objectives: how one is written, and whether what came keeps it.

A request that failed has missed every promise about a latency: leaving it out would let a server
that drops what it cannot do in time look quick.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Promise
from headrace.contracts.load_report import PromiseResult
from headrace.numbers.intervals import rank_bounds

_LATENCY = re.compile(
    r"(ttft|tpot|itl|latency)\s*:\s*p(\d{1,2}(?:\.\d+)?)\s*<\s*(\d+(?:\.\d+)?)\s*(us|ms|s)",
    re.IGNORECASE,
)
_ERRORS = re.compile(r"errors\s*<\s*(\d+(?:\.\d+)?)\s*(%?)", re.IGNORECASE)
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_RIGHT = "such as ttft:p99<500ms, tpot:p95<30ms, itl:p99.9<0.1s, latency:p50<1s or errors<0.1%"
_METRICS: dict[str, Literal["ttft", "tpot", "itl", "latency"]] = {
    "ttft": "ttft",
    "tpot": "tpot",
    "itl": "itl",
    "latency": "latency",
}


def parse(text: str) -> Promise:
    """The promise that ``text`` says: ``METRIC:pNN<LIMIT`` or ``errors<SHARE``.

    LLMInvalidRequestError, which says what would be right, where it says none.
    """
    said = text.strip()
    if found := _ERRORS.fullmatch(said):
        share = float(found[1]) / (100 if found[2] else 1)
        if not 0 < share <= 1:
            raise LLMInvalidRequestError(
                f"promise {text!r}: a share of errors is above 0 and at most 1 (or 100%)",
                param="slo",
            )
        return Promise(metric="errors", p=None, below=share, text=said)
    found = _LATENCY.fullmatch(said)
    if found is None:
        raise LLMInvalidRequestError(
            f"promise {text!r} is not understood; one is written {_RIGHT}", param="slo"
        )
    p = float(found[2]) / 100
    limit = float(found[3]) * _MS[found[4].lower()]
    if not 0 < p < 1:
        raise LLMInvalidRequestError(
            f"promise {text!r}: a percentile is above p0 and below p100", param="slo"
        )
    if limit <= 0:
        raise LLMInvalidRequestError(f"promise {text!r}: the limit is above 0", param="slo")
    return Promise(metric=_METRICS[found[1].lower()], p=p, below=limit, text=said)


def judge(promise: Promise, values: Sequence[float], *, failed: int, total: int) -> PromiseResult:
    """Whether ``promise`` was kept in a run of ``total`` requests, ``failed`` of which failed.

    ``values`` are the metric's of those that did not fail, in ms. A latency promise is kept where
    the upper end of the percentile's 95% confidence interval (order statistics, one-sided) is below
    the limit, broken where the lower end is not, and undecided (None) in between, or where the
    sample is too small to have that end. The share of errors likewise, by Wilson's score interval.
    ``value`` is what was measured.
    """
    if promise.metric == "errors":
        return _judge_errors(promise, failed, total)
    assert promise.p is not None
    # A gap is one of many of its request; a failed request misses by one value all the same.
    counted = len(values) + failed
    if not counted:
        return PromiseResult(promise=promise, value=None, kept=None, text="nothing was measured")
    ordered = sorted(values)
    value = _at(ordered, math.ceil(promise.p * counted) - 1)
    low, high = rank_bounds(counted, promise.p, confidence=0.90)  # 95% to each side
    upper = _at(ordered, high) if high is not None else None
    lower = _at(ordered, low) if low is not None else None
    shown = None if math.isinf(value) else value
    if upper is not None and upper < promise.below:
        return PromiseResult(promise=promise, value=shown, kept=True)
    if lower is not None and lower >= promise.below:
        return PromiseResult(promise=promise, value=shown, kept=False)
    if value >= promise.below:
        why = "over the limit, but within what chance does to a sample of"
    elif high is None:
        why = "below the limit, but its upper bound needs more than the"
    else:
        why = "below the limit, but within what chance does to a sample of"
    return PromiseResult(promise=promise, value=shown, kept=None, text=f"{why} {counted}")


def met(
    promises: Sequence[Promise],
    *,
    ttft_ms: float | None,
    tpot_ms: float | None,
    latency_ms: float | None,
    worst_gap_ms: float | None,
    failed: bool,
) -> bool:
    """Whether one request stayed below the limit of every latency promise: what goodput counts.

    A metric that the request does not have (no second token, so no TPOT) cannot miss.
    """
    if failed:
        return False
    seen = {"ttft": ttft_ms, "tpot": tpot_ms, "latency": latency_ms, "itl": worst_gap_ms}
    for promise in promises:
        value = seen.get(promise.metric)
        if value is not None and value >= promise.below:
            return False
    return True


def _judge_errors(promise: Promise, failed: int, total: int) -> PromiseResult:
    if not total:
        return PromiseResult(promise=promise, value=None, kept=None, text="nothing was measured")
    share = failed / total
    low, high = wilson(failed, total)
    if high < promise.below:
        return PromiseResult(promise=promise, value=share, kept=True)
    if low >= promise.below:
        return PromiseResult(promise=promise, value=share, kept=False)
    text = f"{failed} of {total} failed, which is between {low:.2%} and {high:.2%}"
    return PromiseResult(promise=promise, value=share, kept=None, text=text)


def wilson(hits: int, n: int, z: float = 1.6448536269514722) -> tuple[float, float]:
    """Wilson's score interval of a share: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    ``z`` is the normal quantile: 1.645 for 95% to each side. E. B. Wilson, "Probable inference, the
    law of succession, and statistical inference", JASA 22 (1927).
    """
    p, zz = hits / n, z * z / n
    middle = p + zz / 2
    half = z * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, (middle - half) / (1 + zz)), min(1.0, (middle + half) / (1 + zz))


def _at(ordered: Sequence[float], rank: int) -> float:
    """The value at ``rank``; those who failed come after all others, and are infinitely late."""
    return ordered[rank] if rank < len(ordered) else math.inf
