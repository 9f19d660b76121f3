"""A caller's JSON Schema made into one that a grammar can hold and a small model can finish.

What comes out takes less than the schema that went in, never more: whatever meets it meets the
caller's. A small model runs on inside a text, a list, a number or a set of names until its tokens
are spent, so what the caller left open gets bounds; an object whose properties are named gets no
others; what a grammar cannot say is put in other words, or refused by its name and place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from attrs import frozen

from headrace.backends.local.schemas.apart import OBJECT_WORDS, TYPES, told_apart, without
from headrace.backends.local.schemas.formats import NATIVE, PATTERNS
from headrace.backends.local.schemas.merge import put_together

MOST_DEPTH = 64
_MOST_INTEGER = 2**53 - 1
"""Beyond it, readers that keep numbers as doubles lose digits."""
_MOST_NUMBER = 1e15
_FINEST = 1e-6
_ANY = "any-json-{}"

_STRING_WORDS = frozenset(["minLength", "maxLength", "pattern", "format"])
_NUMBER_WORDS = frozenset(
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
)
_ARRAY_WORDS = frozenset(["items", "prefixItems", "additionalItems", "minItems", "maxItems"])
_JOINING = ("allOf", "anyOf", "oneOf", "$ref")
_OWN = OBJECT_WORDS | _STRING_WORDS | _NUMBER_WORDS | _ARRAY_WORDS | {"type", "enum", "const"}
_REWRITTEN = frozenset(["not", "dependencies", "dependentRequired", "uniqueItems"])
_HOLDERS = frozenset(
    ["items", "prefixItems", "additionalItems", "additionalProperties", "allOf", "anyOf", "oneOf"]
)
_NAMED_PARTS = ("properties", "patternProperties", "$defs", "definitions")
_ADVICE = {
    "not": "say what is allowed instead, by 'type', 'enum' or 'pattern'",
    "if": "say the cases as 'anyOf', each with a 'const' property that names it",
    "then": "say the cases as 'anyOf', each with a 'const' property that names it",
    "else": "say the cases as 'anyOf', each with a 'const' property that names it",
    "uniqueItems": "leave it out and remove repeated items afterwards",
    "contains": "make the item a property of its own, or 'prefixItems'",
    "minContains": "make the items properties of their own, or 'prefixItems'",
    "maxContains": "make the items properties of their own, or 'prefixItems'",
    "propertyNames": "give the names as 'patternProperties' with 'additionalProperties': false",
    "dependentSchemas": "say the cases as 'anyOf'",
    "dependencies": "name what is needed in 'required', or say the cases as 'anyOf'",
    "unevaluatedProperties": "use 'additionalProperties': false",
    "unevaluatedItems": "use 'items': false",
    "$dynamicRef": "use '$ref'",
    "$recursiveRef": "use '$ref'",
    "oneOf": "use 'anyOf', or give each alternative a required property with a 'const' of its own",
}


class Unheld(Exception):
    """``keyword`` at ``path`` (a JSON pointer) is beyond what can be held; ``advice`` says what is not."""

    def __init__(self, keyword: str, path: str, advice: str) -> None:
        super().__init__(f"'{keyword}' at {path or '/'} cannot be held by a grammar; {advice}")
        self.keyword, self.path, self.advice = keyword, path, advice


@frozen(kw_only=True)
class Bounds:
    """What the caller left open ends here.

    A text after ``text`` characters (a quarter of that within a list), a list after about
    ``list_tokens`` tokens, an object without named properties after ``names``; a value of any kind
    lies at most ``depth`` deep. ``patterns``: texts with a pattern of their own are bounded too.
    """

    text: int = 256
    list_tokens: int = 256
    names: int = 6
    depth: int = 2
    patterns: bool = True


def bounds_for(max_tokens: int | None, schema: object) -> Bounds:
    """Bounds under which an answer of ``max_tokens`` has a good chance to reach its end.

    A token is about four characters of prose, and one of digits. What is open shares the answer.
    """
    texts, lists = _open_ends(schema)
    tokens = 1 << (max(64, min(max_tokens or 1024, 16384)).bit_length() - 1)
    return Bounds(
        text=_between(48, 2 * tokens // max(1, texts), 8192),
        list_tokens=tokens // max(1, lists),
    )


def narrowed(schema: Any, bounds: Bounds | None) -> dict[str, Any]:
    """``schema`` so that a grammar holds it; with ``bounds``, also so that it comes to an end.

    Raises Unheld where some keyword is beyond a grammar.
    """
    work = _Narrowing(schema, bounds)
    made = work.rewrite(work.root, "", False, 0)
    if not isinstance(made, dict):
        made = {} if made else {"not": {}}
    if work.wants_any and bounds is not None:
        made = {**made, "$defs": {**(made.get("$defs") or {}), **_anything(bounds)}}
    return made


class _Narrowing:
    def __init__(self, root: Any, bounds: Bounds | None) -> None:
        self.root = root
        self.root, self.bounds = self._together(root, 0), bounds
        self.wants_any = False
        self.lists = 0
        """In how many lists, one in the other, that lies which is being rewritten."""
        self.shared: dict[int, bool] = {}
        """By id, the schemas in reach, and whether others speak of the same value."""
        self._survey()

    def resolve(self, reference: Any) -> Any:
        """What a reference within the schema points to; ``None`` for all others."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return None
        found = self.root
        for part in reference.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found

    def _together(self, node: Any, depth: int) -> Any:
        """``node`` and what lies in it, each object said in one place."""
        if depth > MOST_DEPTH:
            return node
        if isinstance(node, list):
            return [self._together(each, depth) for each in node]
        if not isinstance(node, dict):
            return node
        made = dict(put_together(node, self.resolve))
        for key, value in made.items():
            if key in _NAMED_PARTS and isinstance(value, dict):
                made[key] = {name: self._together(each, depth + 1) for name, each in value.items()}
            elif key in _HOLDERS:
                made[key] = self._together(value, depth + 1)
        return made

    def _survey(self) -> None:
        waiting: list[tuple[Any, bool]] = [(self.root, False)]
        while waiting:
            node, shared = waiting.pop()
            if not isinstance(node, dict):
                continue
            if self._goes_round(node):
                raise Unheld("$ref", "", f"{node['$ref']} refers to itself and to nothing else")
            known = self.shared.get(id(node))
            if known is not None and (known or not shared):
                continue
            shared = self.shared[id(node)] = shared or _speaks_twice(node)
            waiting += [(child, shared) for child in _joined(node)]
            waiting.append((self.resolve(node.get("$ref")), shared))
            beside = shared or "patternProperties" in node
            waiting += [(child, beside) for child in _inner(node)]

    def _goes_round(self, node: Any) -> bool:
        seen: set[int] = set()
        while isinstance(node, dict) and "$ref" in node:
            if id(node) in seen:
                return True
            seen.add(id(node))
            node = self.resolve(node["$ref"])
        return False

    def rewrite(self, node: Any, path: str, shared: bool, depth: int) -> Any:
        """``node`` made narrower; ``shared`` where others speak of the same value."""
        if depth > MOST_DEPTH:
            raise Unheld("properties", path, f"it lies more than {MOST_DEPTH} deep")
        if node is False:
            return False
        if node is True or not isinstance(node, dict) or not _says_something(node):
            return node if shared or self.bounds is None else self._any(node)
        shared = shared or self.shared.get(id(node), False)
        node = _in_other_words(node, path)
        if not shared and not any(word in node for word in (*_JOINING, "enum", "const")):
            kinds = _kinds(node)
            if len(kinds) > 1:
                says = {k: v for k, v in node.items() if k not in _OWN and k not in _NAMED_PARTS}
                each = [self.rewrite(_only(node, kind), path, shared, depth + 1) for kind in kinds]
                return {**self._parts(node, path, depth, says), "anyOf": each}
            node = {"type": kinds[0], **{k: v for k, v in node.items() if k != "type"}}
        made = self._parts(node, path, depth, self._children(node, path, shared, depth))
        self._bound(made, node, shared)
        return made

    def _parts(
        self, node: Mapping[str, Any], path: str, depth: int, made: dict[str, Any]
    ) -> dict[str, Any]:
        """The definitions that are in use, narrowed; the others as they are."""
        for key in ("$defs", "definitions"):
            if isinstance(node.get(key), dict):
                made[key] = {
                    name: self.rewrite(part, f"{path}/{key}/{name}", False, depth + 1)
                    if id(part) in self.shared
                    else part
                    for name, part in node[key].items()
                }
        return made

    def _children(
        self, node: dict[str, Any], path: str, shared: bool, depth: int
    ) -> dict[str, Any]:
        beside = shared or "patternProperties" in node
        made: dict[str, Any] = {}
        for key, value in node.items():
            at = f"{path}/{key}"
            if key in ("properties", "patternProperties") and isinstance(value, dict):
                made[key] = {
                    name: self.rewrite(child, f"{at}/{name}", beside, depth + 1)
                    for name, child in value.items()
                }
            elif key == "oneOf" and isinstance(value, list):
                self._alternatives(made, node, path, shared, depth)
            elif key in ("allOf", "anyOf", "prefixItems") or (
                key == "items" and isinstance(value, list)
            ):
                made.setdefault(key, []).extend(
                    self.rewrite(child, f"{at}/{i}", shared, depth + 1)
                    for i, child in enumerate(value)
                )
            elif key in ("items", "additionalItems", "additionalProperties"):
                self.lists += key == "items"
                made[key] = self.rewrite(value, at, beside, depth + 1)
                self.lists -= key == "items"
            elif key == "format":
                _format(made, node)
            elif key not in ("$defs", "definitions"):
                made.setdefault(key, value)
        return made

    def _alternatives(
        self, made: dict[str, Any], node: dict[str, Any], path: str, shared: bool, depth: int
    ) -> None:
        apart = told_apart(node["oneOf"], node, self.resolve)
        if isinstance(apart, int):
            raise Unheld("oneOf", path, f"alternative {apart} overlaps another; {_ADVICE['oneOf']}")
        shared = shared or _speaks_twice(node)
        branches = []
        for i, branch in enumerate(apart):
            # What was looked up behind a reference stays one where nothing was added to it.
            original = node["oneOf"][i]
            same = isinstance(original, dict) and self.resolve(original.get("$ref")) == branch
            branches.append(
                self.rewrite(original if same else branch, f"{path}/oneOf/{i}", shared, depth + 1)
            )
        if "anyOf" in node:
            made["allOf"] = [*made.get("allOf", []), {"anyOf": branches}]
        else:
            made["anyOf"] = branches

    def _bound(self, made: dict[str, Any], node: dict[str, Any], shared: bool) -> None:
        if self.bounds is None or "enum" in node or "const" in node:
            return
        kind = node.get("type")
        if kind == "string":
            _bound_text(made, node, self._text(self.bounds), self.bounds)
        elif kind == "array":
            self._bound_items(made, node, self.bounds, shared)
        elif kind == "integer":
            _bound_integer(made)
        elif kind == "number":
            _bound_number(made)
        elif kind == "object" and not shared:
            self._bound_names(made, node, self.bounds)

    def _bound_items(
        self, made: dict[str, Any], node: dict[str, Any], bounds: Bounds, shared: bool
    ) -> None:
        least = node.get("minItems") or 0
        first = node.get("prefixItems")
        if isinstance(node.get("items"), list):
            first = node["items"]
        rest = node.get("additionalItems" if first is node.get("items") else "items")
        if not shared and isinstance(first, list) and rest is None and least <= len(first):
            made.setdefault("maxItems", len(first))
        if not shared and first is None and "items" not in node:
            made["items"] = self._any({})
        start = len(first) if isinstance(first, list) else 0
        tokens = bounds.list_tokens >> (2 * self.lists)
        most = _between(2, tokens // (_LEAF_TOKENS * self._leaves(node.get("items"))), 32)
        made.setdefault("maxItems", max(least, start + most))

    def _text(self, bounds: Bounds) -> int:
        return max(32, bounds.text >> (2 * self.lists))

    def _leaves(self, node: Any, depth: int = 0) -> int:
        """About how many values one value of ``node`` holds."""
        if not isinstance(node, dict) or depth > 4:
            return 1
        inner = [*_inner(node), *_joined(node), self.resolve(node.get("$ref"))]
        return max(
            1, sum(self._leaves(each, depth + 1) for each in inner if isinstance(each, dict))
        )

    def _bound_names(self, made: dict[str, Any], node: dict[str, Any], bounds: Bounds) -> None:
        patterned = node.get("patternProperties")
        properties = dict(made.get("properties") or {})
        others = made.get("additionalProperties")
        counted = "minProperties" in node or "maxProperties" in node
        for name in node.get("required") or []:
            if name not in properties and not patterned:
                properties[name] = self._any({}) if others is None else others
        if properties:
            made["properties"] = properties
            countable = properties.keys() <= set(node.get("required") or [])
            if patterned or counted or others is False:
                return
            if others is not None and countable:
                made["maxProperties"] = len(properties) + bounds.names
            elif others is None or node.get("additionalProperties") in (True, {}):
                # What is allowed and not asked for; a grammar cannot count it where a named
                # property may be missing, and a small model never stops.
                made["additionalProperties"] = False
            return
        if others is False and not patterned:
            return
        if not patterned:
            value = self._any({}) if others is None else others
            made["patternProperties"] = {_NAME: value}
            made["additionalProperties"] = False
        elif others is None:
            made["additionalProperties"] = False
        made.setdefault("maxProperties", max(node.get("minProperties") or 0, bounds.names))

    def _any(self, node: Any) -> dict[str, Any]:
        """Any JSON value, within bounds; what ``node`` remarks is kept."""
        if self.bounds is None:
            return node if isinstance(node, dict) else {}
        self.wants_any = True
        rest = node if isinstance(node, dict) else {}
        return {**rest, "$ref": f"#/$defs/{_ANY.format(self.bounds.depth)}"}


_LEAF_TOKENS = 12
_NAME = r"^[A-Za-z0-9_ .-]{1,48}$"


def _anything(bounds: Bounds) -> dict[str, Any]:
    """Definitions of any JSON value, by how deep it may lie."""
    number: dict[str, Any] = {"type": "number"}
    _bound_number(number)
    items = _between(2, bounds.list_tokens // (4 * _LEAF_TOKENS), 8)
    flat = [
        {"type": "null"},
        {"type": "boolean"},
        number,
        {"type": "string", "maxLength": min(bounds.text, 256)},
    ]
    made: dict[str, Any] = {_ANY.format(0): {"anyOf": flat}}
    for depth in range(1, bounds.depth + 1):
        inner = {"$ref": f"#/$defs/{_ANY.format(depth - 1)}"}
        made[_ANY.format(depth)] = {
            "anyOf": [
                *flat,
                {"type": "array", "items": inner, "maxItems": items},
                {
                    "type": "object",
                    "patternProperties": {_NAME: inner},
                    "additionalProperties": False,
                    "maxProperties": bounds.names,
                },
            ]
        }
    return made


def _bound_text(made: dict[str, Any], node: dict[str, Any], most: int, bounds: Bounds) -> None:
    pattern = made.get("pattern")
    if "maxLength" in node or ("format" in node and pattern is not None):
        return
    if pattern is not None and (not bounds.patterns or not _runs_on(pattern)):
        return
    made["maxLength"] = (node.get("minLength") or 0) + most


def _runs_on(pattern: str) -> bool:
    anchored = pattern.startswith("^") and pattern.endswith("$")
    return not anchored or any(sign in pattern for sign in ("*", "+", ",}"))


def _bound_integer(made: dict[str, Any]) -> None:
    if "maximum" not in made and "exclusiveMaximum" not in made:
        made["maximum"] = max(_MOST_INTEGER, made.get("minimum") or 0)
    if "minimum" not in made and "exclusiveMinimum" not in made:
        made["minimum"] = min(-_MOST_INTEGER, made.get("maximum", 0))


def _bound_number(made: dict[str, Any]) -> None:
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


def _format(made: dict[str, Any], node: dict[str, Any]) -> None:
    """The format as a pattern of ours; one that no validator checks is left out as a remark."""
    name = node["format"]
    own = PATTERNS.get(name) if isinstance(name, str) else None
    if own is None or "string" not in _kinds(node):
        return
    ours = f"^(?:{own})$"
    if "pattern" not in node:
        made["pattern"] = ours
    elif name in NATIVE:
        made["format"] = name
    else:
        made["allOf"] = [*made.get("allOf", []), {"pattern": ours}]


def _in_other_words(node: dict[str, Any], path: str) -> dict[str, Any]:
    """``node`` without the keywords that a grammar lacks; Unheld where that cannot be."""
    for word, advice in _ADVICE.items():
        if word not in node or word in _REWRITTEN or word == "oneOf":
            continue
        if word == "unevaluatedProperties" and not any(w in node for w in _JOINING):
            node = {**node, "additionalProperties": node.get("additionalProperties", node[word])}
            del node[word]
            continue
        if word in ("then", "else") and "if" not in node:
            continue  # without a condition they say nothing
        raise Unheld(word, path, advice)
    if "not" in node:
        other = without(node)
        if other is None:
            raise Unheld("not", path, _ADVICE["not"])
        node = other
    if node.get("uniqueItems") and (node.get("maxItems") or 2) > 1 and "enum" not in node:
        raise Unheld("uniqueItems", path, _ADVICE["uniqueItems"])
    node = {k: v for k, v in node.items() if k != "uniqueItems"}
    for word in ("dependencies", "dependentRequired"):
        if isinstance(node.get(word), dict):
            node = _with_what_is_needed(node, word, path)
    return node


def _with_what_is_needed(node: dict[str, Any], word: str, path: str) -> dict[str, Any]:
    """What some property needs, required always: that meets the condition whatever comes."""
    required = list(node.get("required") or [])
    for needed in node[word].values():
        if not isinstance(needed, list):
            raise Unheld(word, path, _ADVICE["dependencies"])
        required += [name for name in needed if name not in required]
    return {**{k: v for k, v in node.items() if k != word}, "required": required}


def _kinds(node: Mapping[str, Any]) -> list[str]:
    """The types of ``node``; where it says none, the one that its other keywords are about."""
    said = node.get("type")
    if isinstance(said, str):
        return [said]
    if isinstance(said, list) and said:
        return [kind for kind in said if not (kind == "integer" and "number" in said)]
    for kind, words in (
        ("object", OBJECT_WORDS),
        ("array", _ARRAY_WORDS),
        ("string", _STRING_WORDS),
        ("number", _NUMBER_WORDS),
    ):
        if words & node.keys():
            return [kind]
    return [kind for kind in TYPES if kind != "integer"]


def _only(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What ``node`` says of values of one type."""
    about = {
        "object": OBJECT_WORDS,
        "array": _ARRAY_WORDS,
        "string": _STRING_WORDS,
        "number": _NUMBER_WORDS,
        "integer": _NUMBER_WORDS,
    }.get(kind, frozenset[str]())
    return {**{k: v for k, v in node.items() if k in about}, "type": kind}


def _says_something(node: Mapping[str, Any]) -> bool:
    return any(word in node for word in (*_OWN, *_JOINING, *_ADVICE))


def _speaks_twice(node: Mapping[str, Any]) -> bool:
    """Whether two parts of ``node`` speak of the same value."""
    joining = sum(word in node for word in _JOINING)
    if len(node.get("allOf") or []) > 1:
        joining += 1
    own = any(word in node for word in (_OWN | {"not"}))
    return joining + own > 1


def _joined(node: Mapping[str, Any]) -> list[Any]:
    return [
        child
        for word in ("allOf", "anyOf", "oneOf")
        if isinstance(node.get(word), list)
        for child in node[word]
    ]


def _inner(node: Mapping[str, Any]) -> list[Any]:
    found = []
    for word in ("properties", "patternProperties"):
        if isinstance(node.get(word), dict):
            found += node[word].values()
    for word in ("items", "prefixItems", "additionalItems", "additionalProperties"):
        child = node.get(word)
        found += child if isinstance(child, list) else [child]
    return found


def _open_ends(schema: object) -> tuple[int, int]:
    """How many texts and lists in ``schema`` the caller set no end to."""
    texts = lists = 0
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("type"), str | list):
            texts += "string" in node["type"] and "maxLength" not in node and "enum" not in node
            lists += "array" in node["type"] and "maxItems" not in node
        waiting += [child for key, child in node.items() if key not in ("enum", "const", "default")]
    return texts, lists


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))
