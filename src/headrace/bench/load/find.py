"""The highest rate that holds a set of promises: a ramp until they break, then bisection.

The ramp doubles the rate in short trials, judged as measured. Bisection then closes the bracket in
trials that go on until MLPerf's early-stopping rule decides (99% confidence), and the rate that is
told at the end has been tried once more with other arrivals. A trial in which the generator did not
keep up says nothing of the server: the search goes no higher than that, and says why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from attrs import define, evolve, field, frozen

from headrace.bench.load.verdicts import Evidence
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Constant, Gamma, LoadPlan, Poisson, Promise
from headrace.contracts.load_find import Found, Outcome, Trial
from headrace.contracts.load_report import LoadReport

Run = Callable[[LoadPlan], LoadReport]
Watch = Callable[[Trial], None]

_MOST_TRIALS = 60
_LEAST_REQUESTS = 30


@frozen(kw_only=True)
class Limits:
    """How far a search goes. ``precision``: the bracket's width as a share of its lower end.

    A quick trial takes ``quick_s``, a strict one at least ``trial_s`` and at most ``longest_s``, not
    counting the warm-up of ``warmup_s`` at its beginning, for which no figure counts.
    """

    least: float = 1.0
    most: float = 100_000.0
    precision: float = 0.05
    quick_s: float = 5.0
    trial_s: float = 10.0
    longest_s: float = 120.0
    warmup_s: float = 2.0


def find(
    plan: LoadPlan,
    promises: Sequence[Promise],
    run: Run,
    *,
    limits: Limits | None = None,
    watch: Watch | None = None,
    version: str = "",
) -> Found:
    """The highest rate at which ``run`` keeps ``promises``.

    ``plan`` says what is asked; its arrivals' law is kept where it is constant or gamma, and is
    Poisson otherwise. ``watch`` is told of every trial when it is over. A report that says that it was
    interrupted ends the search with what is known by then.
    """
    limits = limits or Limits()
    if not promises:
        raise LLMInvalidRequestError(
            "--find needs a promise to hold, such as --slo 'ttft:p99<500ms', or --preset",
            param="slo",
        )
    if not 0 < limits.least <= limits.most:
        raise LLMInvalidRequestError(
            f"the search goes from {limits.least:g} to {limits.most:g} requests/s; the first is above 0 "
            "and not above the second",
            param="find",
        )
    started = datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds")
    search = _Search(plan, tuple(promises), run, limits, watch)
    search.go()
    kept = search.kept
    best = next((t for t in reversed(search.trials) if kept is not None and t.rate == kept), None)
    return Found(
        plan=plan,
        started=started,
        rate=kept,
        broken_at=search.broken,
        goodput_per_s=best.figures.goodput_per_s if best is not None else None,
        reason=search.reason,
        trials=tuple(search.trials),
        confirmed=search.confirmed,
        version=version,
    )


@define
class _Search:
    plan: LoadPlan
    promises: tuple[Promise, ...]
    run: Run
    limits: Limits
    watch: Watch | None
    trials: list[Trial] = field(factory=list)
    kept: float | None = None
    broken: float | None = None
    confirmed: bool = False
    ended: bool = False
    reason: str = ""

    def go(self) -> None:
        hints = self._ramp()
        while not self._is_over():
            rate = self._next(hints)
            if rate is None:
                break
            self._bound(self._trial(rate), rate)
        self._confirm()
        if not self.reason:
            self.reason = self._conclusion()

    def _ramp(self) -> list[float]:
        """The rates that a quick look finds good, up to the first that is not."""
        good: list[float] = []
        rate = self.limits.least
        while not self._is_over():
            outcome = self._trial(rate, quick=True)
            if outcome != "kept":
                if not self._is_over() or outcome == "generator":
                    self.broken = rate
                break
            good.append(rate)
            if rate >= self.limits.most:
                break
            rate = min(2 * rate, self.limits.most)
        return good

    def _next(self, hints: list[float]) -> float | None:
        """The rate to be tried in earnest; None when the bracket is as narrow as was asked for."""
        if self.kept is None:
            while hints:
                hint = hints.pop()
                if self.broken is None or hint < self.broken:
                    return hint
            # Even the lowest rate did not hold; a quarter of it may, and then nothing is worth saying.
            if self.broken is None or self.broken <= self.limits.least / 4:
                return None
            return max(self.broken / 2, self.limits.least / 4)
        if self.broken is None or self.broken <= self.kept * (1 + self.limits.precision):
            return None
        return math.sqrt(self.kept * self.broken)

    def _bound(self, outcome: Outcome, rate: float) -> None:
        if outcome == "kept":
            self.kept = rate if self.kept is None else max(self.kept, rate)
        elif not self._is_over() or outcome in ("broken", "generator"):
            self.broken = rate if self.broken is None else min(self.broken, rate)
        if len(self.trials) >= _MOST_TRIALS:
            self.ended, self.reason = True, f"ended after {_MOST_TRIALS} trials"

    def _confirm(self) -> None:
        """Try the answer anew; step down by the precision until it holds twice."""
        while self.kept is not None and not self._is_over():
            rate = self.kept
            if self._trial(rate, confirms=True) == "kept":
                self.confirmed = True
                return
            if self._is_over():
                return
            self.broken = rate
            lower = rate / (1 + self.limits.precision)
            self.kept = lower if lower >= self.limits.least / 4 else None
            if len(self.trials) >= _MOST_TRIALS:
                self.kept = None
                self.reason = f"ended after {_MOST_TRIALS} trials"
                return

    def _is_over(self) -> bool:
        return self.ended

    def _conclusion(self) -> str:
        if self.kept is None:
            return "no rate that was tried held every promise"
        if self.broken is None:
            return f"it held up to the highest rate that was asked for, {self.limits.most:g}"
        last = [t for t in self.trials if t.rate == self.broken and t.outcome != "kept"]
        if last and last[-1].outcome == "generator":
            return f"the generator, not the server, was the limit at {self.broken:.4g}: {last[-1].text}"
        why = last[-1].text if last else "it did not hold"
        return f"at {self.broken:.4g} requests/s: {why}"

    def _trial(self, rate: float, *, quick: bool = False, confirms: bool = False) -> Outcome:
        evidence = Evidence(self.promises)
        limits = self.limits
        first = min(limits.quick_s if quick else limits.trial_s, limits.longest_s)
        wanted = max(_LEAST_REQUESTS, math.ceil(rate * first))
        if not quick:
            wanted = max(wanted, evidence.wanted())
        spent, rounds = 0.0, 0
        while True:
            room = limits.longest_s - spent
            asked = max(1, min(wanted, math.floor(rate * room))) if not quick else wanted
            report = self.run(self._round(rate, asked, rounds))
            rounds += 1
            spent += asked / rate
            evidence.add(report)
            if report.ended == "interrupted":
                self.ended, self.reason = (
                    True,
                    "interrupted: what is told is what was known by then",
                )
            outcome, text = evidence.outcome(quick=quick)
            if report.trust.verdict == "INVALID" and outcome != "kept":
                outcome = "generator"
                text = "; ".join(d.text for d in report.trust.doubts if d.verdict == "INVALID")
            if outcome != "undecided" or quick or self._is_over():
                break
            wanted = evidence.wanted()
            if not wanted or spent + 1 / rate >= limits.longest_s:
                break
            wanted = max(wanted, _LEAST_REQUESTS)
        if report.ended in ("too many errors", "target lost") and outcome != "broken":
            outcome, text = "broken", f"the run ended early: {report.ended}"
        trial = Trial(
            rate=rate,
            outcome=outcome,
            text=text,
            requests=evidence.requests,
            figures=report.figures,
            trust=report.trust,
            promises=report.promises,
            quick=quick,
            confirms=confirms,
        )
        self.trials.append(trial)
        if self.watch is not None:
            self.watch(trial)
        return outcome

    def _round(self, rate: float, requests: int, number: int) -> LoadPlan:
        """The plan of one round; each has arrivals and prompts of its own."""
        plan, warm = self.plan, self.limits.warmup_s
        arrivals: Constant | Gamma | Poisson = Poisson(rate=rate)
        if isinstance(plan.arrivals, Constant):
            arrivals = Constant(rate=rate)
        elif isinstance(plan.arrivals, Gamma):
            arrivals = Gamma(rate=rate, burstiness=plan.arrivals.burstiness)
        warming = math.ceil(rate * warm)
        return evolve(
            plan,
            arrivals=arrivals,
            requests=requests + warming,
            duration_s=None,
            warmup_s=0.0,
            warmup_requests=warming,
            cooldown_s=0.0,
            promises=self.promises,
            seed=plan.seed + 1009 * len(self.trials) + number,
        )
