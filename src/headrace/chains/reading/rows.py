"""What a row is, and whose it is: its own id, or one that is made of its content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from attrs import field, frozen

from headrace.chains.values import as_json

_ID_BYTES = 8
_MOST_RAW = 2000


@frozen
class Row:
    """One row of the input. ``wrong`` says why it could not be read; ``id`` is its own or made of it.

    ``beside`` are further columns of its results.
    """

    number: int
    id: str | int
    value: Mapping[str, Any]
    wrong: str | None = None
    beside: Mapping[str, Mapping[str, Any]] = field(factory=dict)


@frozen
class Wrong:
    """What stands in a row's place that cannot be read: why, what of it can be shown, and which of
    its columns could be read."""

    said: str
    raw: str = ""
    found: Mapping[str, Any] = field(factory=dict)


def rows_of(values: Iterable[Mapping[str, Any]], *, id_column: str = "id") -> Iterator[Row]:
    """Rows that are there already, as far as JSON can say them."""
    return identified(map(_sayable, values), id_column)


def identified(values: Iterable[object], id_column: str) -> Iterator[Row]:
    """``values`` as rows: mappings that JSON can say, or Wrong in the place of one."""
    for number, value in enumerate(values):
        if isinstance(value, Wrong):
            own = _own_id(value.found, id_column)
            made = _made_id(value.raw) if own is None else own
            yield Row(number, made, {"raw": value.raw}, value.said)
        elif not isinstance(value, Mapping):
            said = f"the row is {type(value).__name__}, must be an object"
            yield Row(number, _made_id(value), {"raw": value}, said)
        else:
            own = _own_id(value, id_column)
            yield Row(number, _made_id(value) if own is None else own, value)


def shown(value: object) -> str:
    """As much of ``value`` as an error tells, whatever stands in it."""
    if isinstance(value, bytes):
        return value[:_MOST_RAW].decode(errors="replace")
    text = value if isinstance(value, str) else repr(value)
    return text[:_MOST_RAW].encode(errors="backslashreplace").decode()


def _sayable(value: object) -> object:
    try:
        as_json(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Wrong(f"JSON cannot say the row: {error}", shown(value))
    return value


def _own_id(value: Mapping[str, Any], column: str) -> str | int | None:
    own = value.get(column)
    return own if isinstance(own, int | str) and not isinstance(own, bool) else None


def _made_id(value: object) -> str:
    return blake2b(as_json(value), digest_size=_ID_BYTES).hexdigest()
