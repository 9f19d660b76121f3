"""``not``, which a grammar cannot say, in words that it can.

What is barred holds only where all that it says does, so one part of it that cannot be met is
enough. What comes out takes no value that is barred, and sometimes not all of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from headrace.backends.local.schemas.apart import (
    TYPES,
    names_of,
    same,
    type_of,
    types_of,
    values_of,
)

Schema = Mapping[str, Any]

_REMARKS = frozenset(["title", "description", "$comment", "examples", "default"])
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
_MOST_SPELT = 512
"""In characters: a pattern that shuts texts out grows with them."""


def without(node: dict[str, Any]) -> dict[str, Any] | None:
    """``node`` with its ``not`` said in other words, or ``None`` where there are none."""
    left = {key: value for key, value in node.items() if key != "not"}
    barred = node["not"]
    if barred is False:
        return left
    if not isinstance(barred, dict):
        return None
    if not barred.keys() - _REMARKS - {"anyOf"} and isinstance(barred.get("anyOf"), list):
        return _without_each(left, barred["anyOf"])
    for word, say in _WAYS.items():
        said = say(left, barred, word) if word in barred else None
        if said is not None:
            return said
    return None


def _without_each(left: dict[str, Any], barred: Sequence[Any]) -> dict[str, Any] | None:
    made: dict[str, Any] | None = left
    for each in barred:
        made = None if made is None else without({**made, "not": each})
    return made


def _without_required(left: Schema, barred: Schema, word: str) -> dict[str, Any] | None:
    """An object that lacks one of the names."""
    wanted = [name for name in names_of(barred[word]) if name not in names_of(left.get("required"))]
    properties = dict(left.get("properties") or {})
    if not wanted or "object" not in types_of(left):
        return None
    # Better one that is not spoken of than one that is offered.
    wanted.sort(key=lambda name: name in properties)
    return {**left, "type": "object", "properties": {**properties, wanted[0]: False}}


def _without_property(left: Schema, barred: Schema, word: str) -> dict[str, Any] | None:
    """An object with one of the properties, and another value in it than is barred."""
    if not isinstance(barred[word], dict) or "object" not in types_of(left):
        return None
    properties, required = left.get("properties") or {}, names_of(left.get("required"))
    for name in sorted(barred[word], key=lambda name: name not in required):
        mine, theirs = properties.get(name, {}), barred[word][name]
        if mine is True:
            mine = {}
        if not isinstance(mine, dict) or "not" in mine:
            continue
        other = without({**mine, "not": theirs})
        if other is not None:
            return {
                **left,
                "type": "object",
                "properties": {**properties, name: other},
                "required": list(dict.fromkeys([*required, name])),
            }
    return None


def _without_values(left: Schema, barred: Schema, word: str) -> dict[str, Any] | None:
    """Other values than those that are listed."""
    gone = barred["enum"] if word == "enum" else [barred["const"]]
    if not isinstance(gone, list):
        return None
    mine = values_of(left)
    if mine is not None:
        kept = [value for value in mine if not any(same(value, each) for each in gone)]
        rest = {key: value for key, value in left.items() if key != "const"}
        return {**rest, "enum": kept} if kept else None
    made, types = dict(left), set(types_of(left))
    texts = [value for value in gone if isinstance(value, str)]
    if texts and "string" in types and not _shut_out(made, texts):
        types.discard("string")
    numbers = [value for value in gone if type_of(value) in ("integer", "number")]
    if numbers and types & {"integer", "number"} and not _beyond(made, numbers):
        types -= {"integer", "number"}
    # Of the others a whole type goes with one value; where nothing else is left, it is not held.
    types -= {type_of(value) for value in gone} - {"string", "integer", "number"}
    return _of_types(made, types)


def _shut_out(made: dict[str, Any], texts: Sequence[str]) -> bool:
    if sum(map(len, texts)) > _MOST_SPELT:
        return False
    pattern = f"^{none_of(texts)}$"
    if "pattern" in made:
        made["allOf"] = [*made.get("allOf", []), {"pattern": pattern}]
    else:
        made["pattern"] = pattern
    return True


def none_of(texts: Sequence[str]) -> str:
    """A pattern, without looking ahead, of every text but ``texts``."""
    follow: dict[str, list[str]] = {}
    for text in texts:
        if text:
            follow.setdefault(text[0], []).append(text[1:])
    others = "".join(f"\\u{ord(c):04x}" if ord(c) < 128 else c for c in follow)
    ways = [re.escape(first) + none_of(rest) for first, rest in follow.items()]
    ways.append(rf"[^{others}][\s\S]*" if others else r"[\s\S]+")
    return f"(?:{'|'.join(ways)})" + ("" if "" in texts else "?")


def _beyond(made: dict[str, Any], numbers: Sequence[float]) -> bool:
    """Only those above all that are barred, or below, where there is more room."""
    bounds = {word: made[word] for word in _LOWER + _UPPER if word in made}
    if any(isinstance(bound, bool) for bound in bounds.values()):
        return False  # of the draft in which these words say something else
    room_above = min([bounds.get(word, inf) for word in _UPPER]) - max(numbers)
    room_below = min(numbers) - max([bounds.get(word, -inf) for word in _LOWER])
    if max(room_above, room_below) < 1:
        return False
    if room_above >= room_below:
        made["exclusiveMinimum"] = max(*numbers, bounds.get("exclusiveMinimum", -inf))
    else:
        made["exclusiveMaximum"] = min(*numbers, bounds.get("exclusiveMaximum", inf))
    return True


def _without_types(left: Schema, barred: Schema, word: str) -> dict[str, Any] | None:
    """Values of the other types."""
    gone = set(types_of({"type": barred[word]}))
    if "integer" in gone:
        gone.add("number")  # a grammar cannot say that of a number
    return _of_types(left, set(types_of(left)) - gone)


def _of_types(left: Schema, types: set[str]) -> dict[str, Any] | None:
    kept = [name for name in TYPES if name in types]
    if "number" in kept and "integer" in kept:
        kept.remove("integer")
    return {**left, "type": kept if len(kept) > 1 else kept[0]} if kept else None


_WAYS: Mapping[str, Callable[[Schema, Schema, str], dict[str, Any] | None]] = {
    "enum": _without_values,
    "const": _without_values,
    "properties": _without_property,
    "required": _without_required,
    "type": _without_types,
}
