"""An outline in Mermaid's words (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.chains.drawing.outline import INPUT, OUTPUT, Box, Kind, Outline

_SHAPES: dict[Kind, tuple[str, str]] = {
    "step": ("[", "]"),
    "apply": ("([", "])"),
    "branch": ("{", "}"),
    "join": ("[[", "]]"),
    "reduce": ("[/", "\\]"),
}


def mermaid_of(outline: Outline) -> str:
    """``outline`` as a flowchart."""
    return "\n".join(_lines(outline)) + "\n"


def _lines(outline: Outline) -> Iterator[str]:
    yield "flowchart TD"
    yield '  input(("input"))'
    for box in outline.boxes.values():
        opens, closes = _SHAPES[box.kind]
        yield f'  {_id(box.id)}{opens}"{_text(box)}"{closes}'
    yield '  output(("output"))'
    for arrow in outline.arrows:
        label = f'|"{_escaped(arrow.label)}"|' if arrow.label else ""
        yield f"  {_id(arrow.start)} -->{label} {_id(arrow.end)}"


def _id(node: str) -> str:
    # Some names mean something to Mermaid, ``end`` among them.
    return {INPUT: "input", OUTPUT: "output"}.get(node, f"n_{node}")


def _text(box: Box) -> str:
    lines = [f"<b>{_escaped(box.id)}</b>", _escaped(f"{box.kind}: {box.by}")]
    lines += [_escaped(f"{name}: {fact}") for name, fact in box.facts.items()]
    return "<br>".join(lines)


def _escaped(text: str) -> str:
    """Mermaid reads HTML and its own numbered characters in a text."""
    codes = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\n": " "}
    return "".join(codes.get(each, each) for each in text)
