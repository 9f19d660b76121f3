"""What JSON cannot say of Arrow's values, and what is said in its place.

Instants, dates and times are ISO 8601 text (UTC where they have a zone, with as many digits as they
need), durations are seconds as ISO 8601 text, decimals exact text, bytes base64, a map with text for
keys an object and any other a list of pairs; a number that is none (NaN) is null. An infinity, and an
instant that no calendar has, make their row one that failed.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from headrace.contracts.errors import LLMInvalidRequestError

_Say: TypeAlias = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400


class Saying:
    """How the rows of ``schema`` are said; raises LLMInvalidRequestError for a type without a way."""

    def __init__(self, schema: Any, place: str, pa: Any) -> None:
        twice = [name for at, name in enumerate(schema.names) if name in schema.names[:at]]
        if twice:
            raise LLMInvalidRequestError(
                f"{place} has the column {twice[0]!r} twice; give one another name", param="input"
            )
        self._pa, self._place = pa, place
        self._bare = pa.schema([(each.name, self._bare_of(each.type)) for each in schema])
        ways = ((each.name, self._way(each.type, each.name)) for each in schema)
        self._ways = {name: way for name, way in ways if way is not None}

    def rows(self, batch: Any) -> list[dict[str, Any]]:
        """The rows of ``batch``, as JSON can say them."""
        batch.validate(full=True)
        wanted = [self._bare.field(name) for name in batch.schema.names]
        # Arrow's own Python values of time lose digits, or need pandas: we take the count behind it.
        columns = [
            column if column.type == one.type else column.cast(one.type)
            for column, one in zip(batch.columns, wanted, strict=True)
        ]
        lists = [
            column.to_pylist()
            if (way := self._ways.get(one.name)) is None
            else [None if each is None else way(each) for each in column.to_pylist()]
            for column, one in zip(columns, wanted, strict=True)
        ]
        names = batch.schema.names
        if not names:
            return [{} for _ in range(batch.num_rows)]
        return [dict(zip(names, cells, strict=True)) for cells in zip(*lists, strict=True)]

    def _bare_of(self, kind: Any) -> Any:
        pa, types = self._pa, self._pa.types
        if types.is_date32(kind) or types.is_time32(kind):
            return pa.int32()
        if types.is_temporal(kind):
            return pa.int64()
        if types.is_dictionary(kind):
            return self._bare_of(kind.value_type)
        return self._bare_nested(kind) if types.is_nested(kind) else kind

    def _bare_nested(self, kind: Any) -> Any:
        pa, types = self._pa, self._pa.types
        if types.is_map(kind):
            return pa.map_(self._bare_of(kind.key_type), self._bare_of(kind.item_type))
        if types.is_struct(kind):
            return pa.struct([(each.name, self._bare_of(each.type)) for each in kind])
        if types.is_fixed_size_list(kind):
            return pa.list_(self._bare_of(kind.value_type), kind.list_size)
        if hasattr(kind, "value_type"):
            make = pa.large_list if types.is_large_list(kind) else pa.list_
            return make(self._bare_of(kind.value_type))
        return kind

    def _way(self, kind: Any, name: str) -> _Say | None:
        """From what Arrow gives to what is said; None where that is the same."""
        types = self._pa.types
        if types.is_dictionary(kind):
            return self._way(kind.value_type, name)
        if types.is_map(kind):
            return self._map(kind, name)
        if types.is_struct(kind):
            return _struct({each.name: self._way(each.type, name) for each in kind})
        if types.is_nested(kind) and hasattr(kind, "value_type"):
            inner = self._way(kind.value_type, name)
            return None if inner is None else _list(inner)
        return self._simple(kind, name)

    def _simple(self, kind: Any, name: str) -> _Say | None:
        types = self._pa.types
        ways: tuple[tuple[Callable[[Any], bool], Callable[[Any], _Say | None]], ...] = (
            (types.is_floating, lambda _: _number),
            (types.is_decimal, lambda _: _decimal),
            (types.is_timestamp, _instant),
            (types.is_date32, lambda _: _day),
            (types.is_date64, lambda _: lambda count: _day(count // (_DAY_S * 1000))),
            (types.is_time, _time),
            (types.is_duration, _duration),
            (types.is_binary, lambda _: _base64),
            (types.is_large_binary, lambda _: _base64),
            (types.is_binary_view, lambda _: _base64),
            (types.is_fixed_size_binary, lambda _: _base64),
            (types.is_integer, _same),
            (types.is_boolean, _same),
            (types.is_null, _same),
            (types.is_string, _same),
            (types.is_large_string, _same),
            (types.is_string_view, _same),
        )
        for is_one, way in ways:
            if is_one(kind):
                return way(kind)
        raise LLMInvalidRequestError(
            f"{self._place}: the column {name!r} is of type {kind}, which JSON cannot say; leave it "
            "out",
            param="input",
        )

    def _map(self, kind: Any, name: str) -> _Say:
        types = self._pa.types
        key, item = self._way(kind.key_type, name), self._way(kind.item_type, name)
        is_text = types.is_string(kind.key_type) or types.is_large_string(kind.key_type)

        def say(pairs: list[tuple[Any, Any]]) -> Any:
            said = [(_said(key, one), _said(item, other)) for one, other in pairs]
            keys = {one for one, _ in said} if is_text else set()
            return dict(said) if is_text and len(keys) == len(said) else [list(p) for p in said]

        return say


def _same(_: Any) -> None:
    return None


def _said(way: _Say | None, value: Any) -> Any:
    return value if way is None or value is None else way(value)


def _struct(ways: dict[str, _Say | None]) -> _Say | None:
    if not any(ways.values()):
        return None
    return lambda value: {name: _said(ways[name], each) for name, each in value.items()}


def _list(way: _Say) -> _Say:
    return lambda values: [_said(way, each) for each in values]


def _number(value: float) -> float | None:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    raise ValueError(f"{value} is no number that JSON can say")


def _decimal(value: Decimal) -> str:
    return format(value, "f")


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _day(count: int) -> str:
    try:
        return (date(1970, 1, 1) + timedelta(days=count)).isoformat()
    except OverflowError as error:
        raise ValueError(f"day {count} since 1970 is in no calendar year of 1 to 9999") from error


def _instant(kind: Any) -> _Say:
    per_second, zone = _PER_SECOND[kind.unit], "" if kind.tz is None else "Z"

    def say(count: int) -> str:
        seconds, rest = divmod(count, per_second)
        try:
            whole = (_EPOCH + timedelta(seconds=seconds)).isoformat()
        except OverflowError as error:
            raise ValueError(
                f"second {seconds} since 1970 is in no calendar year of 1 to 9999"
            ) from error
        return whole + _digits(rest, per_second) + zone

    return say


def _time(kind: Any) -> _Say:
    per_second = _PER_SECOND[kind.unit]

    def say(count: int) -> str:
        seconds, rest = divmod(count, per_second)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        return f"{hour:02}:{minute:02}:{second:02}{_digits(rest, per_second)}"

    return say


def _duration(kind: Any) -> _Say:
    per_second = _PER_SECOND[kind.unit]

    def say(count: int) -> str:
        seconds, rest = divmod(abs(count), per_second)
        return f"{'-' if count < 0 else ''}PT{seconds}{_digits(rest, per_second)}S"

    return say


def _digits(rest: int, per_second: int) -> str:
    if not rest:
        return ""
    return "." + str(rest).zfill(len(str(per_second)) - 1).rstrip("0")
