"""From an answer's text to its JSON value, mended once where that is sure enough."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import isinf
from typing import Any

from attrs import frozen

_MOST_REPAIRED = 256 << 10
"""The longest text, in characters, that is mended: json-repair takes its time."""
_MOST_STARTS = 20

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
# Prose may have braces of its own; an object's has a name behind it, or nothing.
_OBJECT = re.compile(r"""\{(?=\s*["'}])""")


class Unreadable(Exception):
    """The text is no JSON, and nothing that could be made JSON of without guessing."""


@frozen
class Reading:
    """A value and whether the text had to be mended for it."""

    value: Any
    repaired: bool


def read_text(text: str, *, whole: bool) -> Reading:
    """The JSON value of ``text``; raises Unreadable.

    Only an answer that is ``whole`` is mended: of one that was cut, what is missing would be made
    up.
    """
    try:
        return Reading(_exact(text), repaired=False)
    except ValueError as error:
        if not whole:
            raise Unreadable(f"it is not JSON: {error}") from error
        if not text.strip():
            raise Unreadable("the answer is empty") from error
        if len(text) > _MOST_REPAIRED:
            raise Unreadable(f"it is not JSON, and too long to be mended: {error}") from error
        reason = str(error)
    bare = _THOUGHTS.sub("", text)
    for piece in _pieces(bare):
        try:
            return Reading(_exact(piece), repaired=True)
        except ValueError:
            continue
    found = _first_object(bare)
    if found is None:
        found = _mended(bare)
    if found is None:
        raise Unreadable(f"it is not JSON: {reason}")
    return Reading(found, repaired=True)


def _exact(text: str) -> Any:
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("arrays and objects lie too deep in one another") from error
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        raise ValueError("it is a text with JSON in it")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if isinf(value):
        raise ValueError(f"{number} is too large a number")
    return value


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _pieces(text: str) -> Iterator[str]:
    """What in ``text`` may be the JSON: what is fenced, and what was quoted once too often."""
    yield text
    yield from (match[1] for match in _FENCE.finditer(text))
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(inner, str):
        yield inner


def _first_object(text: str) -> dict[str, Any] | None:
    """The object in ``text`` with prose around it; ``None`` where there is none that is whole."""
    found: list[dict[str, Any]] = []
    place = 0
    for _ in range(_MOST_STARTS):
        start = _OBJECT.search(text, place)
        if start is None:
            break
        try:
            value, place = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            return None
        if value:
            found.append(value)
    if any(each != found[0] for each in found):
        raise Unreadable(f"there are {len(found)} objects in it, where one was asked for")
    return found[0] if found else None


def _mended(text: str) -> dict[str, Any] | None:
    fences = [match[1] for match in _FENCE.finditer(text)]
    piece = fences[0] if len(fences) == 1 else text
    start = _OBJECT.search(piece) or re.search(r"\{", piece)
    if start is None or _ends_too_early(piece[start.start() :]):
        return None
    from json_repair import repair_json

    try:
        value = repair_json(piece[start.start() :], return_objects=True)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value and _is_json(value) else None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _ends_too_early(text: str) -> bool:
    """Whether ``text`` stops where more must have been meant: in a string, or deep inside.

    One bracket may have been forgotten; where two are open, what would have stood in the inner one
    is not there to be read.
    """
    bare = _STRING.sub("", text)
    opened = sum(map(bare.count, "{[")) - sum(map(bare.count, "}]"))
    in_a_string = text.rstrip()[-1:] not in ("}", "]") and bare.count('"') % 2 == 1
    return in_a_string or opened > 1
