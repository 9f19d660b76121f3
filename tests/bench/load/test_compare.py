"""Two runs side by side: who is faster, by how much, how surely."""

from __future__ import annotations

import random

import pytest
from attrs import evolve

from headrace.bench.load.compare import Side, compare
from headrace.bench.report.comparison import comparison_markdown, sentence, show_comparison
from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.load import Closed, LoadPlan, Poisson, Promise, Scenarios
from headrace.contracts.load_find import Comparison
from headrace.contracts.load_report import Columns, Counts, Doubt, Figures, LoadReport, Trust
from headrace.numbers.promises import parse

PLAN = LoadPlan(url="http://127.0.0.1:1", arrivals=Poisson(rate=20.0))


def run(
    n: int,
    scale: float = 1.0,
    *,
    seed: int = 1,
    plan: LoadPlan = PLAN,
    rate: float = 20.0,
    trust: Trust | None = None,
) -> LoadReport:
    """``n`` requests at ``rate`` a second whose times are ``scale`` times as long as usual."""
    chance = random.Random(seed)
    sent, ttft, latency, tpot, at = [], [], [], [], 0.0
    for _ in range(n):
        at += chance.expovariate(rate)
        first = scale * chance.lognormvariate(4, 0.3)
        each = scale * chance.lognormvariate(2, 0.1)
        sent.append(at)
        ttft.append(first)
        tpot.append(each)
        latency.append(first + 49 * each)
    counts = Counts(sent=n, measured=n, ok=n)
    columns = Columns(
        index=tuple(range(n)),
        intended_s=tuple(sent),
        sent_s=tuple(sent),
        latency_ms=tuple(latency),
        service_ms=tuple(latency),
        ttft_ms=tuple(ttft),
        tpot_ms=tuple(tpot),
        worst_gap_ms=tuple(2 * v for v in tpot),
        output_tokens=(50,) * n,
        chunks=(50,) * n,
        status=(200,) * n,
        error=(None,) * n,
    )
    return LoadReport(
        run_id="r",
        started="2026-01-01T00:00:00+00:00",
        plan=plan,
        ended="complete",
        closed_loop=isinstance(plan.arrivals, Closed),
        figures=Figures(counts=counts, seconds=at, error_share=0.0),
        trust=trust or Trust(verdict="VALID"),
        requests=columns,
    )


def against(a: LoadReport, b: LoadReport) -> Comparison:
    return compare(Side(name="a", reports=(a,)), Side(name="b", reports=(b,)), resamples=300)


def of(found: Comparison, name: str) -> tuple[str, float]:
    difference = next(d for d in found.differences if d.name == name)
    assert difference.ratio is not None
    return difference.judgement, difference.ratio


def test_a_run_is_no_different_from_itself() -> None:
    found = against(run(400), run(400))
    assert found.judgement == "no difference seen"
    assert all(d.ratio == 1 for d in found.differences if d.ratio is not None)


def test_a_slower_run_is_called_slower_with_its_ratio() -> None:
    found = against(run(400), run(400, 1.3, seed=2))
    assert found.judgement == "slower"
    judgement, ratio = of(found, "TTFT p50")
    assert (judgement, ratio) == ("slower", pytest.approx(1.3, rel=0.08))
    assert of(found, "TPOT p50") == ("slower", pytest.approx(1.3, rel=0.03))


def test_a_faster_run_is_called_faster() -> None:
    assert against(run(400, 1.3), run(400, seed=2)).judgement == "faster"


def test_the_other_way_round_has_the_inverse_ratio() -> None:
    a, b = run(350), run(350, 1.2, seed=3)
    there, back = of(against(a, b), "TTFT p95")[1], of(against(b, a), "TTFT p95")[1]
    assert there * back == pytest.approx(1)


def test_alike_runs_are_seldom_called_different() -> None:
    wrong = sum(
        against(run(200, seed=100 + i), run(200, seed=500 + i)).judgement != "no difference seen"
        for i in range(20)
    )
    # The verdict misses in 5% of the cases: more than 4 of 20 would come once in 400.
    assert wrong <= 4


def test_a_percentile_that_the_sample_cannot_carry_is_not_compared() -> None:
    found = against(run(100), run(100, seed=2))
    p99 = next(d for d in found.differences if d.name == "TTFT p99")
    assert (p99.judgement, p99.ratio) == ("too little data", None)
    assert "299" in p99.text
    assert against(run(10), run(10, seed=2)).judgement == "too little data"


def test_throughput_is_better_when_larger() -> None:
    plan = evolve(PLAN, arrivals=Closed(concurrency=4))
    found = against(run(600, plan=plan), run(600, seed=2, plan=plan, rate=30.0))
    judgement, ratio = of(found, "throughput")
    assert (judgement, ratio) == ("faster", pytest.approx(1.5, rel=0.15))
    assert any("closed loops" in w for w in found.warnings)


def test_goodput_counts_the_requests_that_met_the_promises() -> None:
    promised = evolve(PLAN, promises=(parse("ttft:p50<54.6ms"),))
    found = against(run(800, plan=promised), run(800, 0.7, seed=2, plan=promised))
    judgement, ratio = of(found, "goodput")
    assert judgement == "faster"
    assert ratio > 1.3


def test_one_better_and_one_worse_is_mixed() -> None:
    a, b = run(400), run(400, seed=2)
    assert b.requests is not None
    quick = tuple(v / 2 for v in b.requests.ttft_ms if v is not None)
    slow = tuple(v * 2 for v in b.requests.tpot_ms if v is not None)
    b = evolve(b, requests=evolve(b.requests, ttft_ms=quick, tpot_ms=slow))
    found = against(a, b)
    assert found.judgement == "mixed"


def test_what_speaks_against_a_comparison_is_said() -> None:
    doubt = Doubt(name="cpu", verdict="INVALID", text="the sender was late")
    bad = run(100, trust=Trust(verdict="INVALID", doubts=(doubt,)))
    assert any("the sender was late" in w for w in against(run(100), bad).warnings)
    other = evolve(PLAN, workload=Scenarios(name="long"))
    assert any("workload" in w for w in against(run(100), run(100, plan=other)).warnings)
    closed = evolve(PLAN, arrivals=Closed(concurrency=4))
    assert any("closed loop" in w for w in against(run(100), run(100, plan=closed)).warnings)
    nothing = evolve(run(100), requests=None)
    assert against(run(100), nothing).judgement == "too little data"


def test_stretches_of_an_alternation_are_taken_together() -> None:
    a = Side(name="a", reports=(run(150, seed=1), run(150, seed=2)))
    b = Side(name="b", reports=(run(150, 1.4, seed=3), run(150, 1.4, seed=4)))
    found = compare(a, b, resamples=300)
    assert found.judgement == "slower"
    assert found.requests_a == 300


def test_it_survives_json_and_reads_as_text() -> None:
    found = against(run(400), run(400, 1.3, seed=2))
    assert from_plain(to_plain(found), Comparison) == found
    assert sentence(found).startswith("B is slower")
    text = comparison_markdown(evolve(found, a="x|y <b>"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == len(found.differences) + 2
    assert "x\\|y &lt;b>" in text

    from rich.console import Console

    console = Console(width=100, record=True)
    show_comparison(found, console)
    assert "B is slower" in console.export_text()


def test_promises_of_one_side_alone_make_no_goodput() -> None:
    promise: tuple[Promise, ...] = (parse("ttft:p50<1s"),)
    found = against(run(100), run(100, plan=evolve(PLAN, promises=promise)))
    assert "goodput" not in [d.name for d in found.differences]
