"""The frame of a report that is one HTML file, and the parts that every such report has.

It needs nothing else: no network, and no script to be read. Text that others have written passes
through ``text_of``. The one script of the file answers the pointer and sorts tables; a policy in
the file forbids any other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import count

from headrace.bench.report.svg import Chart, text_of
from headrace.bench.report.timelines import Drawn


def page(title: str, body: str, more_style: str = "") -> str:
    """The whole file; ``more_style`` is a style of that report's own."""
    script, style = _file("report.js"), _file("report.css") + more_style
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text_of(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to content</a>\n'
        f'<main id="main">\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def bullets(items: Iterable[str]) -> str:
    """Points, each of them HTML already."""
    return '<ul class="notes">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def figure(drawn: Drawn, numbers: count[int], heading: str = "h2", under: str = "") -> str:
    """A chart under its title, with its legend where it has more than one line."""
    legend = ""
    if len(drawn.legend) > 1:
        legend = (
            '<ul class="legend">'
            + "".join(
                f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line s-{colour} '
                f'dash-{dash}" d="M1 5H25"/></svg>{text_of(name, 60)}</li>'
                for name, colour, dash in drawn.legend
            )
            + "</ul>"
        )
    below = f'<p class="quiet small">{text_of(under)}</p>' if under else ""
    return (
        f"<figure><figcaption><{heading}>{text_of(drawn.chart.title)}</{heading}>{legend}</figcaption>"
        f"{below}{drawn.chart.svg(numbers)}</figure>"
    )


def card(chart: Chart | Drawn | None, numbers: count[int], under: str = "") -> str:
    """A chart on a card of its own; nothing where there is none."""
    if chart is None:
        return ""
    drawn = Drawn(chart) if isinstance(chart, Chart) else chart
    return f'<section class="card">{figure(drawn, numbers, under=under)}</section>'


def pair(cards: Sequence[str], kind: str = "") -> str:
    """Cards side by side."""
    there = [card for card in cards if card]
    return f'<div class="pair {kind}">{"".join(there)}</div>' if there else ""


def terms(title: str, pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Words and what belongs to each."""
    inner = "".join(f"<dt>{text_of(a)}</dt><dd>{text_of(b, 600)}</dd>" for a, b in pairs)
    return f'<section class="card"><h2>{title}</h2><dl class="{kind}">{inner}</dl></section>'


@cache
def _file(name: str) -> str:
    place = files("headrace.bench.report") / "page_files" / name
    return place.read_text(encoding="utf-8")


def _digest(text: str) -> str:
    made = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(made).decode()}"
