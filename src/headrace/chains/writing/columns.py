"""Columns of a Parquet file: what type each has, from a JSON Schema or from values, and what fits it.

What a schema leaves open (an object of any fields, one of several types) is a column of JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from headrace.chains.values import as_json

_MOST_DEEP = 20
_MOST_FIELDS = (
    200  # an object of more different ones in the first rows is a map, whose keys are data
)
_INT64 = range(-(1 << 63), 1 << 63)


class Misfit(Exception):
    """A value that does not fit its column: where in it, and what it is."""

    def __init__(self, place: str, value: object, wanted: str) -> None:
        super().__init__(f"{place} is {value!r:.200}, and that column holds {wanted}")


class Column(Protocol):
    """The type of a column."""

    def arrow(self, pa: Any) -> Any:
        """It in Arrow's types."""

    def fit(self, value: Any, place: str) -> Any:
        """``value`` as Arrow takes it; raises Misfit."""


@frozen
class Plain:
    """``text``, ``whole numbers``, ``numbers`` or ``true or false``."""

    what: str

    def arrow(self, pa: Any) -> Any:
        return {
            "text": pa.string,
            "whole numbers": pa.int64,
            "numbers": pa.float64,
            "true or false": pa.bool_,
        }[self.what]()

    def fit(self, value: Any, place: str) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.what == "text" and isinstance(value, str):
            return value
        if self.what == "true or false" and isinstance(value, bool):
            return value
        if self.what == "numbers" and is_number:
            return float(value)
        if self.what == "whole numbers" and is_number and value == int(value):
            if int(value) in _INT64:
                return int(value)
            raise Misfit(place, value, "whole numbers of 64 bits")
        raise Misfit(place, value, self.what)


@frozen
class Json:
    """Any value, as JSON text."""

    def arrow(self, pa: Any) -> Any:
        return pa.string()

    def fit(self, value: Any, place: str) -> Any:
        return as_json(value).decode()


@frozen
class Listed:
    """A list."""

    each: Column

    def arrow(self, pa: Any) -> Any:
        return pa.list_(self.each.arrow(pa))

    def fit(self, value: Any, place: str) -> Any:
        if not isinstance(value, list | tuple):
            raise Misfit(place, value, "lists")
        return [
            None if one is None else self.each.fit(one, f"{place}[{at}]")
            for at, one in enumerate(value)
        ]


@frozen
class Fields:
    """An object of known fields."""

    each: Mapping[str, Column]

    def arrow(self, pa: Any) -> Any:
        return pa.struct([(name, one.arrow(pa)) for name, one in self.each.items()])

    def fit(self, value: Any, place: str) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(place, value, "objects")
        dot = f"{place}." if place else ""
        for name in value:
            if name not in self.each:
                raise Misfit(f"{dot}{name}", value[name], "no such field")
        return {
            name: None if value[name] is None else one.fit(value[name], f"{dot}{name}")
            for name, one in self.each.items()
            if name in value
        }


@frozen
class Id:
    """Ids of rows, of which some are text: then all are."""

    def arrow(self, pa: Any) -> Any:
        return pa.string()

    def fit(self, value: Any, place: str) -> Any:
        return str(value)


TEXT, JSON, ID = Plain("text"), Json(), Id()
COLUMNS = (Plain, Json, Listed, Fields)
_SCALARS = {
    "string": TEXT,
    "integer": Plain("whole numbers"),
    "number": Plain("numbers"),
    "boolean": Plain("true or false"),
}
_TYPES: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("boolean", bool),
    ("integer", int),
    ("number", float),
    ("array", (list, tuple)),
    ("object", Mapping),
)


def column_of(schema: object, whole: Mapping[str, Any], deep: int = 0) -> Column:
    """The column for what ``schema``, a part of ``whole``, describes."""
    if not isinstance(schema, Mapping) or deep > _MOST_DEEP:
        return JSON
    if (other := _other_for(schema, whole)) is not schema:
        return column_of(other, whole, deep + 1)
    kind = _one_kind(schema.get("type"))
    if kind is None:
        return _of_enum(schema)
    if kind == "array":
        return Listed(column_of(schema.get("items"), whole, deep + 1))
    fields = schema.get("properties")
    is_open = schema.get("additionalProperties") not in (None, False)
    if kind == "object" and fields and not is_open:
        return Fields({name: column_of(one, whole, deep + 1) for name, one in fields.items()})
    return _SCALARS.get(kind, JSON)


def _one_kind(said: object) -> str | None:
    kinds = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    kinds = [kind for kind in kinds if kind != "null"]
    return str(kinds[0]) if len(kinds) == 1 else None


def _other_for(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> object:
    """What ``schema`` stands for, where it points to another or only allows null beside it."""
    if "$ref" in schema:
        return _pointed(str(schema["$ref"]), whole)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            left = [one for one in schema[several] if one != {"type": "null"}]
            return left[0] if len(left) == 1 else None
    return schema


def column_for(values: Iterable[Any], place: str) -> Column:
    """The column that all ``values`` fit; raises Misfit where there is none."""
    given = [value for value in values if value is not None]
    kinds = {_kind(value) for value in given}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) > 1:
        first = _kind(given[0])
        other = next(value for value in given if _kind(value) != first)
        raise Misfit(place, other, f"what is as {given[0]!r:.100}")
    kind = kinds.pop() if kinds else "string"
    if kind == "array":
        return Listed(column_for((one for value in given for one in value), f"{place}[]"))
    if kind == "object":
        names = dict.fromkeys(name for value in given for name in value)
        if not names or len(names) > _MOST_FIELDS:
            return JSON
        return Fields({n: column_for((v.get(n) for v in given), f"{place}.{n}") for n in names})
    return _SCALARS[kind]


def _kind(value: object) -> str:
    for kind, types in _TYPES:
        if isinstance(value, types):
            return kind
    return "string"


def all_whole(values: Iterable[Any]) -> bool:
    """Whether they are whole numbers."""
    return all(_kind(value) == "integer" for value in values)


def fields_of(schema: Mapping[str, Any] | None) -> Mapping[str, Column] | None:
    """The columns of an object that ``schema`` describes; None where it describes none."""
    found = None if schema is None else column_of(schema, schema)
    return found.each if isinstance(found, Fields) else None


def _of_enum(schema: Mapping[str, Any]) -> Column:
    values: Sequence[Any] = schema.get("enum") or ([schema["const"]] if "const" in schema else ())
    return TEXT if values and all(isinstance(value, str | None) for value in values) else JSON


def _pointed(pointer: str, whole: Mapping[str, Any]) -> object:
    found: Any = whole
    for part in pointer.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
