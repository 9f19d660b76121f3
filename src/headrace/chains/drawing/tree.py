"""An outline as lines of text, paths beside one another set in."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.chains.drawing.outline import Outline
from headrace.chains.nodes import Branch, Group, Node, Path


def tree_of(outline: Outline) -> str:
    """``outline`` for a terminal."""
    return "\n".join(_lines(outline)) + "\n"


def _lines(outline: Outline) -> Iterator[str]:
    yield outline.name
    for engine in outline.engines:
        # An engine that is a provider's model says both by its name.
        what = f"{engine.provider}/{engine.model}"
        named = engine.name if engine.name == what else f"{engine.name}: {what}"
        yield f"  engine {named}, {engine.life}"
    yield ""
    yield "input"
    yield from _of_path(outline, outline.path, "")
    yield "output"


def _of_path(outline: Outline, path: Path, before: str) -> Iterator[str]:
    for place in path.places:
        if isinstance(place, Group):
            yield f"{before}│"
            yield f"{before}├─ beside one another"
            for number, each in enumerate(place.paths, 1):
                yield f"{before}│  path {number}"
                yield from _of_path(outline, each, f"{before}│  ")
            continue
        yield from _of_node(outline, place, before)
        if isinstance(place, Branch):
            for name, way in place.paths.items():
                yield f"{before}├─ {name}"
                yield from _of_path(outline, Path.of(way), f"{before}│  ")


def _of_node(outline: Outline, node: Node, before: str) -> Iterator[str]:
    box = outline.boxes[node.id]
    yield f"{before}│"
    yield f"{before}● {box.id}  ({box.kind}: {box.by})"
    for name, fact in box.facts.items():
        yield f"{before}│   {name}: {fact}"
