"""What stands in a caller's body in Gemini's form that our own words have no place for.

It is left out and told of; most of it is about services that only Google runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from headrace.wire.gemini_contents import CALL, CONTENT, RESULT
from headrace.wire.gemini_names import camel
from headrace.wire.gemini_parts import FIELDS, KINDS, MEDIA
from headrace.wire.gemini_tools import DECLARATION

_PART = FIELDS | frozenset(KINDS)
_ASKS_NOTHING: tuple[object, ...] = (None, False, "", [], {})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_MOST = 20


def unplaced(wire: dict[str, Any]) -> tuple[str, ...]:
    """The names of those fields, such as ``contents.parts.videoMetadata``, each once."""
    # They are written into a header: no more than some, and nothing but plain names.
    return tuple(dict.fromkeys(_walk(wire)))[:_MOST]


def _walk(wire: dict[str, Any]) -> Iterator[str]:
    for tool in _objects(wire.get("tools")):
        for function in _objects(_under(tool, "functionDeclarations")):
            yield from _beyond(function, DECLARATION, "tools.functionDeclarations")
    yield from _of_content(wire.get("systemInstruction"), "systemInstruction")
    for content in _objects(wire.get("contents")):
        yield from _of_content(content, "contents")


def _of_content(content: object, where: str) -> Iterator[str]:
    for each in _objects(content):
        yield from _beyond(each, CONTENT, where)
        for part in _objects(each.get("parts")):
            yield from _of_part(part, f"{where}.parts")


def _of_part(part: dict[str, Any], where: str) -> Iterator[str]:
    yield from _beyond(part, _PART, where)
    for kind in ("inlineData", "fileData"):
        yield from _beyond(_under(part, kind), MEDIA, f"{where}.{kind}")
    for kind, known in (("functionCall", CALL), ("functionResponse", RESULT)):
        yield from _beyond(_under(part, kind), known, f"{where}.{kind}")


def _under(wire: dict[str, Any], name: str) -> Any:
    return next((value for key, value in wire.items() if camel(key) == name), None)


def _beyond(wire: object, known: Collection[str], where: str) -> Iterator[str]:
    if not isinstance(wire, dict):
        return
    for name, value in wire.items():
        if camel(name) not in known and value not in _ASKS_NOTHING:
            yield f"{where}.{camel(name) if _PLAIN_NAME.fullmatch(name) else '?'}"


def _objects(wire: object) -> Iterator[dict[str, Any]]:
    listed = wire if isinstance(wire, list) else [wire]
    yield from (each for each in listed if isinstance(each, dict))
