"""Protocol buffers, as far as the messages of KServe's protocol need them, from tables of fields.

https://protobuf.dev/programming-guides/encoding. A message is a dict by its fields' names; what has
its default is left out, as proto3 does, unless it is one of several of which only one may be there.
Fields that a table does not have are skipped.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError

Kind: TypeAlias = Literal[
    "bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes"
]
Message: TypeAlias = dict[str, Any]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES: Mapping[str, int] = {
    "bool": _VARINT,
    "int32": _VARINT,
    "int64": _VARINT,
    "uint32": _VARINT,
    "uint64": _VARINT,
    "float": _FIXED32,
    "double": _FIXED64,
    "string": _LENGTH,
    "bytes": _LENGTH,
}
_FIXED: Mapping[str, tuple[str, int]] = {"float": ("f", 4), "double": ("d", 8)}


@frozen
class Field:
    """One field: its number, name and ``kind``, which may be a table; ``shown`` says that it is
    written although it has its default."""

    number: int
    name: str
    kind: Kind | Table
    repeated: bool = False
    shown: bool = False


@frozen(eq=False)
class Table:
    """The fields of a message. ``entries`` marks the pairs of a map, by ``key`` and ``value``."""

    fields: tuple[Field, ...]
    entries: bool = False
    by_number: Mapping[int, Field] = field(init=False, repr=False)

    @by_number.default
    def _numbered(self) -> Mapping[int, Field]:
        return {each.number: each for each in self.fields}


def map_of(value: Table) -> Table:
    """The table of a map from texts to messages of ``value``."""
    return Table((Field(1, "key", "string"), Field(2, "value", value, shown=True)), entries=True)


def decode(table: Table, data: bytes) -> Message:
    """The message in ``data``; LLMInvalidRequestError where it is none."""
    found: Message = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        known = table.by_number.get(number)
        if known is None:
            at = _skip(data, at, wire_type)
            continue
        at = _read_field(known, wire_type, data, at, found)
    return found


def encode(table: Table, message: Mapping[str, Any]) -> bytes:
    """``message`` as bytes."""
    pieces: list[bytes] = []
    for each in table.fields:
        value = message.get(each.name)
        if value is None:
            continue
        if isinstance(each.kind, Table):
            _write_messages(each, each.kind, value, pieces)
        elif each.repeated:
            _write_repeated(each.number, each.kind, value, pieces)
        elif value or each.shown:
            pieces.append(_tag(each.number, _WIRE_TYPES[each.kind]) + _one(each.kind, value))
    return b"".join(pieces)


def _read_field(known: Field, wire_type: int, data: bytes, at: int, found: Message) -> int:
    kind = known.kind
    if isinstance(kind, Table):
        raw, at = _read_length(data, at, wire_type)
        inner = decode(kind, raw)
        if kind.entries:
            found.setdefault(known.name, {})[inner.get("key", "")] = inner.get("value", {})
        elif known.repeated:
            found.setdefault(known.name, []).append(inner)
        else:
            found[known.name] = inner
        return at
    if known.repeated and wire_type == _LENGTH and _WIRE_TYPES[kind] != _LENGTH:
        raw, at = _read_length(data, at, wire_type)
        found.setdefault(known.name, []).extend(_unpacked(kind, raw))
        return at
    value, at = _read_one(kind, wire_type, data, at)
    if known.repeated:
        found.setdefault(known.name, []).append(value)
    else:
        found[known.name] = value
    return at


def _read_one(kind: Kind, wire_type: int, data: bytes, at: int) -> tuple[Any, int]:
    if wire_type != _WIRE_TYPES[kind]:
        raise _broken(f"a field of {kind} has the wire type {wire_type}")
    if wire_type == _VARINT:
        raw, at = _read_varint(data, at)
        return _of_varint(kind, raw), at
    if wire_type == _LENGTH:
        raw_bytes, at = _read_length(data, at, wire_type)
        return (_text(raw_bytes) if kind == "string" else raw_bytes), at
    code, size = _FIXED[kind]
    if at + size > len(data):
        raise _broken("it ends within a number")
    return struct.unpack_from(f"<{code}", data, at)[0], at + size


def _unpacked(kind: Kind, raw: bytes) -> Sequence[Any]:
    if kind in _FIXED:
        code, size = _FIXED[kind]
        if len(raw) % size:
            raise _broken("packed numbers end within one")
        values = array(code)
        values.frombytes(raw)
        if sys.byteorder == "big":
            values.byteswap()
        return values
    found, at = [], 0
    if raw.isascii() and kind != "bool":
        return list(raw)  # each is a number of its own
    while at < len(raw):
        value, at = _read_varint(raw, at)
        found.append(_of_varint(kind, value))
    return found


def _of_varint(kind: Kind, raw: int) -> int | bool:
    if kind == "bool":
        return raw != 0
    if kind in ("int32", "int64"):
        bits = 32 if kind == "int32" else 64
        raw &= (1 << bits) - 1
        return raw - (1 << bits) if raw >> (bits - 1) else raw
    return raw & 0xFFFFFFFF if kind == "uint32" else raw


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _broken("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise _broken("a number is longer than ten bytes")


def _read_length(data: bytes, at: int, wire_type: int) -> tuple[bytes, int]:
    if wire_type != _LENGTH:
        raise _broken(f"a field of bytes has the wire type {wire_type}")
    length, at = _read_varint(data, at)
    if at + length > len(data):
        raise _broken("a field is longer than the message")
    return data[at : at + length], at + length


def _skip(data: bytes, at: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return _read_varint(data, at)[1]
    if wire_type == _LENGTH:
        return _read_length(data, at, wire_type)[1]
    size = {_FIXED32: 4, _FIXED64: 8}.get(wire_type)
    if size is None or at + size > len(data):
        raise _broken(f"a field has the wire type {wire_type}")
    return at + size


def _write_messages(known: Field, table: Table, value: Any, pieces: list[bytes]) -> None:
    if table.entries:
        inners = [{"key": key, "value": each} for key, each in value.items()]
    else:
        inners = list(value) if known.repeated else [value]
    for inner in inners:
        raw = encode(table, inner)
        pieces.append(_tag(known.number, _LENGTH) + _varint(len(raw)) + raw)


def _write_repeated(number: int, kind: Kind, values: Sequence[Any], pieces: list[bytes]) -> None:
    if _WIRE_TYPES[kind] == _LENGTH:
        pieces += [_tag(number, _LENGTH) + _one(kind, each) for each in values]
    elif len(values):
        raw = b"".join(_one(kind, each) for each in values)
        pieces.append(_tag(number, _LENGTH) + _varint(len(raw)) + raw)


def _one(kind: Kind, value: Any) -> bytes:
    if kind in _FIXED:
        return struct.pack(f"<{_FIXED[kind][0]}", value)
    if kind == "string":
        value = value.encode()
    if kind in ("string", "bytes"):
        return _varint(len(value)) + bytes(value)
    return _varint(int(value) & 0xFFFFFFFFFFFFFFFF)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _broken("a text is not UTF-8") from error


def _broken(what: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"The request is no protocol buffer of its kind: {what}.")
