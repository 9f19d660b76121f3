"""From an answer's text to its JSON value, mended once where that is sure enough."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen

_MOST_REPAIRED = 256 << 10
"""The longest text, in characters, that is mended: json-repair takes its time."""
_MOST_STARTS = 20

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_STARTS = re.compile(r"[{\[]")


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
            raise Unreadable(f"the JSON ends too early: {error}") from error
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
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("arrays and objects lie too deep in one another") from error
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        raise ValueError("it is a text with JSON in it")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


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
    """The object in ``text`` with prose around it; ``None`` where there are several, or none."""
    found: list[dict[str, Any]] = []
    place = 0
    for _ in range(_MOST_STARTS):
        start = text.find("{", place)
        if start < 0:
            break
        try:
            value, place = json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        if value:
            found.append(value)
    return found[0] if len(found) == 1 else None


def _mended(text: str) -> dict[str, Any] | None:
    fences = [match[1] for match in _FENCE.finditer(text)]
    piece = fences[0] if len(fences) == 1 else text
    start = _STARTS.search(piece)
    if start is None or _ends_in_a_string(piece[start.start() :]):
        return None
    from json_repair import repair_json

    try:
        value = repair_json(piece[start.start() :], return_objects=True)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value else None


def _ends_in_a_string(text: str) -> bool:
    """Whether ``text`` stops in the middle of a string, so that its end is not there to be read."""
    if text.rstrip()[-1:] in ("}", "]"):
        return False
    quoted = re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL)
    return quoted.count('"') % 2 == 1
