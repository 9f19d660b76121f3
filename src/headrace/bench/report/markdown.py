"""The report in Markdown, short enough for a pull request, alone or beside a baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from headrace.bench.report import words
from headrace.contracts.load_report import Distribution, Figures, LoadReport

_MARKS = {"VALID": "✅", "SUSPECT": "⚠️", "INVALID": "❌"}
_KEPT = {True: "✅", False: "❌", None: "❔"}


def markdown(report: LoadReport, baseline: LoadReport | None = None) -> str:
    """The verdict, what was run, promises, rates and times; with ``baseline`` also the ratios."""
    parts = [
        _head(report),
        _facts(report),
        _promises(report),
        _times(report),
        _scenarios(report),
        _errors(report),
        [] if baseline is None else _beside(report, baseline),
        [f"- {code(note)}" for note in report.notes],
    ]
    lines = chain.from_iterable([*part, ""] for part in parts if part)
    return "\n".join(lines)


def _head(report: LoadReport) -> list[str]:
    verdict = report.trust.verdict
    model = code(report.plan.model) if report.plan.model else "its own model"
    lines = [
        f"### {_MARKS[verdict]} Load test of {code(words.target(report.plan))}, {model}",
        "",
        f"**{verdict}**: {words.verdict_words(report.trust)}.",
    ]
    for doubt in report.trust.doubts:
        lines += ["", f"- {code(words.doubt_head(doubt))}: {code(doubt.text)}"]
    if ended := words.ended_words(report):
        lines += ["", f"**{ended}**"]
    return lines


def _facts(report: LoadReport) -> list[str]:
    rows = dict(words.plan_rows(report))
    rates = ", ".join(f"{name} **{value}**" for name, value in words.rate_rows(report))
    lines = [
        f"{plain_words(rows['arrivals'])}; {plain_words(rows['workload'])}; "
        f"{words.seconds(report.figures.seconds)} measured. "
        f"{words.counts_words(report.figures.counts)}." + (f" {_up(rates)}." if rates else "")
    ]
    return [*lines, "", f"*{words.CLOSED_LOOP}*"] if report.closed_loop else lines


def _promises(report: LoadReport) -> list[str]:
    rows = [
        [
            code(r.promise.text),
            words.promise_value(r),
            f"{_KEPT[r.kept]} {words.promise_words(r)}"
            + (f" ({plain_words(r.text)})" if r.text else ""),
        ]
        for r in report.promises
    ]
    return table(["promise", "came", ""], rows)


def _times(report: LoadReport) -> list[str]:
    told = words.time_rows(report)
    rows = []
    for name, d in told:
        by, unit = words.scale(d)
        most = None if d.maximum is None else d.maximum / by
        cells = [_with_interval(d, p) for p in words.SHOWN]
        rows.append([f"{name}, {unit}", *cells, words.number(most)])
    lines = table(["time", *words.SHOWN, "max"], rows)
    if lacking := words.lacking(told):
        lines += ["", f"<sub>{lacking}</sub>"]
    return lines


def _with_interval(d: Distribution, name: str) -> str:
    bounds = words.interval_cell(d, name)
    value = words.percentile_cell(d, name)
    return f"{value} <sub>{bounds}</sub>" if bounds else value


def _scenarios(report: LoadReport) -> list[str]:
    if len(report.scenarios) < 2:
        return []
    rows = [
        [
            code(name),
            words.count(f.counts.measured),
            words.count(f.counts.failed),
            *(_cell(d, p) for d in (f.ttft, f.latency) for p in ("p50", "p99")),
        ]
        for name, f in report.scenarios.items()
    ]
    heads = ["scenario", "requests", "failed", "TTFT p50", "TTFT p99", "latency p50", "latency p99"]
    return table(heads, rows)


def _cell(d: Distribution | None, name: str) -> str:
    if d is None or not d.count:
        return words.NOTHING
    value = d.percentiles.get(name)
    return words.missing(name, d) if value is None else words.time_ms(value)


def _errors(report: LoadReport) -> list[str]:
    rows = [
        [
            code(e.kind),
            words.NOTHING if e.status is None else str(e.status),
            words.count(e.count),
            code(e.example) if e.example else "",
        ]
        for e in report.errors
    ]
    return table(["error", "status", "requests", "the first one's message"], rows)


# Beside a baseline.


def _beside(report: LoadReport, baseline: LoadReport) -> list[str]:
    rows = []
    mine, theirs = report.figures, baseline.figures
    for name, now, before in (
        ("requests/s", mine.requests_per_s, theirs.requests_per_s),
        ("output tokens/s", mine.output_tokens_per_s, theirs.output_tokens_per_s),
        ("goodput/s", mine.goodput_per_s, theirs.goodput_per_s),
    ):
        if now is not None and before is not None:
            ratio = _ratio(now, before)
            rows.append([name, words.number(before), words.number(now), ratio, ""])
    for name, p, d, base in _pairs(mine, theirs):
        now, before = d.percentiles.get(p), base.percentiles.get(p)
        if now is not None and before is not None:
            ratio = _ratio(now, before)
            rows.append(
                [f"{name} {p}", words.time_ms(before), words.time_ms(now), ratio, _seen(d, base, p)]
            )
    lines = [
        f"**Beside the baseline** {code(baseline.run_id)} of {plain_words(baseline.started)}:",
        "",
    ]
    if baseline.closed_loop != report.closed_loop:
        lines += ["⚠️ One of the two is a closed loop: their latencies cannot be compared.", ""]
    if baseline.trust.verdict != "VALID":
        lines += [f"⚠️ The baseline's own verdict is {baseline.trust.verdict}.", ""]
    return [
        *lines,
        *table(["", "baseline", "this run", "ratio", "by their 95% intervals"], rows),
        "",
        "<sub>Faster or slower is said only where the intervals do not touch. `headrace compare` "
        "gives intervals of the ratios themselves.</sub>",
    ]


def _pairs(mine: Figures, theirs: Figures) -> Iterable[tuple[str, str, Distribution, Distribution]]:
    for name, d, base in (
        ("TTFT", mine.ttft, theirs.ttft),
        ("TPOT", mine.tpot, theirs.tpot),
        ("ITL", mine.itl, theirs.itl),
        ("latency", mine.latency, theirs.latency),
    ):
        if d is not None and base is not None:
            for p in ("p50", "p95", "p99"):
                yield name, p, d, base


def _ratio(now: float, before: float) -> str:
    return f"{now / before:.3f}" if before else words.NOTHING


def _seen(d: Distribution, base: Distribution, p: str) -> str:
    now, before = d.intervals.get(p), base.intervals.get(p)
    if now is None or before is None:
        return "too little data"
    if now[1] < before[0]:
        return "faster"
    return "slower" if now[0] > before[1] else "no difference seen"


# The format itself.


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under their heads; no lines at all where there is no row."""
    if not rows:
        return []
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in lines]


def code(text: str) -> str:
    """What others have written, as code: there it is neither markup nor a mention of anybody."""
    return "`" + words.safe(text, 160).replace("`", "'") + "`"


def plain_words(text: str, most: int = 160) -> str:
    """Words of our own that may hold a name."""
    safe = words.safe(text, most)
    for mark in "\\`*_[]<>@":
        safe = safe.replace(mark, "\\" + mark)
    return safe


def _up(text: str) -> str:
    return text[:1].upper() + text[1:]
