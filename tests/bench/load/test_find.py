"""The search for the highest rate, against queues whose knee is known."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest

from headrace.bench.load.arrivals import schedule
from headrace.bench.load.find import Limits, find
from headrace.bench.load.presets import PRESETS, preset
from headrace.bench.load.verdicts import grows
from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Constant, LoadPlan, Poisson
from headrace.contracts.load_find import Found, Trial
from headrace.contracts.load_report import (
    Columns,
    Counts,
    Doubt,
    Figures,
    LoadReport,
    PromiseResult,
    Trust,
)
from headrace.numbers.promises import parse

PLAN = LoadPlan(url="http://127.0.0.1:1", arrivals=Poisson(rate=1.0))


def reported(
    plan: LoadPlan,
    sent: list[float],
    latencies: list[float],
    *,
    failed: int = 0,
    invalid: str = "",
    ended: str = "complete",
) -> LoadReport:
    """The report of a run in which a request sent at ``sent[i]`` took ``latencies[i]`` ms."""
    warm = plan.warmup_requests
    sent, latencies = sent[warm:], latencies[warm:]
    counts = Counts(sent=len(sent), measured=len(sent) + failed, ok=len(sent), failed=failed)
    doubts = (Doubt(name="schedule lag", verdict="INVALID", text=invalid),) if invalid else ()
    columns = Columns(sent_s=tuple(sent), latency_ms=tuple(latencies), ttft_ms=tuple(latencies))
    return LoadReport(
        run_id="r",
        started="2026-01-01T00:00:00+00:00",
        plan=plan,
        ended=ended,  # type: ignore[arg-type]
        closed_loop=False,
        figures=Figures(counts=counts, seconds=1.0, goodput_per_s=plan.arrivals.rate),  # type: ignore[union-attr]
        trust=Trust(verdict="INVALID" if invalid else "VALID", doubts=doubts),
        promises=tuple(PromiseResult(promise=p, value=1.0, kept=None) for p in plan.promises),
        requests=columns,
    )


def queue(servers: int, mean_s: float, seed: int = 1) -> Callable[[LoadPlan], LoadReport]:
    """An M/M/c queue, empty at the beginning of each run."""

    def run(plan: LoadPlan) -> LoadReport:
        chance = random.Random(f"{seed} {plan.seed}")
        arrivals = schedule(plan.arrivals, plan.seed)
        free = [0.0] * servers
        sent, latencies = [], []
        for _ in range(plan.requests or 0):
            at = next(arrivals)
            begin = max(at, heapq.heappop(free))
            end = begin + chance.expovariate(1 / mean_s)
            heapq.heappush(free, end)
            sent.append(at)
            latencies.append((end - at) * 1000)
        return reported(plan, sent, latencies)

    return run


def knee_of_mm1(mean_s: float, p: float, limit_s: float) -> float:
    """The rate at which percentile ``p`` of the time in an M/M/1 queue is just ``limit_s``.

    The time in the system is exponential with rate mu - lambda, so its percentile is
    -ln(1 - p) / (mu - lambda).
    """
    return 1 / mean_s + math.log(1 - p) / limit_s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_rate_found_is_near_a_queues_own_knee(seed: int) -> None:
    promise = parse("latency:p95<500ms")
    true = knee_of_mm1(0.02, 0.95, 0.5)
    long = Limits(trial_s=120, longest_s=1200, quick_s=30, warmup_s=10)
    found = find(PLAN, (promise,), queue(1, 0.02, seed), limits=long)
    assert found.rate is not None
    assert found.confirmed
    # To be 99% sure of each trial the answer lies a little below the knee, never above it by more
    # than its own chance.
    assert 0.8 * true < found.rate < 1.08 * true, (found.rate, true)
    assert found.broken_at is not None
    assert found.broken_at > found.rate
    assert "latency:p95<500ms" in found.reason or "growing" in found.reason


def test_many_servers_hold_more() -> None:
    promises = (parse("latency:p99<200ms"),)
    one = find(PLAN, promises, queue(1, 0.02)).rate
    four = find(PLAN, promises, queue(4, 0.02)).rate
    assert one is not None
    assert four is not None
    assert 3.0 < four / one < 8.0


def test_what_is_never_broken_is_told_as_the_highest_rate_that_was_asked_for() -> None:
    found = find(PLAN, (parse("latency:p99<10s"),), queue(1000, 0.001), limits=Limits(most=64))
    assert (found.rate, found.broken_at, found.confirmed) == (64, None, True)
    assert "highest rate that was asked for" in found.reason


def test_what_is_never_kept_has_no_rate() -> None:
    found = find(PLAN, (parse("latency:p50<1ms"),), queue(1, 1.0))
    assert found.rate is None
    assert not found.confirmed
    assert "no rate" in found.reason


def test_a_generator_that_does_not_keep_up_ends_the_search_and_is_named() -> None:
    inner = queue(1000, 0.01)

    def run(plan: LoadPlan) -> LoadReport:
        assert isinstance(plan.arrivals, Poisson)
        report = inner(plan)
        assert report.requests is not None
        if plan.arrivals.rate <= 20:
            return report
        late = [v + 10_000 for v in report.requests.latency_ms if v is not None]
        sent = [v for v in report.requests.sent_s if v is not None]
        warm = [0.0] * plan.warmup_requests
        return reported(plan, warm + sent, warm + late, invalid="sends were late by 80 ms")

    found = find(PLAN, (parse("latency:p99<500ms"),), run)
    assert found.rate is not None
    assert 16 <= found.rate <= 20
    assert "generator, not the server" in found.reason
    assert "late by 80 ms" in found.reason


def test_too_few_queries_to_be_sure_count_as_broken_and_say_so() -> None:
    slow = Limits(least=0.5, most=0.5, trial_s=10, longest_s=60)
    found = find(PLAN, (parse("latency:p99<10s"),), queue(10, 0.01), limits=slow)
    assert found.rate is None
    strict = [t for t in found.trials if not t.quick]
    assert strict[0].outcome == "undecided"
    assert "459" in strict[0].text


def test_errors_break_a_promise_about_them() -> None:
    def run(plan: LoadPlan) -> LoadReport:
        assert isinstance(plan.arrivals, Poisson)
        n = plan.requests or 0
        return reported(plan, [0.0] * n, [1.0] * n, failed=n // 10 if plan.arrivals.rate > 8 else 0)

    found = find(PLAN, (parse("errors<1%"), parse("latency:p50<1s")), run)
    assert found.rate is not None
    assert 7.5 < found.rate <= 8
    assert "failed" in found.reason


def test_an_interrupt_keeps_what_is_known() -> None:
    inner, seen = queue(1, 0.02), 0

    def run(plan: LoadPlan) -> LoadReport:
        nonlocal seen
        seen += 1
        report = inner(plan)
        assert report.requests is not None
        if seen < 9:
            return report
        return reported(plan, [], [], ended="interrupted")

    found = find(PLAN, (parse("latency:p95<500ms"),), run)
    assert "interrupted" in found.reason
    assert not found.confirmed
    assert len(found.trials) == 9


def test_a_noisy_server_does_not_make_the_search_endless() -> None:
    chance = random.Random(4)

    def run(plan: LoadPlan) -> LoadReport:
        n = plan.requests or 0
        return reported(plan, [0.0] * n, [chance.choice([1.0, 5000.0])] * n)

    found = find(PLAN, (parse("latency:p99<500ms"),), run)
    assert len(found.trials) <= 61
    assert found.reason


def test_each_round_has_arrivals_of_its_own_and_the_plans_law() -> None:
    plans: list[LoadPlan] = []
    inner = queue(4, 0.02)

    def run(plan: LoadPlan) -> LoadReport:
        plans.append(plan)
        return inner(plan)

    plan = LoadPlan(url="http://127.0.0.1:1", arrivals=Constant(rate=1.0))
    find(plan, (parse("latency:p95<300ms"),), run)
    assert all(isinstance(p.arrivals, Constant) for p in plans)
    assert len({p.seed for p in plans}) == len(plans)
    assert all(p.warmup_requests > 0 for p in plans)


def test_every_trial_is_told_and_the_result_survives_json() -> None:
    told: list[Trial] = []
    found = find(PLAN, (parse("latency:p95<500ms"),), queue(1, 0.02), watch=told.append)
    assert tuple(told) == found.trials
    assert from_plain(to_plain(found), Found) == found


def test_a_search_without_promises_says_what_is_missing() -> None:
    with pytest.raises(LLMInvalidRequestError, match="--slo"):
        find(PLAN, (), queue(1, 0.02))
    with pytest.raises(LLMInvalidRequestError, match="5 to 1"):
        find(PLAN, (parse("ttft:p99<1s"),), queue(1, 0.02), limits=Limits(least=5, most=1))


def test_a_latency_that_grows_all_the_time_is_no_steady_state() -> None:
    sent = tuple(float(i) for i in range(300))
    assert grows(
        Columns(sent_s=sent, latency_ms=tuple(10.0 * i for i in range(300))), "latency_ms", 2000
    )
    flat = tuple(100.0 + i % 7 for i in range(300))
    assert not grows(Columns(sent_s=sent, latency_ms=flat), "latency_ms", 2000)


def test_presets_are_promises_and_unknown_ones_name_the_known() -> None:
    for name in PRESETS:
        assert preset(name)
    assert [p.text for p in preset("mlperf-llama3.1-8b-interactive")] == [
        "ttft:p99<500ms",
        "tpot:p99<30ms",
    ]
    with pytest.raises(LLMInvalidRequestError, match="serving"):
        preset("nothing")
