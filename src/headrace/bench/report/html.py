"""The report as one HTML file that needs nothing else: no network, and no script to be read.

All text that others have written passes through ``text_of``. The one script of the file answers
the pointer and sorts the table of requests; a policy in the file forbids any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from headrace.bench.report import distributions, page_tables, rates, timelines, words
from headrace.bench.report.page import bullets, card, figure, page, pair, terms
from headrace.bench.report.rates import RatePoint
from headrace.bench.report.svg import text_of
from headrace.bench.report.timelines import Drawn
from headrace.contracts.load_report import Distribution, LoadReport

_DEFINITIONS = (
    (
        "TTFT",
        "Time to first token: until the first piece of output had come. Setting up a connection is "
        "not in it.",
    ),
    (
        "TPOT",
        "Time per output token: a request's mean time per token after its first, "
        "(last - first) / (tokens - 1).",
    ),
    ("ITL", "Inter-token latency: every single gap between two pieces of output, of all requests."),
    ("latency", "Until the answer's end. In an open loop it counts from the intended time."),
    (
        "from intended",
        "From when the schedule meant a request to be sent. What a caller would have waited, also "
        "where the sender or a cap held the request back.",
    ),
    ("service time", "From when a request was really sent. It hides such waiting."),
    ("goodput", "Requests a second that met every promise that can be asked of a single request."),
    (
        "interval",
        "The bounds within which the true percentile lies with 95% confidence, by order statistics.",
    ),
    (
        "needs 299",
        "So many samples it takes before the largest of them bounds that percentile with 95% "
        "confidence; with fewer it is not told.",
    ),
    (
        "verdict",
        "Whether the sender itself kept up. VALID: the figures are the server's. SUSPECT: some may "
        "be the sender's own. INVALID: do not use them.",
    ),
)


def html(report: LoadReport, points: Sequence[RatePoint] = ()) -> str:
    """The whole page. ``points`` of a search for the highest rate are drawn as its knee."""
    numbers = count(1)
    title = f"Load test of {words.target(report.plan)}"
    body = "\n".join(
        part
        for part in (
            _head(report, title),
            _verdict(report),
            _tiles(report),
            page_tables.promises(report),
            page_tables.times(report),
            card(rates.against_rate(points), numbers, _RINGS),
            pair(_distributions(report, numbers)),
            _heat(report, numbers),
            _timelines(report, numbers),
            _scenarios(report, numbers),
            page_tables.errors(report),
            _server(report, numbers),
            pair([_facts(report), _sender(report)], "halves"),
            page_tables.requests(report),
            _definitions(),
            _foot(report),
        )
        if part
    )
    return page(title, body)


# The head of the page.


def _head(report: LoadReport, title: str) -> str:
    rows = dict(words.plan_rows(report))
    said = "; ".join(
        [
            f"model {rows['model']}",
            rows["kind"],
            rows["arrivals"],
            rows["workload"],
            f"{words.seconds(report.figures.seconds)} measured",
        ]
    )
    return (
        f'<header><div class="head"><h1>{text_of(title)}</h1>'
        f'<p class="quiet"><span class="brand">headrace</span> · {text_of(report.started)}</p></div>'
        f'<p class="quiet">{text_of(said, 600)}</p></header>'
    )


def _verdict(report: LoadReport) -> str:
    trust = report.trust
    lines = [
        f'<p><span class="word">{trust.verdict}</span>{text_of(words.verdict_words(trust))}.</p>'
    ]
    if trust.doubts:
        lines.append(
            bullets(
                f"<b>{text_of(words.doubt_head(d))}</b>: {text_of(d.text, 600)}"
                for d in trust.doubts
            )
        )
    if ended := words.ended_words(report):
        lines.append(f"<p><b>{text_of(ended)}</b></p>")
    if report.closed_loop:
        lines.append(f'<p class="quiet">{text_of(words.CLOSED_LOOP, 600)}</p>')
    if report.notes:
        lines.append(bullets(f"Note: {text_of(note, 600)}" for note in report.notes))
    return (
        f'<section class="card verdict {trust.verdict.lower()}" aria-label="Verdict">'
        + "".join(lines)
        + "</section>"
    )


def _tiles(report: LoadReport) -> str:
    f = report.figures
    tiles = [
        (
            "Requests",
            words.number(f.requests_per_s),
            "/s",
            f"{words.count(f.counts.ok)} ok of {words.count(f.counts.measured)}",
        ),
    ]
    if f.output_tokens_per_s is not None:
        beside = (
            "" if f.input_tokens_per_s is None else f"{words.number(f.input_tokens_per_s)}/s in"
        )
        tiles.append(("Tokens out", words.number(f.output_tokens_per_s), "/s", beside))
    for name, d in (("TTFT", f.ttft), ("TPOT", f.tpot), ("Latency", f.latency)):
        if d is not None and d.count:
            tiles.append(
                (f"{name} p50", *_split(d, "p50"), f"p99 {page_tables.percentile(d, 'p99')}")
            )
    if report.promises:
        kept = sum(r.kept is True for r in report.promises)
        tiles.append(
            (
                "Goodput",
                words.number(f.goodput_per_s),
                "/s",
                f"{kept} of {words.several(len(report.promises), 'promise')} kept",
            )
        )
    tiles.append(
        ("Errors", words.share(f.error_share), "", f"{words.count(f.counts.failed)} failed")
    )
    return (
        '<section class="tiles" aria-label="Figures">'
        + "".join(
            f'<article class="tile"><h3>{text_of(name)}</h3><p class="figure">{text_of(value)}'
            f'<small>{text_of(unit)}</small></p><p class="quiet">{text_of(beside)}</p></article>'
            for name, value, unit, beside in tiles
        )
        + "</section>"
    )


def _split(d: Distribution, name: str) -> tuple[str, str]:
    """The figure and its unit apart."""
    value = d.percentiles.get(name)
    if value is None:
        return words.missing(name, d), ""
    figure, _, unit = words.time_ms(value).partition(" ")
    return figure, unit


# Charts.

_RINGS = "A hollow ring is a rate at which a promise was broken."


def _distributions(report: LoadReport, numbers: count[int]) -> list[str]:
    f, r = report.figures, report.requests
    return [
        card(distributions.distribution(name, d, exact), numbers, _BARS)
        for name, d, exact in (
            ("Time to first token", f.ttft, () if r is None else r.ttft_ms),
            ("Latency", f.latency, () if r is None else r.latency_ms),
            ("Time between pieces (ITL)", f.itl, ()),
            ("Time per output token (TPOT)", f.tpot, () if r is None else r.tpot_ms),
        )
    ]


_BARS = "Bars: how many. Line: the share that took at most so long."


def _heat(report: LoadReport, numbers: count[int]) -> str:
    chart = distributions.heat(report)
    if chart is None:
        return ""
    shades = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><rect class="f-heat-{n}" width="26" height="10"/></svg>{said}</li>'
        for n, said in enumerate(distributions.heat_legend(report))
        if said
    )
    return (
        '<section class="card"><figure><figcaption><h2>Latency over time</h2>'
        f'<ul class="legend"><li>requests in a cell:</li>{shades}</ul></figcaption>'
        f"{chart.svg(numbers)}</figure></section>"
    )


def _timelines(report: LoadReport, numbers: count[int]) -> str:
    drawn = (
        timelines.percentiles(report),
        timelines.rates(report),
        timelines.in_flight(report),
        timelines.tokens(report),
        timelines.errors(report),
    )
    cards = [card(each, numbers) for each in drawn if each is not None]
    return (cards[0] if cards else "") + "\n" + pair(cards[1:])


def _scenarios(report: LoadReport, numbers: count[int]) -> str:
    chart = rates.scenarios(report)
    if len(report.scenarios) < 2:
        return ""
    body = [
        page_tables.row(
            text_of(name, 60),
            [
                words.count(f.counts.measured),
                words.count(f.counts.failed),
                words.number(f.requests_per_s),
                words.number(f.output_tokens_per_s),
                *(
                    words.NOTHING if d is None or not d.count else page_tables.percentile(d, p)
                    for d in (f.ttft, f.tpot, f.latency)
                    for p in ("p50", "p99")
                ),
            ],
        )
        for name, f in report.scenarios.items()
    ]
    heads = ["scenario", "requests", "failed", "requests/s", "tokens/s"]
    heads += [f"{metric} {p}" for metric in ("TTFT", "TPOT", "latency") for p in ("p50", "p99")]
    under = "A dot is p50; the rings after it are p95 and p99."
    picture = "" if chart is None else figure(Drawn(chart), numbers, "h3", under)
    return (
        '<section class="card"><h2>Scenarios</h2><div class="scroll">'
        f"{page_tables.table(heads, body)}</div>{picture}</section>"
    )


def _server(report: LoadReport, numbers: count[int]) -> str:
    drawn = timelines.server(report)
    if not drawn:
        return ""
    left_out = len(report.server) - len(drawn)
    under = "On the run's own time line."
    if left_out:
        under += f" {words.several(left_out, 'more metric')} in report.json."
    cards = "".join(f"<div>{figure(each, numbers, 'h3')}</div>" for each in drawn)
    return (
        '<section class="card"><h2>What the server told of itself</h2>'
        f'<p class="quiet small">{under}</p><div class="pair">{cards}</div></section>'
    )


# What was run, and what the words mean.


def _facts(report: LoadReport) -> str:
    return terms("What was run", words.plan_rows(report))


def _sender(report: LoadReport) -> str:
    counts = words.counts_words(report.figures.counts)
    pairs = [("requests", counts), *words.sender_rows(report.trust)]
    d = report.connect
    if d is not None and d.count:
        pairs.append(("connections", words.connect_words(d)))
    return terms("The sender", pairs)


def _definitions() -> str:
    return terms("How to read this", _DEFINITIONS, "definitions")


def _foot(report: LoadReport) -> str:
    version = f" {report.version}" if report.version else ""
    return (
        f'<footer class="quiet small">Made by headrace{text_of(version)} from run '
        f"{text_of(report.run_id)}, format {text_of(report.format)}.</footer>"
    )
