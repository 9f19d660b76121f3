"""A caller's JSON Schema made into one that a grammar can hold and a small model can finish.

What comes out takes less than the schema that went in, never more: whatever meets it meets the
caller's. What the caller left open gets bounds; an object whose properties are named gets no
others; what a grammar cannot say is put in other words, or refused by its name and place.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any
from urllib.parse import unquote

from headrace.backends.local.schemas.apart import told_apart
from headrace.backends.local.schemas.bounds import (
    ANY,
    ANY_LEAVES,
    LEAF_TOKENS,
    NAME,
    Bounds,
    anything,
    between,
    bound_integer,
    bound_number,
    bound_text,
    short_name,
)
from headrace.backends.local.schemas.formats import NATIVE, PATTERNS
from headrace.backends.local.schemas.merge import put_together
from headrace.backends.local.schemas.words import (
    ADVICE,
    HOLDERS,
    JOINING,
    NAMED_PARTS,
    OWN,
    Unheld,
    in_other_words,
    inner_of,
    joined,
    kinds_of,
    only_about,
    says_something,
    speaks_twice,
)

MOST_DEPTH = 64
_OF_MANY = ("items", "additionalItems", "additionalProperties")


def narrowed(schema: Any, bounds: Bounds | None) -> dict[str, Any]:
    """``schema`` so that a grammar holds it; with ``bounds``, also so that it comes to an end.

    Raises Unheld where some keyword is beyond a grammar.
    """
    work = _Narrowing(schema, bounds)
    made = work.rewrite(work.root, "", False, 0)
    if not isinstance(made, dict):
        made = {} if made else {"not": {}}
    if work.wants_any and bounds is not None:
        made = {**made, "$defs": {**(made.get("$defs") or {}), **anything(bounds)}}
    return made


class _Narrowing:
    def __init__(self, root: Any, bounds: Bounds | None) -> None:
        self.root = root
        self.root, self.bounds = self._together(root, 0), bounds
        self.wants_any = False
        self.lists = 0
        """In how many lists and maps, one in the other, that lies which is being rewritten."""
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
            if key in NAMED_PARTS and isinstance(value, dict):
                made[key] = {name: self._together(each, depth + 1) for name, each in value.items()}
            elif key in HOLDERS:
                made[key] = self._together(value, depth + 1)
        return made

    def _survey(self) -> None:
        waiting: list[tuple[Any, bool]] = [(self.root, False)]
        found: list[dict[str, Any]] = []
        while waiting:
            node, shared = waiting.pop()
            if not isinstance(node, dict):
                continue
            known = self.shared.get(id(node))
            if known is not None and (known or not shared):
                continue
            shared = self.shared[id(node)] = shared or speaks_twice(node)
            found.append(node)
            waiting += [(child, shared) for child in joined(node)]
            waiting.append((self.resolve(node.get("$ref")), shared))
            beside = shared or "patternProperties" in node
            waiting += [(child, beside) for child in inner_of(node)]
        self._refuse_circles(found)

    def _refuse_circles(self, nodes: list[dict[str, Any]]) -> None:
        """Refuse what refers to itself for the same value, which no two validators read alike."""
        around = {
            id(node): [*joined(node), self.resolve(node.get("$ref"))]
            for node in nodes
            if any(word in node for word in JOINING)
        }
        while True:
            settled = [
                key
                for key, parts in around.items()
                if not any(id(part) in around for part in parts)
            ]
            if not settled:
                break
            for key in settled:
                del around[key]
        for node in nodes:
            if id(node) in around and "$ref" in node:
                raise Unheld("$ref", "", f"{node['$ref']} refers to itself for the same value")

    def rewrite(self, node: Any, path: str, shared: bool, depth: int) -> Any:
        """``node`` made narrower; ``shared`` where others speak of the same value."""
        if depth > MOST_DEPTH:
            raise Unheld("properties", path, f"it lies more than {MOST_DEPTH} deep")
        if node is False:
            return False
        if node is True or not isinstance(node, dict) or not says_something(node):
            return node if shared or self.bounds is None else self._any(node)
        shared = shared or self.shared.get(id(node), False)
        node = in_other_words(node, path)
        if not shared and not any(word in node for word in (*JOINING, "enum", "const")):
            kinds = kinds_of(node)
            if len(kinds) > 1:
                says = {k: v for k, v in node.items() if k not in OWN and k not in NAMED_PARTS}
                each = [
                    self.rewrite(only_about(node, kind), path, shared, depth + 1) for kind in kinds
                ]
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
                self.lists += key == "patternProperties"
                made[key] = {
                    name: self.rewrite(child, f"{at}/{name}", beside, depth + 1)
                    for name, child in value.items()
                }
                self.lists -= key == "patternProperties"
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
                self.lists += key in _OF_MANY
                made[key] = self.rewrite(value, at, beside, depth + 1)
                self.lists -= key in _OF_MANY
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
            raise Unheld("oneOf", path, f"alternative {apart} overlaps another; {ADVICE['oneOf']}")
        shared = shared or speaks_twice(node)
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
            bound_text(made, node, self._text(self.bounds), self.bounds)
        elif kind == "array":
            self._bound_items(made, node, self.bounds, shared)
        elif kind == "integer":
            bound_integer(made)
        elif kind == "number":
            bound_number(made)
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
        most = between(2, tokens // (LEAF_TOKENS * self._leaves(node.get("items"))), 32)
        own = made.get("maxItems")
        if not bounds.ends_list(own):
            made["maxItems"] = min(max(least, start + most), inf if own is None else own)

    def _text(self, bounds: Bounds) -> int:
        return max(32, bounds.text >> (2 * self.lists))

    def _leaves(self, node: Any, depth: int = 0) -> int:
        """About how many values one value of ``node`` holds."""
        if node is False or depth > 4:
            return 1
        if not isinstance(node, dict) or not says_something(node):
            return ANY_LEAVES
        inner = [*inner_of(node), *joined(node), self.resolve(node.get("$ref"))]
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
            made["patternProperties"] = {NAME: value}
            made["additionalProperties"] = False
        elif others is None:
            made["additionalProperties"] = False
        if patterned and len(patterned) == 1 and made["additionalProperties"] is False:
            ((pattern, value),) = made["patternProperties"].items()
            made["patternProperties"] = {short_name(pattern): value}
        made.setdefault("maxProperties", max(node.get("minProperties") or 0, bounds.names))

    def _any(self, node: Any) -> dict[str, Any]:
        """Any JSON value, within bounds; what ``node`` remarks is kept."""
        if self.bounds is None:
            return node if isinstance(node, dict) else {}
        self.wants_any = True
        rest = node if isinstance(node, dict) else {}
        depth = 1 if self.lists else self.bounds.depth
        return {**rest, "$ref": f"#/$defs/{ANY.format(depth)}"}


def _format(made: dict[str, Any], node: dict[str, Any]) -> None:
    """The format as a pattern of ours; one that no validator checks is left out as a remark."""
    name = node["format"]
    own = PATTERNS.get(name) if isinstance(name, str) else None
    if own is None or "string" not in kinds_of(node):
        return
    ours = f"^(?:{own})$"
    if "pattern" not in node:
        made["pattern"] = ours
    elif name in NATIVE:
        made["format"] = name
    else:
        made["allOf"] = [*made.get("allOf", []), {"pattern": ours}]
