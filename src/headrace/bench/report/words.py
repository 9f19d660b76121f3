"""Figures and facts of a load test as people read them; every form of the report says them so.

Text that came from elsewhere (a model's name, a server's error) goes through ``safe`` first.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.bench.report.saved import without_user
from headrace.contracts.load import (
    Arrivals,
    Bursts,
    Closed,
    Constant,
    Gamma,
    Length,
    LoadPlan,
    Poisson,
    Prompts,
    Ramp,
    Replay,
    Scenarios,
    Steps,
    Synthetic,
    Workload,
)
from headrace.contracts.load_report import (
    Counts,
    Distribution,
    Doubt,
    Figures,
    LoadReport,
    PromiseResult,
    Trust,
)
from headrace.numbers.stats import percentile_needs

NOTHING = "–"
SHOWN = ("p50", "p90", "p95", "p99")
"""The percentiles that tables have; the maximum stands beside them."""

# From here on a row of times is told in seconds.
_LONG_MS = 20_000.0


def safe(text: str, most: int = 300) -> str:
    """``text`` on one line, cut to ``most``, with what is not printable shown as an escape."""
    shown = "".join(
        c if c.isprintable() else " " if c in "\n\t\r" else c.encode("unicode_escape").decode()
        for c in text[: most + 1]
    )
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def number(value: float | None) -> str:
    """Three figures or more, and none that only measuring noise has written."""
    if value is None:
        return NOTHING
    size = abs(value)
    digits = 0 if size >= 99.95 or size == 0 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3
    return f"{value:,.{digits}f}"


def count(n: float) -> str:
    """A whole number, in groups of three digits."""
    return f"{n:,.0f}"


def share(value: float | None) -> str:
    """A share from 0 to 1, as per cent."""
    if value is None:
        return NOTHING
    if value in (0, 1):
        return f"{value:.0%}"
    return (
        f"{value:.1%}" if 0.1 <= value < 0.9995 else f"{value:.2%}" if value >= 1e-4 else "<0.01%"
    )


def time_ms(ms: float | None) -> str:
    """Milliseconds with their unit, as seconds from twenty on."""
    if ms is None:
        return NOTHING
    return f"{number(ms / 1000)} s" if ms >= _LONG_MS else f"{number(ms)} ms"


def seconds(s: float) -> str:
    """A length of time."""
    if s < 120:
        return f"{s:.3g} s"
    if s < 7200:
        return f"{s // 60:.0f} min {s % 60:.0f} s"
    return f"{s // 3600:.0f} h {s % 3600 // 60:.0f} min"


def several(n: float, one: str, many: str | None = None) -> str:
    """``n`` with its noun."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


# One row of a table of times.


def scale(d: Distribution) -> tuple[float, str]:
    """By what to divide the distribution's figures, and the unit that they have then."""
    if d.unit == "ms" and (d.maximum or 0.0) >= _LONG_MS:
        return 1000.0, "s"
    return 1.0, d.unit


def fraction(name: str) -> float:
    """0.99 for ``p99``."""
    return round(float(name.removeprefix("p")) / 100, 9)


def missing(name: str, d: Distribution) -> str:
    """What stands where percentile ``name`` cannot be told: how many samples it needs."""
    needed = percentile_needs(fraction(name))
    return f"needs {needed}" if d.count < needed else NOTHING


def percentile_cell(d: Distribution, name: str) -> str:
    """Percentile ``name`` without its unit, or how many samples it needs."""
    by, _ = scale(d)
    value = d.percentiles.get(name)
    return missing(name, d) if value is None else number(value / by)


def interval_cell(d: Distribution, name: str) -> str:
    """The bounds of percentile ``name``; nothing where there are none."""
    by, _ = scale(d)
    bounds = d.intervals.get(name)
    if bounds is None or d.percentiles.get(name) is None:
        return ""
    return f"{number(bounds[0] / by)}–{number(bounds[1] / by)}"


def lacking(rows: Sequence[tuple[str, Distribution]]) -> str:
    """One sentence that says why some percentiles are not there; nothing where all are."""
    short = {
        name: percentile_needs(fraction(name))
        for _, d in rows
        for name in SHOWN
        if d.percentiles.get(name) is None and d.count < percentile_needs(fraction(name))
    }
    if not short:
        return ""
    needs = ", ".join(f"{name} {n}" for name, n in sorted(short.items(), key=lambda x: x[1]))
    return (
        "Percentiles that so few samples cannot carry are not told: below these counts not even "
        f"the largest sample bounds them with 95% confidence ({needs})."
    )


def time_rows(report: LoadReport, figures: Figures | None = None) -> list[tuple[str, Distribution]]:
    """The times of a run, or of one of its scenarios, by the name that they are shown under."""
    f = report.figures if figures is None else figures
    rows = (
        [("TTFT", f.ttft), ("TPOT", f.tpot), ("ITL", f.itl), ("latency", f.latency)]
        if report.closed_loop
        else [
            ("TTFT from intended", f.ttft),
            ("TTFT from sending", f.service_ttft),
            ("TPOT", f.tpot),
            ("ITL", f.itl),
            ("latency from intended", f.latency),
            ("service time", f.service),
        ]
    )
    return [(name, d) for name, d in rows if d is not None and d.count]


# Rates and counts.


def rate_rows(report: LoadReport, figures: Figures | None = None) -> list[tuple[str, str]]:
    """Each rate by name."""
    f = report.figures if figures is None else figures
    rows = [
        ("requests", f.requests_per_s, "/s"),
        ("output tokens", f.output_tokens_per_s, "/s"),
        ("input tokens", f.input_tokens_per_s, "/s"),
    ]
    if report.promises:
        rows.append(("goodput", f.goodput_per_s, "/s"))
    return [(name, number(value) + unit) for name, value, unit in rows if value is not None]


def counts_words(c: Counts) -> str:
    """Requests by fate."""
    said = f"{count(c.measured)} measured: {count(c.ok)} ok, {count(c.failed)} failed"
    if c.cut:
        said += f", {count(c.cut)} cut off at the end"
    beside = [
        f"{count(n)} {what}"
        for n, what in (
            (c.warmup, "in warm-up"),
            (c.cooldown, "in cool-down"),
            (c.never_sent, "never sent"),
        )
        if n
    ]
    return said + (f" (beside them {', '.join(beside)})" if beside else "")


# The verdict.


def ended_words(report: LoadReport) -> str:
    """How the run ended, where it did not run to its end."""
    return {
        "complete": "",
        "interrupted": "The run was interrupted; the figures are of what had been measured.",
        "too many errors": "The run was stopped: too many requests failed.",
        "target lost": "The run was stopped: the target could not be reached any more.",
    }[report.ended]


def verdict_words(t: Trust) -> str:
    """What the verdict means."""
    return {
        "VALID": "the sender kept up; these are the server's figures",
        "SUSPECT": "some figures may be the sender's own",
        "INVALID": "these figures are not the server's: do not use them",
    }[t.verdict]


def doubt_head(d: Doubt) -> str:
    """What a doubt is about, and how far it goes where it speaks against the figures."""
    return safe(d.name) if d.verdict == "VALID" else f"{d.verdict}, {safe(d.name)}"


def connect_words(d: Distribution) -> str:
    """What setting up connections took."""
    middle = d.percentiles.get("p50")
    half = "" if middle is None else f"{time_ms(middle)} at the median, "
    return f"{several(d.count, 'connection')} set up in {half}{time_ms(d.maximum)} at most; not in TTFT"


def sender_rows(t: Trust) -> list[tuple[str, str]]:
    """What is known of the sender, by name."""
    rows = []
    if t.schedule_lag_ms is not None:
        most = t.schedule_lag_max_ms
        at_most = "" if most is None else f", at most {time_ms(most)}"
        rows.append(("schedule lag", f"p99 {time_ms(t.schedule_lag_ms)}{at_most}"))
    if t.read_lag_ms is not None:
        rows.append(("read lag", f"p99 {time_ms(t.read_lag_ms)}"))
    if t.loop_lag_ms is not None:
        most = t.loop_lag_max_ms
        at_most = "" if most is None else f", at most {time_ms(most)}"
        rows.append(("loop lag", f"p99 {time_ms(t.loop_lag_ms)}{at_most}"))
    if t.coalesced_share is not None:
        rows.append(("coalesced reads", share(t.coalesced_share)))
    if t.cpu_share is not None:
        rows.append(("CPU", f"{share(t.cpu_share)} of a core"))
    if t.wait_share is not None:
        rows.append(("waited for a core", f"{share(t.wait_share)} of the time"))
    if t.steal_share:
        rows.append(("stolen", f"{share(t.steal_share)} of the machine's cores"))
    if t.cpu_s_per_1k_tokens is not None:
        rows.append(("CPU time", f"{number(t.cpu_s_per_1k_tokens)} s per 1,000 tokens"))
    if t.lost_connections:
        rows.append(("lost", several(t.lost_connections, "connection")))
    if t.peak_rss_bytes is not None:
        rows.append(("memory", f"{t.peak_rss_bytes / 2**20:,.0f} MiB"))
    rows.append(("receive times", "the kernel's" if t.times_from == "kernel" else "of the read"))
    return rows


def sender_words(t: Trust) -> str:
    """What is known of the sender, in one line."""
    return ", ".join(f"{name} {value}" for name, value in sender_rows(t))


CLOSED_LOOP = (
    "A closed loop: each caller waits for its answer before it asks again. When the server slows "
    "down, so does the load, and the waiting of callers who would have come meanwhile is in no "
    "figure. For latencies under a given rate, run with a rate."
)


def promise_words(r: PromiseResult) -> str:
    """Kept, broken, or not to be said."""
    return {True: "kept", False: "BROKEN", None: "cannot be said"}[r.kept]


def promise_value(r: PromiseResult) -> str:
    """What came, in the promise's unit."""
    if r.value is None and r.kept is False:
        # Failures are the longest of all, and reach down to this percentile.
        return "failed requests"
    return share(r.value) if r.promise.metric == "errors" else time_ms(r.value)


# What was run.


def target(plan: LoadPlan) -> str:
    """The target's address, without a name or password that may stand in it."""
    return safe(without_user(plan.url))


def plan_rows(report: LoadReport) -> list[tuple[str, str]]:
    """What was run, by name."""
    plan = report.plan
    how = plan.kind + (", streamed" if plan.stream else ", answers whole")
    ends = []
    if plan.requests is not None:
        ends.append(several(plan.requests, "request"))
    if plan.duration_s is not None:
        ends.append(seconds(plan.duration_s))
    left_out = []
    if plan.warmup_s or plan.warmup_requests:
        left_out.append(
            "warm-up "
            + (
                seconds(plan.warmup_s)
                if plan.warmup_s
                else several(plan.warmup_requests, "request")
            )
        )
    if plan.cooldown_s:
        left_out.append(f"cool-down {seconds(plan.cooldown_s)}")
    rows = [
        ("target", target(plan)),
        ("model", safe(plan.model) if plan.model else "the target's own choice"),
        ("kind", how),
        ("arrivals", arrivals_words(plan.arrivals)),
        ("workload", workload_words(plan.workload)),
        ("until", " or ".join(ends) or "interrupted"),
        ("left out", ", ".join(left_out)),
        ("at most", f"{count(plan.at_most)} in flight" if plan.at_most is not None else ""),
        ("workers", count(plan.workers) if plan.workers > 1 else ""),
        ("seed", str(plan.seed)),
        ("started", safe(report.started)),
        ("run", safe(report.run_id)),
    ]
    return [(name, value) for name, value in rows if value]


def arrivals_words(a: Arrivals) -> str:  # noqa: PLR0911 - a table of kinds, a line each
    """When requests were meant to be sent."""
    match a:
        case Closed():
            said = f"closed loop of {several(a.concurrency, 'caller')}"
            said += f", begun over {seconds(a.ramp_s)}" if a.ramp_s else ""
            return said + (f", thinking {seconds(a.think_s)}" if a.think_s else "")
        case Constant():
            return f"constant, {number(a.rate)} requests/s"
        case Poisson():
            return f"Poisson, {number(a.rate)} requests/s"
        case Gamma():
            return f"gamma, {number(a.rate)} requests/s, burstiness {a.burstiness:g}"
        case Bursts():
            return f"bursts of {count(a.size)} every {seconds(a.every_s)}"
        case Ramp():
            return f"ramp from {number(a.begin)} to {number(a.end)} requests/s over {seconds(a.over_s)}"
        case Steps():
            rates = ", ".join(number(r) for r in a.rates)
            return f"steps of {seconds(a.each_s)} at {rates} requests/s"
        case Replay():
            speed = f" at {a.speed:g} times its speed" if a.speed != 1 else ""
            return f"replay of {safe(a.path.name)}{speed}"


def workload_words(w: Workload) -> str:
    """What the requests said."""
    match w:
        case Scenarios():
            return f"{w.name} conversations"
        case Synthetic():
            said = f"synthetic, {length_words(w.input)} in, {length_words(w.output)} out"
            if w.prefix_tokens:
                groups = several(w.prefixes, "group")
                said += f", {count(w.prefix_tokens)} of them shared within {groups}"
            said += f", {several(w.turns, 'turn')} each" if w.turns > 1 else ""
            return said + (f", {several(w.images, 'image')} each" if w.images else "")
        case Prompts():
            order = ", shuffled" if w.shuffle else ""
            return f"prompts of {safe(w.path.name)}{order}"


def length_words(length: Length) -> str:
    """A distribution of tokens."""
    match length.shape:
        case "constant":
            return several(length.mean, "token")
        case "uniform":
            most = NOTHING if length.most is None else count(length.most)
            return f"{count(length.least)} to {most} tokens"
        case _:
            return f"{length.shape} {length.mean:g}±{length.spread:g} tokens"
