"""An outline as an SVG picture, in colours that a light and a dark page both bear.

A chain is made of paths behind and beside one another, so its picture is too: what is behind stands
below, what is beside stands beside, and no arrow crosses a box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from textwrap import wrap

from attrs import define, frozen

from headrace.chains.drawing.outline import INPUT, OUTPUT, Box, Outline
from headrace.chains.nodes import Branch, Group, Path

_CHARACTER, _LINE = 6.7, 17.0
"""Width and height of a character of the picture's font, in pixels."""
_PAD, _GAP, _BESIDE, _MARGIN = 11.0, 42.0, 30.0, 16.0
_LONGEST = 64
_STYLE = """
.box { fill: #f6f7f9; stroke: #8a94a3; stroke-width: 1.2 }
.step { fill: #e6effb; stroke: #4d7fc4 } .branch { fill: #fbf1dd; stroke: #b98a2f }
.join, .reduce { fill: #e7f4ea; stroke: #4f9463 }
text { font: 11px ui-monospace, 'DejaVu Sans Mono', Consolas, monospace; fill: #1d2530 }
.id { font-weight: 700 } .fact { fill: #55606e }
.arrow { fill: none; stroke: #7b8594; stroke-width: 1.4 } .head { fill: #7b8594 }
.label { fill: #8a6412; text-anchor: middle; paint-order: stroke; stroke: #fff; stroke-width: 3px }
@media (prefers-color-scheme: dark) {
.box { fill: #232a33 } .step { fill: #1d2f49 } .branch { fill: #40331a } .join, .reduce { fill: #1f3826 }
text { fill: #e6e9ee } .fact { fill: #a9b3c0 } .label { fill: #e3bd6c; stroke: #14181d }
}""".strip()


@frozen
class _Place:
    """Where a box is: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@define
class _Block:
    """A part of the picture, its boxes placed from its own corner on."""

    width: float
    height: float
    boxes: dict[str, _Place]

    def moved(self, x: float, y: float) -> dict[str, _Place]:
        return {
            name: _Place(at.x + x, at.y + y, at.width, at.height) for name, at in self.boxes.items()
        }


def svg_of(outline: Outline) -> str:
    """``outline`` as one SVG document."""
    ends = [_end("input", INPUT), _of_path(outline, outline.path), _end("output", OUTPUT)]
    block = _below([each for each in ends if each.boxes])
    width, height = block.width + 2 * _MARGIN, block.height + 2 * _MARGIN
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
                f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
                f"<title>{escape(outline.name)}</title>",
                f"<style>{_STYLE}</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
                'markerHeight="8" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
                *_drawn(outline, block.moved(_MARGIN, _MARGIN)),
                "</svg>",
            ]
        )
        + "\n"
    )


def _drawn(outline: Outline, places: Mapping[str, _Place]) -> Iterator[str]:
    for arrow in outline.arrows:
        start, end = places[arrow.start], places[arrow.end]
        x1, y1, x2, y2 = start.middle, start.y + start.height, end.middle, end.y - 1
        # Down beside what else stands there; across only above the next row, where nothing does.
        cross, bend = y2 - _GAP + 2, _GAP / 2 - 5
        yield (
            f'<path class="arrow" marker-end="url(#head)" d="M{x1:.1f} {y1:.1f}V{cross:.1f}'
            f"C{x1:.1f} {cross + bend:.1f} {x2:.1f} {cross + bend:.1f} {x2:.1f} {y2 - 9:.1f}"
            f'V{y2:.1f}"/>'
        )
        if arrow.label:
            yield (
                f'<text class="label" x="{x2:.1f}" y="{y2 - _LINE * 0.8:.1f}">'
                f"{escape(arrow.label)}</text>"
            )
    for name, at in places.items():
        yield from _box(name, outline.boxes.get(name), at)


def _box(name: str, box: Box | None, at: _Place) -> Iterator[str]:
    kind = "" if box is None else f" {box.kind}"
    round_ = at.height / 2 if box is None else 7
    yield (
        f'<rect class="box{kind}" x="{at.x:.1f}" y="{at.y:.1f}" width="{at.width:.1f}" '
        f'height="{at.height:.1f}" rx="{round_:.0f}"/>'
    )
    lines = _lines_of(box) if box is not None else [{INPUT: "input", OUTPUT: "output"}[name]]
    for number, line in enumerate(lines):
        look = "id" if number == 0 else "fact"
        yield (
            f'<text class="{look}" x="{at.x + _PAD:.1f}" '
            f'y="{at.y + _PAD + (number + 0.75) * _LINE - 2:.1f}" xml:space="preserve">'
            f"{escape(line)}</text>"
        )


def _lines_of(box: Box) -> list[str]:
    lines = [box.id, f"{box.kind}: {box.by}"]
    lines += [f"{name}: {fact}" for name, fact in box.facts.items()]
    return [each for line in lines for each in wrap(line, _LONGEST, subsequent_indent="   ")]


def _sized(name: str, lines: list[str]) -> _Block:
    width = max(map(len, lines)) * _CHARACTER + 2 * _PAD
    height = len(lines) * _LINE + 2 * _PAD - 4
    return _Block(width, height, {name: _Place(0, 0, width, height)})


def _end(said: str, name: str) -> _Block:
    return _sized(name, [said])


def _of_path(outline: Outline, path: Path) -> _Block:
    blocks: list[_Block] = []
    for place in path.places:
        if isinstance(place, Group):
            blocks.append(_beside([_of_path(outline, each) for each in place.paths]))
            continue
        blocks.append(_sized(place.id, _lines_of(outline.boxes[place.id])))
        if isinstance(place, Branch):
            ways = [_of_path(outline, Path.of(way)) for way in place.paths.values()]
            blocks.append(_beside(ways))
    return _below(blocks) if blocks else _Block(0, 0, {})


def _below(blocks: list[_Block]) -> _Block:
    width = max(each.width for each in blocks)
    boxes: dict[str, _Place] = {}
    y = 0.0
    for each in blocks:
        boxes |= each.moved((width - each.width) / 2, y)
        y += each.height + _GAP
    return _Block(width, y - _GAP, boxes)


def _beside(blocks: list[_Block]) -> _Block:
    boxes: dict[str, _Place] = {}
    x = 0.0
    for each in blocks:
        boxes |= each.moved(x, 0)
        x += each.width + _BESIDE
    return _Block(x - _BESIDE, max(each.height for each in blocks), boxes)
