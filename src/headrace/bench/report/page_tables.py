"""The tables of the report's page: words stand at the left, figures at the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.bench.report import words
from headrace.bench.report.requests_csv import NAMES, rows
from headrace.bench.report.svg import text_of
from headrace.contracts.load_report import Distribution, LoadReport

MOST_ROWS = 2000
"""A run of fewer requests than this has a table of them all."""


def percentile(d: Distribution, name: str) -> str:
    """A percentile with its unit, or how many samples it needs."""
    value = d.percentiles.get(name)
    return words.missing(name, d) if value is None else words.time_ms(value)


def table(heads: Sequence[str], body: Iterable[str], kind: str = "") -> str:
    """Rows under their heads; a head that begins with a tilde is of a column of words."""
    head = "".join(
        f'<th scope="col" class="text">{h[1:]}</th>'
        if h[:1] == "~"
        else f'<th scope="col">{h}</th>'
        for h in heads
    )
    return (
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>'
        + "".join(body)
        + "</tbody></table>"
    )


def row(first: str, cells: Iterable[str]) -> str:
    """A row that its first cell names; a cell may be a whole ``td``."""
    return (
        f'<tr><th scope="row">{first}</th>'
        + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in cells)
        + "</tr>"
    )


def section(title: str, inner: str, under: str = "", kind: str = "") -> str:
    """A card with a table in it."""
    below = f'<p class="quiet small">{text_of(under, 600)}</p>' if under else ""
    return f'<section class="card {kind}"><h2>{text_of(title)}</h2>{below}<div class="scroll">{inner}</div></section>'


def promises(report: LoadReport) -> str:
    """Each promise, what came, and whether it was kept."""
    if not report.promises:
        return ""
    kinds = {True: "ok", False: "error", None: "warn"}
    body = [
        row(
            f"<code>{text_of(r.promise.text)}</code>",
            [
                text_of(words.promise_value(r)),
                f'<td class="text"><span class="pill {kinds[r.kept]}">{words.promise_words(r)}</span></td>',
                f'<td class="wrap">{text_of(r.text)}</td>',
            ],
        )
        for r in report.promises
    ]
    return section("Promises", table(["promise", "came", "~", "~"], body, "narrow"))


def times(report: LoadReport) -> str:
    """Percentiles of each time with their intervals."""
    told = words.time_rows(report)
    if not told:
        return '<p class="card">No request was answered, so there are no times.</p>'
    body = []
    for name, d in told:
        by, unit = words.scale(d)
        cells = [words.count(d.count), words.number(None if d.mean is None else d.mean / by)]
        cells += [_percentile_cell(d, p) for p in words.SHOWN]
        cells.append(words.number(None if d.maximum is None else d.maximum / by))
        body.append(row(f"{text_of(name)}, {unit}", cells))
    heads = ["", "samples", "mean", *words.SHOWN, "max"]
    under = "Below each percentile its 95% confidence interval. " + words.lacking(told)
    return section("Times", table(heads, body), under)


def _percentile_cell(d: Distribution, name: str) -> str:
    value = words.percentile_cell(d, name)
    if d.percentiles.get(name) is None:
        return f'<span class="lacks">{text_of(value)}</span>'
    return f"<b>{text_of(value)}</b><small>{text_of(words.interval_cell(d, name))}</small>"


def errors(report: LoadReport) -> str:
    """Failures by kind."""
    body = [
        row(
            text_of(e.kind, 80),
            [
                words.count(e.count),
                words.NOTHING if e.status is None else str(e.status),
                f'<td class="wrap"><code>{text_of(e.example)}</code></td>' if e.example else "",
            ],
        )
        for e in report.errors
    ]
    if not body:
        return ""
    heads = ["error", "requests", "status", "~the first one's message"]
    return section("Errors by kind", table(heads, body, "narrow"))


def requests(report: LoadReport) -> str:
    """Every single request, where they are few enough; else a word on where they are."""
    columns = report.requests
    if columns is None or not columns.index:
        return ""
    if len(columns.index) >= MOST_ROWS:
        return (
            f'<p class="quiet small">The {words.count(len(columns.index))} single requests are too '
            "many for a table here; requests.csv has them all.</p>"
        )
    shown = [
        ("request", "index"),
        ("intended, s", "intended_s"),
        ("sent, s", "sent_s"),
        ("latency, ms", "latency_ms"),
        ("TTFT, ms", "ttft_ms"),
        ("TPOT, ms", "tpot_ms"),
        ("worst gap, ms", "worst_gap_ms"),
        ("in", "input_tokens"),
        ("out", "output_tokens"),
        ("status", "status"),
        ("~error", "error"),
        ("~scenario", "scenario"),
    ]
    at = [NAMES.index(name) for _, name in shown]
    body = ("<tr>" + "".join(_value_cell(row[n]) for n in at) + "</tr>" for row in rows(columns))
    listed = table([head for head, _ in shown], body, "sorts")
    return (
        f'<section class="card screen"><h2>Requests ({words.count(len(columns.index))})</h2>'
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="Requests">{listed}</div></section>'
    )


def _value_cell(value: object) -> str:
    match value:
        case None:
            return '<td data-v="">–</td>'
        case float():
            return f'<td data-v="{value:.6g}">{words.number(value)}</td>'
        case int():
            return f"<td>{value}</td>"
        case _:
            return f'<td class="text">{text_of(str(value), 60)}</td>'
