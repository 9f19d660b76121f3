"""Drawing a chart as SVG text: scales, axes, and marks in the colours that the page's style names.

A chart is readable without colour and without a script: each has a title and a description, lines
differ in their dashes as well, and what a pointer shows stands in a ``title`` of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import count
from typing import TypeAlias

from attrs import field, frozen

from headrace.bench.report.words import safe

Tell: TypeAlias = Callable[[float], str]
"""How a value is written on its axis."""

WIDE, HALF = 1200, 590
"""The widths of a chart that has a row of the page to itself, and of one that shares it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 10, 40
_ROW = 14
# An approximate width of a letter in the axes' size.
_LETTER = 6.3


def text_of(words: str, most: int = 300) -> str:
    """``words`` as text of HTML or SVG, whoever wrote them."""
    return escape(safe(words, most), quote=True)


def place(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


@frozen
class Scale:
    """From values to coordinates. A logarithmic one has a ``low`` above zero."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The coordinate of ``value``, which is brought into the scale's range first."""
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.begin + (self.end - self.begin) * part

    def ticks(self, most: int) -> list[float]:
        """Round values on it, at most about ``most``."""
        return (
            _log_ticks(self.low, self.high, most) if self.log else _ticks(self.low, self.high, most)
        )


def linear(high: float, begin: float, end: float, low: float = 0.0) -> Scale:
    """A scale from ``low`` to somewhat more than ``high``."""
    return Scale(low, high if high > low else low + 1.0, begin, end)


def logarithmic(low: float, high: float, begin: float, end: float) -> Scale:
    """A logarithmic scale that has room for ``low`` (above zero) to ``high``."""
    low = max(low, 1e-6)
    if high < low * 1.5:
        low, high = low / 1.5, max(high, low) * 1.5
    return Scale(low, high, begin, end, log=True)


def _ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(found) <= most:
            break
    return found


@frozen
class Chart:
    """A chart's frame: where its marks go, and what has been drawn so far."""

    title: str
    description: str
    height: int = 250
    left: int = _LEFT
    width: int = HALF
    right: int = _RIGHT
    marks: int = 0
    """How many rows of words above the room for marks ``mark_x`` may use."""
    parts: list[str] = field(factory=list)

    @property
    def x(self) -> tuple[float, float]:
        """Where the room for marks begins and ends."""
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[float, float]:
        """Where the room for marks begins, below, and ends, above."""
        return self.height - _BOTTOM, _TOP + _ROW * self.marks

    def axis_x(self, scale: Scale, tell: Tell, name: str) -> None:
        """Ticks and their words below; the axis' own name at its end."""
        bottom, top = self.y
        last = -math.inf
        for value in scale.ticks(self.width // 75):
            x, said = scale.at(value), tell(value)
            self.parts.append(
                f'<path class="grid-line" d="M{place(x)} {place(bottom)}V{place(top)}"/>'
            )
            half = len(said) * _LETTER / 2
            if x - half > last and x + half < self.width:
                self._words(x, bottom + 15, said, "middle")
                last = x + half + 8
        self._words((self.x[0] + self.x[1]) / 2, self.height - 6, name, "middle", "name")

    def axis_y(self, scale: Scale, tell: Tell, name: str) -> None:
        """Ticks and their words to the left; the axis' own name beside them."""
        left, right = self.x
        for value in scale.ticks(6):
            y = scale.at(value)
            self.parts.append(
                f'<path class="grid-line" d="M{place(left)} {place(y)}H{place(right)}"/>'
            )
            self._words(left - 6, y + 4, tell(value), "end")
        middle = (self.y[0] + self.y[1]) / 2
        self.parts.append(
            f'<text class="name" text-anchor="middle" transform="translate(11 {place(middle)}) '
            f'rotate(-90)">{text_of(name)}</text>'
        )

    def axis_right(self, scale: Scale, tell: Tell, ticks: Sequence[float]) -> None:
        """Words beyond the right edge, for a second scale."""
        for value in ticks:
            self._words(self.x[1] + 5, scale.at(value) + 4, tell(value), "start", "second")

    def line(
        self, points: Iterable[tuple[float, float] | None], name: str, number: int = 0
    ) -> None:
        """A line through ``points``; None breaks it. ``name`` is its colour, ``number`` its dashes."""
        path, pen = [], "M"
        alone: list[tuple[float, float]] = []
        before = False
        for point in points:
            if point is None:
                pen, before = "M", False
                continue
            path.append(f"{pen}{place(point[0])} {place(point[1])}")
            if pen == "M":
                alone.append(point)
            elif before:
                alone.pop()
            before = pen == "M"
            pen = "L"
        if path:
            self.parts.append(f'<path class="line s-{name} dash-{number}" d="{"".join(path)}"/>')
        # A point without a neighbour would not be seen.
        self.parts.extend(
            f'<circle class="f-{name}" cx="{place(x)}" cy="{place(y)}" r="2"/>' for x, y in alone
        )

    def bars(self, boxes: Iterable[tuple[float, float, float, float]], name: str) -> None:
        """Rectangles (x, y, width, height), all in one path."""
        path = "".join(
            f"M{place(x)} {place(y)}h{place(w)}v{place(h)}h{place(-w)}z"
            for x, y, w, h in boxes
            if w > 0 and h > 0
        )
        if path:
            self.parts.append(f'<path class="f-{name}" d="{path}"/>')

    def mark_x(self, x: float, said: str, row: int = 0, name: str = "ink") -> None:
        """A line from the bottom to a word in row ``row`` above the room for marks."""
        y = _TOP + _ROW * row
        self.parts.append(
            f'<path class="mark s-{name}" d="M{place(x)} {place(self.y[0])}V{place(y - 4)}"/>'
        )
        beyond = x + len(said) * _LETTER + 6 > self.width
        anchor = "end" if beyond else "start"
        self._words(x - 4 if beyond else x + 4, y + 6, said, anchor, "said")

    def shade(self, begin: float, end: float, said: str) -> None:
        """A stretch of the time line that is left out of the figures."""
        bottom, top = self.y
        if end - begin < 1:
            return
        self.parts.append(
            f'<rect class="shade" x="{place(begin)}" y="{place(top)}" width="{place(end - begin)}" '
            f'height="{place(bottom - top)}"><title>{text_of(said)}</title></rect>'
        )

    def tips(self, spots: Iterable[tuple[float, float, str]]) -> None:
        """What a pointer shows in each stretch (x, width, words) of the chart."""
        bottom, top = self.y
        for x, width, said in spots:
            self.parts.append(
                f'<rect class="tip-spot" x="{place(x)}" y="{place(top)}" width="{place(max(width, 0.5))}" '
                f'height="{place(bottom - top)}"><title>{text_of(said)}</title></rect>'
            )

    def dot(self, x: float, y: float, name: str, said: str, *, hollow: bool = False) -> None:
        """A point that says what it is."""
        kind = f"hollow s-{name}" if hollow else f"f-{name}"
        self.parts.append(
            f'<circle class="{kind} tip-spot-own" cx="{place(x)}" cy="{place(y)}" r="4.5">'
            f"<title>{text_of(said)}</title></circle>"
        )

    def words(self, x: float, y: float, said: str, anchor: str = "start") -> None:
        """Words anywhere."""
        self._words(x, y, said, anchor, "said")

    def svg(self, numbers: count[int]) -> str:
        """The whole chart; ``numbers`` gives it a name of its own on its page."""
        n = next(numbers)
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="t{n} d{n}">'
            f'<title id="t{n}">{text_of(self.title)}</title>'
            f'<desc id="d{n}">{text_of(self.description, 1000)}</desc>'
            + "".join(self.parts)
            + "</svg>"
        )

    def _words(self, x: float, y: float, said: str, anchor: str, kind: str = "tick") -> None:
        self.parts.append(
            f'<text class="{kind}" x="{place(x)}" y="{place(y)}" text-anchor="{anchor}">{text_of(said)}</text>'
        )
