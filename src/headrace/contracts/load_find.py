"""What a search for the highest rate found, and what a comparison of two runs says.

As JSON both are stable formats: ``format`` names each. Rates are requests a second, times ms.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import Figures, PromiseResult, Trust

FIND_FORMAT = "headrace.find/1"
COMPARE_FORMAT = "headrace.compare/1"

Outcome: TypeAlias = Literal["kept", "broken", "undecided", "generator"]
Judgement: TypeAlias = Literal["faster", "slower", "no difference seen", "too little data", "mixed"]


@frozen(kw_only=True)
class Trial:
    """One rate that was tried.

    ``kept``: every promise held, by the early-stopping rule unless it was only ``quick``, when the
    percentiles as measured were below their limits. ``undecided`` counts as broken.
    ``generator``: the load generator did not keep up, so nothing is known of the server.
    """

    rate: float
    outcome: Outcome
    text: str
    requests: int
    figures: Figures
    trust: Trust
    promises: tuple[PromiseResult, ...] = ()
    quick: bool = False
    confirms: bool = False


@frozen(kw_only=True)
class Found:
    """The highest rate that held the promises.

    ``rate`` was tried anew and held; None where none did. ``broken_at`` is the lowest rate that did
    not hold. ``reason`` says why the search ended.
    """

    plan: LoadPlan
    started: str
    rate: float | None
    broken_at: float | None
    goodput_per_s: float | None
    reason: str
    trials: tuple[Trial, ...] = ()
    confirmed: bool = False
    format: str = FIND_FORMAT
    version: str = ""


@frozen(kw_only=True)
class Difference:
    """One metric of both runs: ``ratio`` is B / A, ``low`` and ``high`` its 95% interval.

    ``judgement`` is about B: whether it is faster, as a smaller latency or a larger rate is.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    judgement: Judgement = "too little data"
    text: str = ""


@frozen(kw_only=True)
class Comparison:
    """Two runs side by side. The overall ``judgement`` is made of intervals that together miss in 5%
    of the cases (Bonferroni), so that many metrics do not find a difference by chance.
    """

    a: str
    b: str
    judgement: Judgement
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...] = ()
    requests_a: int = 0
    requests_b: int = 0
    format: str = COMPARE_FORMAT
