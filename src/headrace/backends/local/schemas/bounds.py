"""Ends for what a caller's schema leaves open.

A small model runs on inside a text, a list, a number or a set of names until its tokens are spent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from headrace.backends.local.schemas.words import NAMED_PARTS, says_something

_MOST_INTEGER = 2**53 - 1
"""Beyond it, readers that keep numbers as doubles lose digits."""
_MOST_NUMBER = 1e15
_FINEST = 1e-6
_MOST_TEXT = 8192
ANY = "any-json-{}"
LEAF_TOKENS = 12
ANY_LEAVES = 4
"""About how many values there are in one of any kind."""
NAME = r"^[A-Za-z0-9_ .-]{1,48}$"


@frozen(kw_only=True)
class Bounds:
    """What the caller left open ends here.

    A text after ``text`` characters (a quarter of that within a list), a list after about
    ``list_tokens`` tokens, an object without named properties after ``names``; a value of any kind
    lies at most ``depth`` deep. ``patterns``: texts with a pattern of their own are bounded too. The
    whole answer has about ``whole`` characters, and an end of the caller's own counts where one
    text or list leaves most of them to the others.
    """

    text: int = 256
    list_tokens: int = 256
    names: int = 6
    depth: int = 2
    patterns: bool = True
    whole: int = 8192

    def ends_text(self, length: object) -> bool:
        """Whether the caller's ``length`` is an end for a text."""
        return isinstance(length, int) and 16 * length <= self.whole

    def ends_list(self, length: object) -> bool:
        """Whether it is one for a list, whose items may be a token each."""
        return isinstance(length, int) and 32 * length <= self.whole


def bounds_for(
    max_tokens: int | None, schema: object, parts: int = 1, *, tight: bool = False
) -> Bounds:
    """Bounds under which an answer of ``max_tokens`` has a good chance to reach its end.

    A token is about four characters of prose, and one of digits. What is open shares the answer,
    and so do the ``parts`` that each meet ``schema``. ``tight`` leaves room for the worst of texts,
    of which each character is a token.
    """
    share = (max_tokens or 1024) // parts
    tokens = 1 << (max(64, min(share, 16384)).bit_length() - 1)
    open_ended = Bounds(whole=4 * tokens if max_tokens else Bounds().whole)
    texts, lists = _open_ends(schema, open_ended)
    if tight:
        return evolve(
            open_ended,
            text=max(16, tokens // (2 * max(1, texts))),
            list_tokens=tokens // (8 * max(1, lists)),
            names=2,
            depth=1,
            whole=tokens,
        )
    return evolve(
        open_ended,
        # Many texts that all run on are too much sooner than two are.
        text=max(48, (4 if texts < 3 else 3) * tokens // (2 * max(1, texts))),
        list_tokens=tokens // (2 * max(1, lists)),
        names=between(2, tokens // 48, 6),
        depth=2 if tokens > 128 else 1,
    )


def most_calls(max_tokens: int | None) -> int:
    """How many calls one answer of ``max_tokens`` may hold: a small model would go on calling."""
    return between(2, (max_tokens or 1024) // 256, 8)


def anything(bounds: Bounds) -> dict[str, Any]:
    """Definitions of any JSON value, by how deep it may lie."""
    number: dict[str, Any] = {"type": "number"}
    bound_number(number)
    items = between(2, bounds.list_tokens // (4 * LEAF_TOKENS), 8)
    flat = [
        {"type": "null"},
        {"type": "boolean"},
        number,
        {"type": "string", "maxLength": between(16, bounds.text // 2, 256)},
    ]
    made: dict[str, Any] = {ANY.format(0): {"anyOf": flat}}
    for depth in range(1, bounds.depth + 1):
        inner = {"$ref": f"#/$defs/{ANY.format(depth - 1)}"}
        made[ANY.format(depth)] = {
            "anyOf": [
                *flat,
                {"type": "array", "items": inner, "maxItems": items},
                {
                    "type": "object",
                    "patternProperties": {NAME: inner},
                    "additionalProperties": False,
                    "maxProperties": bounds.names,
                },
            ]
        }
    return made


def bound_text(made: dict[str, Any], node: dict[str, Any], most: int, bounds: Bounds) -> None:
    pattern = made.get("pattern")
    own = node.get("maxLength")
    if bounds.ends_text(own) or ("format" in node and pattern is not None):
        return
    if pattern is not None and (not bounds.patterns or not _runs_on(pattern)):
        return
    most = most if own is not None else min(most, _MOST_TEXT)
    most = max(most, (node.get("minLength") or 0) + most // 4)
    made["maxLength"] = most if own is None else min(own, most)


def short_name(pattern: str) -> str:
    """A pattern of some of the names that ``pattern`` takes, none of them long.

    Where it takes a name by a part of it, that part comes last.
    """
    starts, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern[starts : len(pattern) - ends]
    if "|" in inner and (starts or ends):
        return pattern  # an anchor belongs to one of the alternatives
    before = "" if starts else "[A-Za-z0-9_]{0,16}"
    return f"^{before}(?:{_QUANTIFIED.sub(_fewer, inner)})$"


# A piece that is passed over (an escaped sign, a class), or a quantifier.
_QUANTIFIED = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<any>[*+])|\{(?P<least>\d+),(?P<most>\d*)\}", re.S
)
_MOST_OF_A_NAME = 24


def _fewer(found: re.Match[str]) -> str:
    if found["any"]:
        return f"{{{int(found['any'] == '+')},{_MOST_OF_A_NAME}}}"
    if found["least"] is None:
        return found[0]
    least = int(found["least"])
    most = max(least, _MOST_OF_A_NAME)
    return f"{{{least},{min(int(found['most'] or most), most)}}}"


def _runs_on(pattern: str) -> bool:
    anchored = pattern.startswith("^") and pattern.endswith("$")
    return not anchored or any(sign in pattern for sign in ("*", "+", ",}"))


def bound_integer(made: dict[str, Any]) -> None:
    if "maximum" not in made and "exclusiveMaximum" not in made:
        made["maximum"] = max(_MOST_INTEGER, made.get("minimum") or 0)
    if "minimum" not in made and "exclusiveMinimum" not in made:
        made["minimum"] = min(-_MOST_INTEGER, made.get("maximum", 0))


def bound_number(made: dict[str, Any]) -> None:
    """Six digits after the point, which a grammar can say of what is not negative only."""
    if "multipleOf" in made:
        return
    least = max([made[w] for w in ("minimum", "exclusiveMinimum") if _is_number(made, w)] or [-1])
    most = min([made[w] for w in ("maximum", "exclusiveMaximum") if _is_number(made, w)] or [1])
    upper = {"minimum": 0, "maximum": _MOST_NUMBER, "multipleOf": _FINEST}
    lower = {"minimum": -_MOST_NUMBER, "exclusiveMaximum": 0}
    if abs(least) >= _MOST_NUMBER or abs(most) >= _MOST_NUMBER or 0 <= most - least < 2 * _FINEST:
        return
    branches = [upper] if least >= 0 else [lower] if most < 0 else [upper, lower]
    if "anyOf" in made:
        made["allOf"] = [*made.get("allOf", []), {"anyOf": branches}]
    else:
        made["anyOf"] = branches


def _is_number(node: Mapping[str, Any], word: str) -> bool:
    return isinstance(node.get(word), int | float) and not isinstance(node[word], bool)


def _open_ends(schema: object, bounds: Bounds) -> tuple[int, int]:
    """How many texts and lists in ``schema`` the caller set no end to, or a far one."""
    texts = lists = 0
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("type"), str | list):
            is_text = "string" in node["type"] and "enum" not in node
            texts += is_text and not bounds.ends_text(node.get("maxLength"))
            lists += "array" in node["type"] and not bounds.ends_list(node.get("maxItems"))
        elif not says_something(node):
            texts += 1  # anything, which may be one
        for key, child in node.items():
            if key in ("enum", "const", "default"):
                continue
            parts = key in NAMED_PARTS and isinstance(child, dict)
            waiting += child.values() if parts else [child]
    return texts, lists


def between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))
