"""``make page-check``: the page of a profile in a real browser, on the screen and on paper.

``HEADRACE_PROFILE`` names the folder of a profile to look at in place of one made up here.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest

from bench.profile.reports import a_bare_report, a_report
from headrace.bench.profile.report.files import write_all

WIDTHS = (360, 768, 1440)
SCALES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "µ": 1e-6, "m": 1e-3}
OVERFLOW = """
[...document.querySelectorAll('main *')].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1
    && !e.closest('.scroll') && !e.closest('svg');
}).map((e) => e.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a profile whose every part is there."""
    if named := os.environ.get("HEADRACE_PROFILE"):
        return Path(named).resolve()
    folder = tmp_path_factory.mktemp("report")
    write_all(a_report(), folder)
    return folder


@pytest.fixture
def page(browser, written):
    browser.look(1440, 900, dark=False)
    browser.open((written / "report.html").as_uri())
    return browser


def at(plain, path):
    for step in re.findall(r"[^.\[\]]+", path):
        plain = plain[int(step)] if isinstance(plain, list) else plain[step]
    return plain


def read(text):
    """What a figure on the page says in the unit of the report (times are in ms), and how exactly."""
    found = re.fullmatch(r"(<?)(-?[\d,]*\.?\d+)(?: ?([kMGTPµm]?)([A-Za-z%×/].*)?)?", text.strip())
    assert found is not None, text
    less, digits, prefix, unit = found.groups()
    value = float(digits.replace(",", ""))
    last = 10.0 ** -len(digits.partition(".")[2])
    if unit == "%":
        scale = 1e-2
    elif unit == "s" and prefix in ("", "m"):
        scale = {"": 1e3, "m": 1.0}[prefix]
    else:
        scale = SCALES.get(prefix or "", 1.0)
    return value * scale, (last * 0.51 if not less else last) * scale


def test_every_figure_that_is_seen_is_the_one_in_the_json(page, written):
    plain = json.loads((written / "report.json").read_bytes())
    figures = page.value(
        "[...document.querySelectorAll('data[data-path]')]"
        ".map((e) => [e.dataset.path, e.value, e.textContent])"
    )
    assert len(figures) > 40
    for path, value, text in figures:
        expected = at(plain, path)
        assert float(value) == expected, path
        said, exact = read(text)
        assert said == pytest.approx(expected, abs=exact), (path, text, expected)


def test_no_figure_stands_outside_of_those_that_are_checked(page):
    """In tables and tiles every cell that begins with a digit holds a figure of the report."""
    loose = page.value(
        "[...document.querySelectorAll('td, .tile .figure')]"
        ".filter((e) => /^[<\\d]/.test(e.textContent.trim()) && !e.querySelector('data'))"
        ".map((e) => e.outerHTML)"
    )
    assert loose == []


def test_operators_sort_by_what_they_took(page):
    table = "document.querySelector('table.sorts')"
    heads = page.value(f"[...{table}.tHead.rows[0].cells].map((c) => c.textContent)")
    column = heads.index("of its stage")
    column_of = f"[...{table}.tBodies[0].rows].map((r) => Number(r.cells[{column}].dataset.v))"
    for turned in (1, -1):
        page.value(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').click()")
        found = page.value(column_of)
        assert found == sorted(found)[::turned]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width(page, pictures, width, dark):
    page.look(width, 900, dark=dark)
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    assert page.value(OVERFLOW) == []
    page.shoot(pictures / f"profile-{width}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_prints_dark_on_white_and_whole(page, pictures, dark):
    page.look(794, 1123, dark=dark)
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.ask("Emulation.setEmulatedMedia", media="print", features=features)
    try:
        ink = page.value("getComputedStyle(document.querySelector('.sentence')).color")
        assert max(map(int, re.findall(r"\d+", ink)[:3])) < 100, ink
        scheme = page.value("getComputedStyle(document.documentElement).colorScheme")
        assert scheme == "light", "else what is around the cards is black"
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        clipped = page.value(
            "[...document.querySelectorAll('.scroll, .said')]"
            ".filter((e) => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1)"
            ".map((e) => e.outerHTML.slice(0, 120))"
        )
        assert clipped == []
        page.shoot(pictures / f"profile-print-{'dark' if dark else 'light'}.png")
    finally:
        page.ask("Emulation.setEmulatedMedia", media="", features=features)
    told = page.ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
    made = base64.b64decode(told["data"])
    assert made.startswith(b"%PDF")
    (pictures / f"profile-{'dark' if dark else 'light'}.pdf").write_bytes(made)


def test_a_run_that_left_little_has_a_page_too(browser, pictures, tmp_path):
    write_all(a_bare_report(), tmp_path)
    browser.look(768, 900, dark=False)
    browser.open((tmp_path / "report.html").as_uri())
    assert "ended early" in browser.value("document.querySelector('.verdict').textContent")
    browser.shoot(pictures / "profile-bare.png")


def test_it_was_content_and_asked_nobody_else(browser):
    """Of all that was done above: no word in the console, no request elsewhere."""
    assert browser.complaints == []
    assert {a for a in browser.addresses if not a.startswith(("file:", "about:"))} == set()
