"""What comes to each node of a chain, as far as types tell, and whether it can be taken there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

from headrace.chains.fitting import fields_of, misfit
from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Reduce, Step, schema_of
from headrace.contracts.errors import LLMInvalidRequestError

Schema: TypeAlias = Mapping[str, Any]
_TEXT: Schema = {"type": "string"}


@frozen
class Way:
    """One way on which values come: the node that gave them (None: the input) and their type."""

    origin: str | None
    schema: Schema | None


Ways: TypeAlias = tuple[Way, ...]


@frozen
class Passage:
    """What comes to a node and what leaves it."""

    before: Ways
    after: Ways


def passages_of(path: Path) -> dict[str, Passage]:
    """For each node of ``path``, by its id.

    Raises LLMInvalidRequestError, naming node and field, where nothing that comes can be taken.
    """
    found: dict[str, Passage] = {}
    _through(path, (Way(None, None),), found)
    return found


def wanted_by(node: Node) -> Schema | None:
    """The type that ``node`` takes; None: anything."""
    if isinstance(node, Step):
        wanted = node.input
    elif isinstance(node, Apply | Reduce | Branch):
        wanted = node.takes
    else:
        return None
    return None if wanted is None else _schema(wanted, f"{node.id}.input")


def fields_before(passage: Passage) -> frozenset[str] | None:
    """The fields that what comes may have, on any way; None, where that is not known."""
    found: set[str] = set()
    for way in passage.before:
        fields = None if way.schema is None else fields_of(way.schema)
        if fields is None:
            return None
        found |= fields
    return frozenset(found)


def _through(path: Path, ways: Ways, found: dict[str, Passage]) -> Ways:
    places = path.places
    for at, place in enumerate(places):
        join = places[at + 1] if at + 1 < len(places) else None
        if isinstance(place, Group):
            ends = {name: _through(each, ways, found) for name, each in place.ways.items()}
            if isinstance(join, Join):
                needs = frozenset() if join.partial else frozenset(ends)
                found[join.id] = _joined(join, ends, needs, place.ways)
                ways = found[join.id].after
            else:
                ways = _together(ends)
        elif isinstance(place, Join):
            continue
        else:
            before, ways = ways, _after(place, ways)
            found[place.id] = Passage(before, ways)
            if isinstance(place, Branch):
                paths = {name: Path.of(each) for name, each in place.paths.items()}
                ends = {name: _through(each, before, found) for name, each in paths.items()}
                if isinstance(join, Join):
                    # A value went down one path, so one of the names is there.
                    found[join.id] = _joined(join, ends, frozenset(), paths)
                    ways = found[join.id].after
                else:
                    ways = _together(ends)
    return ways


def _after(node: Node, before: Ways) -> Ways:
    _check(node, before)
    if isinstance(node, Step):
        after = _TEXT if node.output is None else _schema(node.output, f"{node.id}.output")
        return (Way(node.id, after),)
    if isinstance(node, Apply) and node.how == "filter":
        return before
    if isinstance(node, Reduce) and node.function is None:
        return (Way(node.id, _list_of(before)),)
    if isinstance(node, Apply | Reduce):
        gives = node.gives
        return (Way(node.id, None if gives is None else _schema(gives, f"{node.id}.output")),)
    return before


def _check(node: Node, before: Ways) -> None:
    wanted = wanted_by(node)
    if wanted is None:
        return
    for way in before:
        why = None if way.schema is None else misfit(way.schema, wanted)
        if why is not None:
            raise LLMInvalidRequestError(
                f"{node.id}.input cannot be what {way.origin} gives: {why}",
                param=f"{node.id}.input",
            )


def _joined(
    join: Join, ends: Mapping[str, Ways], needs: frozenset[str], paths: Mapping[str, Path]
) -> Passage:
    parts = _Parts()
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: parts.one_of(end, several=_fans_out(paths[name])) for name, end in ends.items()
        },
        "required": sorted(needs),
        "additionalProperties": False,
        **parts.definitions(),
    }
    return Passage(_together(ends), (Way(join.id, schema),))


def _list_of(ways: Ways) -> Schema:
    parts = _Parts()
    items = parts.one_of(ways, several=False)
    return {"type": "array", "items": items, **parts.definitions()}


class _Parts:
    """Schemas on their way into another one, where their references must lead to the same."""

    def __init__(self) -> None:
        self._kept: dict[str, Schema] = {}

    def one_of(self, ways: Ways, *, several: bool) -> Schema:
        """The type of what came on any of ``ways``; of anything where it may be a list of such."""
        known = [way.schema for way in ways if way.schema is not None]
        if several or len(known) < len(ways):
            return {}
        found = [self._part(each) for each in known]
        return found[0] if len(found) == 1 else {"anyOf": found}

    def definitions(self) -> dict[str, Any]:
        """What the parts refer to; it belongs to the root of what they became a part of."""
        return {"$defs": self._kept} if self._kept else {}

    def _part(self, schema: Schema) -> Schema:
        if not _refers(schema):
            return schema
        name = f"part{len(self._kept)}"
        self._kept[name] = _moved(schema, f"#/$defs/{name}")
        return {"$ref": f"#/$defs/{name}"}


def _refers(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "$ref" in node or any(map(_refers, node.values()))
    return isinstance(node, list) and any(map(_refers, node))


def _moved(node: Any, root: str) -> Any:
    if isinstance(node, list):
        return [_moved(each, root) for each in node]
    if not isinstance(node, Mapping):
        return node
    moved = {key: _moved(value, root) for key, value in node.items()}
    target = node.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        moved["$ref"] = root + target[1:]
    return moved


def _together(ends: Mapping[str, Ways]) -> Ways:
    found: list[Way] = []
    for end in ends.values():
        found += [way for way in end if way not in found]
    return tuple(found)


def _fans_out(path: Path) -> bool:
    """Whether one value may become several on it."""
    for place in path.places:
        if isinstance(place, Group) or (isinstance(place, Apply) and place.how == "many"):
            return True
        if isinstance(place, Branch) and any(
            _fans_out(Path.of(way)) for way in place.paths.values()
        ):
            return True
    return False


def _schema(output: Any, place: str) -> Schema:
    try:
        return schema_of(output)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{place}: {error.message}", param=place) from error
