"""Tensors as bytes and as JSON, each way; the formats that hold them are elsewhere.

The bytes are those of the Open Inference Protocol's raw contents, which Triton's binary extension
has too: little-endian, row by row, nothing in between; an element of BYTES has its length before it
as four bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.inference import DATATYPES, Datatype, Tensor

_SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}
_CODES = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
_FLOATS = {"FP16", "FP32", "FP64", "BF16"}
MOST_DIMENSIONS = 64
MOST_ELEMENTS = 2**31

# What numpy and its like call their types.
_BY_DTYPE: dict[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


def tensor_of(name: str, values: Any, datatype: Datatype | None = None) -> Tensor:
    """A tensor of nested lists, or of an array with ``shape``, ``dtype`` and ``tolist`` (numpy's).

    Without ``datatype``, an array's own is used; of lists, whole numbers are INT64, others FP32,
    truth values BOOL, texts and bytes BYTES. Raises LLMInvalidRequestError where rows are of
    different lengths, or elements of different kinds.
    """
    dtype = str(getattr(values, "dtype", ""))
    if hasattr(values, "tolist"):
        datatype = datatype or _BY_DTYPE.get(dtype)
        values = values.tolist()
    shape = _shape(name, values)
    flat = _flat(values, len(shape))
    return Tensor(name=name, datatype=datatype or _kind(name, flat), shape=shape, data=flat)


def pack(tensor: Tensor) -> bytes:
    """The elements of ``tensor`` as raw bytes."""
    datatype, data = tensor.datatype, tensor.data
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in data)
    if datatype == "BOOL":
        return bytes(data)
    if datatype == "FP16":
        try:
            return struct.pack(f"<{len(data)}e", *data)
        except OverflowError as error:
            raise LLMInvalidRequestError(
                f"tensor {tensor.name!r}: an element is too large for FP16", param=tensor.name
            ) from error
    if datatype == "BF16":
        return _to_bf16(data)
    code = _CODES[datatype]
    values = data if isinstance(data, array) and data.typecode == code else array(code, data)
    return _little(values).tobytes()


def unpack(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """The tensor whose elements are ``raw``; LLMInvalidRequestError where they cannot be."""
    count = _check_shape(name, datatype, shape)
    size = _SIZES.get(datatype)
    if size is not None and len(raw) != count * size:
        raise _wrong(
            name,
            f"shape {list(shape)} of {datatype} takes {count * size} bytes, but there are {len(raw)}",
        )
    data: Sequence[Any]
    if datatype == "BYTES":
        data = _unpack_bytes(name, raw)
    elif datatype == "BOOL":
        if raw.translate(None, b"\0\1"):
            raise _wrong(name, "a BOOL is a byte 0 or 1")
        data = tuple(map(bool, raw))
    elif datatype == "FP16":
        data = array("f", struct.unpack(f"<{count}e", raw))
    elif datatype == "BF16":
        data = _from_bf16(raw)
    else:
        values: array[Any] = array(_CODES[datatype])
        values.frombytes(raw)
        data = _little(values)
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=data)  # type: ignore[arg-type]


def to_json(tensor: Tensor) -> list[Any]:
    """The elements of ``tensor`` as a flat list; LLMInvalidRequestError where JSON cannot say them."""
    if tensor.datatype != "BYTES":
        if tensor.datatype in _FLOATS and not all(map(math.isfinite, tensor.data)):
            raise LLMInvalidRequestError(
                f"tensor {tensor.name!r}: JSON has no words for numbers that are not finite; ask for "
                "binary data",
                param=tensor.name,
            )
        return list(tensor.data)
    try:
        return [each.decode() for each in tensor.data]
    except UnicodeDecodeError as error:
        raise LLMInvalidRequestError(
            f"tensor {tensor.name!r}: its bytes are no UTF-8, and JSON holds text alone; ask for "
            "binary data",
            param=tensor.name,
        ) from error


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """The tensor whose elements ``data`` has, flat or in lists as its shape says."""
    count = _check_shape(name, datatype, shape)
    if type(data) is not list:
        raise _wrong(name, f"its data are a {type(data).__name__}, must be an array")
    flat: list[Any] = data
    for _ in range(MOST_DIMENSIONS):
        if not (flat and type(flat[0]) is list):
            break
        if not all(type(each) is list for each in flat):
            raise _wrong(name, "its data mix arrays and elements")
        flat = [each for row in flat for each in row]
    if len(flat) != count:
        raise _wrong(
            name, f"shape {list(shape)} has {count} elements, but its data have {len(flat)}"
        )
    if datatype in _FLOATS:
        flat = [float(each) if type(each) is int else each for each in flat]
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=flat)  # type: ignore[arg-type]


def _check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """How many elements there have to be."""
    if datatype not in DATATYPES:
        raise _wrong(name, f"datatype is {datatype[:40]!r}, must be one of {', '.join(DATATYPES)}")
    if len(shape) > MOST_DIMENSIONS:
        raise _wrong(name, f"it has {len(shape)} dimensions, must be at most {MOST_DIMENSIONS}")
    for size in shape:
        if type(size) is not int or size < 0:
            raise _wrong(name, f"shape has {str(size)[:40]}, must be whole numbers from 0")
    count = prod(shape)
    if count > MOST_ELEMENTS:
        raise _wrong(name, f"shape {list(shape)} has {count} elements, must be fewer")
    return count


def _unpack_bytes(name: str, raw: bytes) -> tuple[bytes, ...]:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise _wrong(name, "its data end within the length of an element")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise _wrong(name, f"an element of {length} bytes is longer than its data")
        found.append(raw[at : at + length])
        at += length
    return tuple(found)


def _to_bf16(data: Iterable[float]) -> bytes:
    """The upper halves of 32-bit floats, rounded to the nearest, a tie to the even one."""
    wide = array("I", array("f", data).tobytes())
    halves = array("H")
    for bits in wide:
        if bits & 0x7FFFFFFF > 0x7F800000:  # no number: stays none, whatever is cut off
            halves.append((bits >> 16) | 0x40)
        else:
            halves.append(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF)
    return _little(halves).tobytes()


def _from_bf16(raw: bytes) -> array[float]:
    halves = array("H")
    halves.frombytes(raw)
    wide = array("I", (bits << 16 for bits in _little(halves)))
    floats = array("f")
    floats.frombytes(wide.tobytes())
    return floats


def _little(values: array[Any]) -> array[Any]:
    """``values`` from this machine's order of bytes to little-endian, or back."""
    if sys.byteorder == "little" or values.itemsize == 1:
        return values
    turned = values[:]
    turned.byteswap()
    return turned


def _shape(name: str, values: Any) -> tuple[int, ...]:
    shape: list[int] = []
    level = values
    while isinstance(level, list | tuple):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    _check_rows(name, values, shape)
    return tuple(shape)


def _check_rows(name: str, values: Any, shape: Sequence[int]) -> None:
    if not shape:
        if isinstance(values, list | tuple):
            raise _wrong(name, "its rows are of different depths")
        return
    if not isinstance(values, list | tuple) or len(values) != shape[0]:
        raise _wrong(name, "its rows are of different lengths")
    if len(shape) > 1:
        for row in values:
            _check_rows(name, row, shape[1:])


def _flat(values: Any, depth: int) -> list[Any]:
    if not depth:
        return [values]
    for _ in range(depth - 1):
        values = [each for row in values for each in row]
    return list(values)


def _kind(name: str, flat: Sequence[Any]) -> Datatype:
    kinds = {type(each) for each in flat}
    if kinds <= {str, bytes} and kinds:
        return "BYTES"
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    if kinds <= {int, float}:
        return "FP32"
    names = ", ".join(sorted(each.__name__ for each in kinds))
    raise _wrong(name, f"its elements are of the types {names}; say its datatype")


def _wrong(name: str, what: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"tensor {name[:100]!r}: {what}", param=name[:100])
