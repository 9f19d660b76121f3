"""What people see of a report: the terminal, the page, Markdown."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from attrs import evolve
from rich.console import Console

from bench.report.runs import HOSTILE, all_failed, empty, moments, run
from headrace.bench.report.console import show
from headrace.bench.report.html import html
from headrace.bench.report.markdown import markdown
from headrace.bench.report.page_tables import MOST_ROWS
from headrace.bench.report.rates import RatePoint, points_of
from headrace.contracts.load_find import Found, Trial
from headrace.contracts.load_report import Doubt, ServerSeries

KNEE = tuple(
    RatePoint(rate=r, p50=100.0 + r, p99=200.0 + r**2, kept=r < 60) for r in (10, 20, 40, 60, 80)
)
CASES = {
    "open": run(400),
    "closed": run(320, closed=True),
    "one": run(1, failing=0),
    "tiny": run(7),
    "empty": empty(),
    "failed": all_failed(),
    "hostile": run(60, failing=0.2, text=HOSTILE),
    "without requests": run(400, rows_too=False),
    "large": run(5000, rate=5),
}
cases = pytest.mark.parametrize("report", CASES.values(), ids=CASES.keys())


# The terminal.


def shown(report, width, encoding="utf-8", **options):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(report, Console(file=file, width=width, markup=False, highlight=False, **options))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@cases
@pytest.mark.parametrize("width", [80, 160])
def test_no_line_is_wider_than_the_terminal(report, width):
    text = shown(report, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert text.split()[0] == report.trust.verdict
    assert "\x1b" not in text


@cases
def test_a_terminal_of_ascii_alone_is_served(report):
    assert shown(report, 80, "ascii").isascii()


def test_colours_are_for_terminals():
    assert "\x1b[" in shown(run(50), 80, force_terminal=True, color_system="standard")


def test_nothing_of_the_others_words_steers_the_terminal():
    coloured = shown(CASES["hostile"], 80, force_terminal=True, color_system="standard")
    assert "\\x1b[31m" in coloured
    assert "\x1b[31m|" not in coloured
    assert "\u202e" not in coloured


def test_percentiles_that_the_sample_cannot_carry_say_what_it_takes():
    text = shown(run(100, failing=0), 80)
    assert "needs 299" in text
    assert "p99 299" in text
    assert "needs" not in shown(run(1200), 80)


def test_a_closed_loop_says_so_and_what_it_hides():
    closed, opened = shown(run(50, closed=True), 80), shown(run(50), 80)
    assert "A closed loop" in closed
    assert "in no" in closed
    assert "A closed loop" not in opened
    assert "service time" in opened


def test_the_beginning_tells_the_verdict_and_its_reason():
    first, second, *_ = shown(CASES["hostile"], 160).splitlines()
    assert first.startswith("SUSPECT")
    assert "cpu" in second


def test_a_promise_that_failures_broke_says_so():
    report = run(400, failing=0.2)
    broken = evolve(report.promises[0], value=None, kept=False)
    assert "ttft:p99<500ms: failed requests" in shown(evolve(report, promises=(broken,)), 80)


def test_what_does_not_speak_against_the_figures_is_no_doubt_by_name():
    report = run(50)
    hint = Doubt(name="few samples", verdict="VALID", text="p99.9 needs 2995")
    trust = evolve(report.trust, doubts=(hint,))
    assert "VALID, few samples" not in shown(evolve(report, trust=trust), 80)
    assert "few samples: p99.9 needs 2995" in shown(evolve(report, trust=trust), 80)


# The page.


class Page(HTMLParser):
    VOID = ("meta", "br", "link")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)


@cases
def test_the_page_is_whole_and_needs_nothing_else(report):
    text = html(report, KNEE)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 1
    assert not {"img", "link", "iframe", "object", "base"} & set(page.tags)
    assert not [v for k, v in page.attributes if k in {"src", "href", "srcset"} and v != "#main"]
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))


@cases
def test_every_picture_is_well_formed_and_has_words(report):
    pictures = re.findall(r"<svg viewBox.*?</svg>", html(report, KNEE), re.DOTALL)
    assert pictures
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        if root.get("aria-hidden") != "true":
            assert root.get("role") == "img"
            assert root.find("title").text
            assert root.find("desc").text
        for element in root.iter():
            for name, value in element.attrib.items():
                if name in {"d", "x", "y", "cx", "cy", "width", "height", "viewBox", "transform"}:
                    assert not re.search(r"nan|inf|e[+-]?\d", value), (name, value)
                    told = [float(v) for v in re.findall(r"-?\d+\.?\d*", value)]
                    assert all(math.isfinite(v) and -2000 <= v <= 2000 for v in told), value


def test_hostile_words_stay_words():
    text = html(CASES["hostile"], KNEE)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_no_secret_is_on_the_page_or_in_the_other_forms():
    report = run(60)
    assert "secret" not in html(report) + markdown(report) + shown(report, 160)


def test_the_page_of_a_long_run_stays_small():
    report = run(20_000, rate=4)
    assert len(report.series) > 4000
    many = tuple(
        ServerSeries(name=f"metric_{n}", at=tuple(map(float, range(5000))), values=(1.0,) * 5000)
        for n in range(40)
    )
    text = html(evolve(report, server=many))
    assert len(text) < 1_500_000
    assert "28 more metrics in report.json" in text
    assert "too many for a table here" in text


def test_a_table_of_requests_is_there_while_they_are_few():
    assert html(run(300)).count("<tr><td") == 300
    assert html(run(MOST_ROWS)).count("<tr><td") == 0


def test_a_short_trouble_is_seen_in_a_long_run():
    series = list(moments([], 1)) or list(run(20_000, rate=4).series)
    worst = len(series) // 2
    series[worst] = evolve(series[worst], latency_p95=987_654.0)
    assert "latency p95 988 s" in html(evolve(run(3), series=tuple(series)))


def test_the_knee_names_the_highest_rate_that_was_held():
    text = html(run(30), KNEE)
    assert "The highest rate that kept every promise is 40.0/s." in text
    assert "Throughput against latency" not in html(run(30))


def test_a_search_is_drawn_without_the_rates_that_could_not_be_sent():
    trials = [
        Trial(
            rate=rate,
            outcome=outcome,
            text="",
            requests=9,
            figures=run(40).figures,
            trust=run(1).trust,
        )
        for rate, outcome in (
            (5.0, "kept"),
            (10.0, "broken"),
            (12.0, "undecided"),
            (90.0, "generator"),
        )
    ]
    found = Found(
        plan=run(1).plan,
        started="",
        rate=5.0,
        broken_at=10.0,
        goodput_per_s=5.0,
        reason="",
        trials=tuple(trials),
    )
    points = points_of(found)
    assert [(p.rate, p.kept) for p in points] == [(5.0, True), (10.0, False), (12.0, None)]
    assert "The highest rate that kept every promise is 5.00/s." in html(run(30), points)


# Markdown.


@cases
def test_markdown_tables_have_as_many_cells_in_each_row(report):
    text = markdown(report, run(350, seed=9))
    block = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.split(r"(?<!\\)\|", line)))
            continue
        assert len(set(block)) <= 1, line
        block = []
    assert f"**{report.trust.verdict}**" in text


def test_markdown_holds_hostile_words_as_code():
    text = markdown(CASES["hostile"])
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<script>" not in outside
    assert "alert" not in outside


def test_a_baseline_is_told_with_its_ratio_and_only_clear_differences():
    report = run(1200)
    same = markdown(report, report)
    assert "no difference seen" in same
    assert "1.000" in same
    assert "| slower |" not in same
    figures = report.figures
    fast = evolve(
        figures.ttft,
        percentiles={k: v and v / 2 for k, v in figures.ttft.percentiles.items()},
        intervals={k: v and (v[0] / 2, v[1] / 2) for k, v in figures.ttft.intervals.items()},
    )
    slower = markdown(report, evolve(report, figures=evolve(figures, ttft=fast)))
    assert re.search(r"TTFT p50 \|[^|]*\|[^|]*\| 2\.000 \| slower \|", slower)


def test_a_closed_loop_beside_an_open_one_is_warned_of():
    assert "One of the two is a closed loop" in markdown(run(50), run(50, closed=True))
