"""Reports to test with, made of seeded figures as a real run would leave them."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from attrs import evolve

from headrace.contracts.load import (
    Closed,
    LoadPlan,
    Poisson,
    Promise,
    Scenarios,
)
from headrace.contracts.load_report import (
    Columns,
    Counts,
    Distribution,
    Doubt,
    ErrorCount,
    Figures,
    LoadReport,
    Moment,
    PromiseResult,
    ServerSeries,
    Trust,
)
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.stats import mean, percentile, percentile_needs, sample_std

HOSTILE = "<script>alert(1)</script>\x1b[31m|`\"'&\u202e]]>\n=1+1"
NAMES = ("p50", "p75", "p90", "p95", "p99", "p99.9")
BOUNDS = tuple(10 * 1.25**i for i in range(30))


def distribution(values, unit="ms"):
    values = [v for v in values if v is not None]
    told = LogHistogram()
    for value in values:
        told.add(value)
    ps = {n: float(n[1:]) / 100 for n in NAMES}
    percentiles = {
        n: percentile(values, p) if len(values) >= percentile_needs(p) else None
        for n, p in ps.items()
    }
    return Distribution(
        unit=unit,
        count=len(values),
        mean=mean(values),
        std=sample_std(values),
        minimum=min(values, default=None),
        maximum=max(values, default=None),
        percentiles=percentiles,
        intervals={n: None if v is None else (v * 0.97, v * 1.04) for n, v in percentiles.items()},
        histogram=told.to_plain(),
    )


def figures_of(rows, gaps, seconds):
    ok = [r for r in rows if r["error"] is None]
    if not ok:
        return Figures(
            counts=Counts(sent=len(rows), measured=len(rows), failed=len(rows)),
            seconds=seconds,
            error_share=1.0 if rows else None,
        )

    def column(name):
        return [r[name] for r in ok]

    return Figures(
        counts=Counts(
            sent=len(rows) + 12,
            measured=len(rows),
            ok=len(ok),
            failed=len(rows) - len(ok),
            warmup=12,
        ),
        seconds=seconds,
        requests_per_s=len(ok) / seconds,
        input_tokens_per_s=sum(column("input")) / seconds,
        output_tokens_per_s=sum(column("output")) / seconds,
        goodput_per_s=0.9 * len(ok) / seconds,
        error_share=1 - len(ok) / len(rows),
        latency=distribution(column("latency")),
        service=distribution(column("service")),
        ttft=distribution(column("ttft")),
        service_ttft=distribution([t * 0.9 for t in column("ttft")]),
        tpot=distribution(column("tpot")),
        itl=distribution(gaps),
        input_tokens=distribution(column("input"), "tokens"),
        output_tokens=distribution(column("output"), "tokens"),
        output_speed=distribution([1000 / t for t in column("tpot")], "tokens/s"),
    )


def run(n=1200, *, seed=1, closed=False, failing=0.01, rate=20.0, rows_too=True, text=""):
    """A run of ``n`` requests; ``text`` goes wherever a server's or a user's words may stand."""
    rng = random.Random(seed)
    rows, gaps, at = [], [], 0.0
    for _ in range(n):
        at += rng.expovariate(rate)
        scenario = rng.choice(("short", "medium", "long"))
        slow = 1 + 2.5 * math.exp(-(((at / max(1.0, n / rate)) - 0.6) ** 2) / 0.01)
        ttft = rng.lognormvariate(math.log(60), 0.35) * slow
        output = max(2, int(rng.gauss({"short": 30, "medium": 120, "long": 300}[scenario], 12)))
        tpot = rng.lognormvariate(math.log(11), 0.12) * slow**0.5
        gaps += [tpot * rng.lognormvariate(0, 0.3) for _ in range(8)]
        service = ttft + tpot * (output - 1)
        failed = rng.random() < failing
        rows.append(
            {
                "at": at,
                "ttft": ttft,
                "tpot": tpot,
                "service": service,
                "latency": service + 1.5,
                "input": int(rng.gauss(300, 60)) + 1,
                "output": output,
                "scenario": scenario,
                "error": rng.choice(("LLMRateLimitError", "LLMTimeoutError")) if failed else None,
            }
        )
    seconds = max(1.0, at)
    figures = figures_of(rows, gaps, seconds)
    promises = (
        PromiseResult(
            promise=Promise(metric="ttft", p=0.99, below=500, text="ttft:p99<500ms"),
            value=figures.ttft and figures.ttft.percentiles["p99"],
            kept=None if n < 299 or failing == 1 else True,
        ),
        PromiseResult(
            promise=Promise(metric="errors", p=None, below=0.001, text="errors<0.1%"),
            value=figures.error_share,
            kept=None if not n else figures.error_share < 0.001,
            text=f"{sum(r['error'] is not None for r in rows)} of {n}",
        ),
    )
    failures = [r for r in rows if r["error"]]
    kinds = {r["error"] for r in failures}
    return LoadReport(
        run_id="run-1" + text,
        started="2026-11-28T19:00:00Z",
        plan=LoadPlan(
            url="http://user:secret-in-url@127.0.0.1:8000/v1",
            model="qwen3-0.6b" + text,
            arrivals=Closed(concurrency=16) if closed else Poisson(rate=rate),
            workload=Scenarios(name="mixed"),
            duration_s=60.0,
            warmup_s=5.0,
            headers=(("X-Corp-Key", "secret-in-header"),),
        ),
        ended="complete",
        closed_loop=closed,
        figures=figures,
        trust=Trust(
            verdict="SUSPECT" if text else "VALID",
            doubts=(Doubt(name="cpu" + text, verdict="SUSPECT", text="busy" + text),)
            if text
            else (),
            times_from="kernel",
            schedule_lag_ms=0.08,
            schedule_lag_max_ms=1.2,
            read_lag_ms=0.05,
            coalesced_share=0.002,
            cpu_share=0.34,
            cpu_s_per_1k_tokens=0.011,
            peak_rss_bytes=48 << 20,
        ),
        version="0.1.0",
        errors=tuple(
            ErrorCount(
                kind=kind,
                count=sum(r["error"] == kind for r in failures),
                status=429 if "Rate" in kind else None,
                example="try again" + text,
            )
            for kind in sorted(kinds)
        ),
        connect=distribution([rng.uniform(0.2, 0.8) for _ in range(16)]),
        promises=promises,
        scenarios={
            name + text: figures_of(mine, gaps, seconds)
            for name in ("short", "medium", "long")
            if (mine := [r for r in rows if r["scenario"] == name])
        },
        series=moments(rows, seconds),
        heat_bounds_ms=BOUNDS,
        server=server(seconds, text),
        requests=columns(rows, text) if rows_too else None,
        notes=("tokens counted by chunks: no usage" + text,) if text else (),
    )


def columns(rows, text=""):
    def ok(name):
        return tuple(None if r["error"] else r[name] for r in rows)

    return Columns(
        index=tuple(range(len(rows))),
        intended_s=tuple(r["at"] for r in rows),
        sent_s=tuple(r["at"] + 0.0015 for r in rows),
        latency_ms=ok("latency"),
        service_ms=ok("service"),
        ttft_ms=ok("ttft"),
        tpot_ms=ok("tpot"),
        worst_gap_ms=tuple(None if r["error"] else 3 * r["tpot"] for r in rows),
        connect_ms=tuple(0.4 if i < 16 else None for i in range(len(rows))),
        input_tokens=tuple(r["input"] for r in rows),
        output_tokens=ok("output"),
        chunks=tuple(0 if r["error"] else r["output"] for r in rows),
        status=tuple(429 if r["error"] else 200 for r in rows),
        error=tuple(r["error"] for r in rows),
        scenario=tuple(r["scenario"] + text for r in rows),
    )


def told(rows, name, p):
    return percentile([r[name] for r in rows], p)


def moments(rows, seconds):
    made = []
    begun, ended = defaultdict(list), defaultdict(list)
    for r in rows:
        begun[int(r["at"])].append(r)
        ended[int(r["at"] + r["latency"] / 1000)].append(r)
    flying = 0
    for second in range(math.ceil(seconds) if rows else 0):
        sent, done = begun[second], ended[second]
        good = [r for r in done if not r["error"]]
        flying += len(sent) - len(done)
        heat = [0] * (len(BOUNDS) + 1)
        for r in good:
            heat[sum(b < r["latency"] for b in BOUNDS)] += 1
        made.append(
            Moment(
                at=float(second),
                seconds=1.0,
                sent=len(sent),
                done=len(good),
                failed=len(done) - len(good),
                in_flight=flying,
                waiting=max(0, flying - 40),
                input_tokens=sum(r["input"] for r in sent),
                output_tokens=sum(r["output"] for r in good),
                ttft_p50=told(good, "ttft", 0.5),
                ttft_p95=told(good, "ttft", 0.95),
                itl_p50=told(good, "tpot", 0.5),
                latency_p50=told(good, "latency", 0.5),
                latency_p95=told(good, "latency", 0.95),
                latency_max=told(good, "latency", 1.0),
                heat=tuple(heat),
            )
        )
    return tuple(made)


def server(seconds, text=""):
    at = tuple(float(i) for i in range(math.ceil(seconds)))
    return (
        ServerSeries(
            name="vllm:num_requests_running",
            labels=text,
            at=at,
            values=tuple(20 + 15 * math.sin(t / 9) for t in at),
        ),
        ServerSeries(
            name="vllm:kv_cache_usage_perc",
            at=at,
            values=tuple(0.4 + 0.3 * math.sin(t / 15) for t in at),
        ),
        ServerSeries(
            name="vllm:generation_tokens_total",
            kind="counter",
            at=at,
            values=tuple(900 + 300 * math.cos(t / 7) for t in at),
        ),
    )


def empty():
    """A run that was stopped before any request was measured."""
    return evolve(run(0), ended="interrupted")


def all_failed():
    return run(40, failing=1.0)
