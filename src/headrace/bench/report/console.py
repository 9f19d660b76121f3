"""The report on a terminal: one screen, the verdict first. Plain text where it is piped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from headrace.bench.report import words
from headrace.contracts.load_report import Distribution, LoadReport
from headrace.numbers.histogram import LogHistogram

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"VALID": "bold green", "SUSPECT": "bold yellow", "INVALID": "bold red"}
_KEPT = {True: "green", False: "bold red", None: "yellow"}
_BLOCKS = " ▁▂▃▄▅▆▇█"
# For terminals and logs that know no more than ASCII.
_ASCII = str.maketrans(
    dict(zip(_BLOCKS, " .:-=+*#@", strict=True))
    | {"–": "-", "…": "~", "±": "+/-", "≤": "<=", "×": "x", "✓": "+", "✗": "x"}
)
_LABEL = 10
_INLINE_FROM = 120
"""From so many columns on an interval stands beside its percentile, else below it."""


def show(report: LoadReport, console: Console) -> None:
    """Print ``report`` on ``console``: as wide as that is, and in colour where it has any."""
    page = _Page(console)
    _verdict(report, page)
    page.blank()
    _what_was_run(report, page)
    page.blank()
    _rates(report, page)
    page.blank()
    _times(report, page)
    _shapes(report, page)
    _promises(report, page)
    _errors(report, page)
    _scenarios(report, page)
    for note in report.notes:
        page.labelled("note", words.safe(note))


class _Page:
    """Lines of pieces with a style each, no wider than the console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = not console.encoding.lower().startswith("utf")
        self.width = max(40, console.width)

    def line(self, *pieces: str | tuple[str, str]) -> None:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis" if not self._ascii else "crop")
        for piece in pieces:
            said, style = (piece, "") if isinstance(piece, str) else piece
            text.append(said.translate(_ASCII) if self._ascii else said, style)
        text.rstrip()
        self._console.print(text, soft_wrap=False)

    def blank(self) -> None:
        self.line("")

    def labelled(self, label: str, said: str, style: str = "") -> None:
        """``said`` beside its label, on as many lines as it takes."""
        for n, part in enumerate(wrap(said, self.width - _LABEL) or [""]):
            self.line(((label if n == 0 else "").ljust(_LABEL), "dim"), (part, style))


def _verdict(report: LoadReport, page: _Page) -> None:
    trust = report.trust
    style = _STYLES[trust.verdict]
    page.line((f"{trust.verdict}", style), f"  {words.verdict_words(trust)}")
    for doubt in trust.doubts:
        page.labelled("", f"{words.doubt_head(doubt)}: {words.safe(doubt.text)}")
    page.labelled("sender", words.sender_words(trust))
    if ended := words.ended_words(report):
        page.labelled("ended", ended, "yellow")
    if report.closed_loop and all(doubt.name != "closed loop" for doubt in trust.doubts):
        page.labelled("closed", words.CLOSED_LOOP)


def _what_was_run(report: LoadReport, page: _Page) -> None:
    rows = dict(words.plan_rows(report))
    page.labelled("target", f"{rows['target']}, model {rows['model']}, {rows['kind']}")
    page.labelled("load", f"{rows['arrivals']}; {rows['workload']}; until {rows['until']}")
    rest = [
        f"{name} {rows[name]}"
        for name in ("left out", "at most", "workers", "seed")
        if name in rows
    ]
    page.labelled("", "; ".join(rest))


def _rates(report: LoadReport, page: _Page) -> None:
    figures = report.figures
    rates = [f"{name} {value}" for name, value in words.rate_rows(report)]
    page.labelled("requests", words.counts_words(figures.counts))
    page.labelled("rates", "   ".join([*rates, f"over {words.seconds(figures.seconds)}"]), "bold")
    if figures.output_tokens is not None and figures.output_tokens.mean is not None:
        tokens = f"{words.number(figures.output_tokens.mean)} out"
        if figures.input_tokens is not None and figures.input_tokens.mean is not None:
            tokens = f"{words.number(figures.input_tokens.mean)} in, {tokens}"
        page.labelled("tokens", f"{tokens} a request on average")
    if report.connect is not None and report.connect.count:
        page.labelled("connect", words.connect_words(report.connect))


def _times(report: LoadReport, page: _Page) -> None:
    rows = words.time_rows(report)
    if not rows:
        page.line(("No request was answered, so there are no times.", "yellow"))
        return
    _table(rows, page)
    if lacking := words.lacking(rows):
        page.labelled("", lacking, "dim")


def _table(rows: Sequence[tuple[str, Distribution]], page: _Page) -> None:
    names = [f"{_short(name)}, {words.scale(d)[1]}" for name, d in rows]
    first = max(map(len, names)) + 1
    inline = page.width >= _INLINE_FROM
    last = 12 if inline else 8
    cell = 24 if inline else 12
    # Where it is narrow, some percentiles are left to the files.
    shown: tuple[str, ...] = words.SHOWN
    while len(shown) > 1 and first + cell * len(shown) + last > page.width:
        shown = shown[:1] + shown[2:]
    heads = "".join(p.rjust(cell) for p in shown)
    page.line((" " * first + heads + "max".rjust(last), "dim"))
    for name, (_, d) in zip(names, rows, strict=True):
        by, _unit = words.scale(d)
        values = [words.percentile_cell(d, p) for p in shown]
        bounds = [words.interval_cell(d, p) for p in shown]
        most = words.number(None if d.maximum is None else d.maximum / by)
        pieces: list[str | tuple[str, str]] = [name.ljust(first)]
        for value, bound in zip(values, bounds, strict=True):
            style = "dim" if value.startswith("needs") else "bold"
            beside = f" {bound}" if bound and inline else ""
            pieces += [(value.rjust(cell - len(beside)), style), (beside, "dim")]
        page.line(*pieces, most.rjust(last))
        if any(bounds) and not inline:
            below = "".join(b.rjust(cell) for b in bounds)
            page.line(("  95% interval".ljust(first) + below, "dim"))


def _short(name: str) -> str:
    return name.replace(" from intended", " (intended)").replace(" from sending", " (sent)")


def _shapes(report: LoadReport, page: _Page) -> None:
    figures = report.figures
    width = min(60, page.width - 36)
    shapes = [
        (name, strip)
        for name, d in (("TTFT", figures.ttft), ("ITL", figures.itl), ("latency", figures.latency))
        if d is not None and (strip := _shape(d, width)) is not None
    ]
    over_time = _over_time(report, width)
    if not shapes and over_time is None:
        return
    page.blank()
    for name, (low, blocks, high) in shapes:
        page.line((name.ljust(_LABEL), "dim"), low.rjust(9) + " ", (blocks, "cyan"), f" {high}")
    if over_time is not None:
        low, blocks, high = over_time
        page.line(
            ("over time".ljust(_LABEL), "dim"), low.rjust(9) + " ", (blocks, "cyan"), f" {high}"
        )


def _shape(d: Distribution, width: int) -> tuple[str, str, str] | None:
    """The distribution as one line of blocks, on a logarithmic scale from its least to its most."""
    if not d.histogram or not d.minimum or not d.maximum or d.maximum <= d.minimum:
        return None
    low, high = math.log(d.minimum), math.log(d.maximum)
    bins = [0] * width
    for value, n in LogHistogram.from_plain(d.histogram).values():
        at = (math.log(max(value, d.minimum)) - low) / (high - low)
        bins[min(width - 1, max(0, int(at * width)))] += n
    return words.time_ms(d.minimum), _blocks(bins), words.time_ms(d.maximum)


def _over_time(report: LoadReport, width: int) -> tuple[str, str, str] | None:
    """The highest p95 of each stretch of the run, as one line of blocks."""
    told = [(m.at, m.latency_p95) for m in report.series if m.latency_p95 is not None]
    if len(told) < 2:
        return None
    end = max(m.at + m.seconds for m in report.series)
    bins = [0.0] * min(width, len(report.series))
    for at, value in told:
        place = min(len(bins) - 1, int(at / end * len(bins))) if end > 0 else 0
        bins[place] = max(bins[place], value)
    most = max(value for _, value in told)
    return "p95", _blocks(bins), f"≤ {words.time_ms(most)}"


def _blocks(bins: Sequence[float]) -> str:
    most = max(bins) or 1
    top = len(_BLOCKS) - 1
    # What is there at all is seen.
    return "".join(_BLOCKS[math.ceil(n / most * top) if n > 0 else 0] for n in bins)


def _promises(report: LoadReport, page: _Page) -> None:
    if not report.promises:
        return
    page.blank()
    for n, result in enumerate(report.promises):
        mark = {True: "✓", False: "✗", None: "?"}[result.kept]
        page.line(
            (("promises" if n == 0 else "").ljust(_LABEL), "dim"),
            (f"{mark} {words.promise_words(result)}", _KEPT[result.kept]),
            f"  {words.safe(result.promise.text)}: {words.promise_value(result)}"
            + (f" ({words.safe(result.text)})" if result.text else ""),
        )


def _errors(report: LoadReport, page: _Page) -> None:
    figures = report.figures
    if not report.errors:
        return
    page.blank()
    page.labelled("errors", f"{words.share(figures.error_share)} of the measured requests", "red")
    for error in report.errors:
        status = f" {error.status}" if error.status is not None else ""
        said = f"{words.count(error.count)} × {words.safe(error.kind, 60)}{status}"
        page.labelled("", said + (f": {words.safe(error.example, 200)}" if error.example else ""))


def _scenarios(report: LoadReport, page: _Page) -> None:
    if len(report.scenarios) < 2:
        return
    page.blank()
    heads = {"requests": 9, "failed": 8, "TTFT p50": 10, "p99": 10, "latency p50": 13, "p99 ": 11}
    if page.width < sum(heads.values()) + _LABEL:
        heads = {name: n for name, n in heads.items() if not name.startswith("p99")}
    most = page.width - sum(heads.values()) - 1
    names = {name: words.safe(name, most) for name in report.scenarios}
    first = max(8, *map(len, names.values())) + 1
    page.line(("scenario".ljust(first) + _cells(heads, heads.values()), "dim"))
    for name, figures in report.scenarios.items():
        values = [words.count(figures.counts.measured), words.count(figures.counts.failed)]
        for d in (figures.ttft, figures.latency):
            values += [_cell(d, "p50"), *([_cell(d, "p99")] if "p99" in heads else [])]
        page.line(names[name].ljust(first) + _cells(values, heads.values()))


def _cells(values: Iterable[str], widths: Iterable[int]) -> str:
    return "".join(v.strip().rjust(n) for v, n in zip(values, widths, strict=True))


def _cell(d: Distribution | None, name: str) -> str:
    if d is None or not d.count:
        return words.NOTHING
    value = d.percentiles.get(name)
    return words.missing(name, d) if value is None else words.time_ms(value)
