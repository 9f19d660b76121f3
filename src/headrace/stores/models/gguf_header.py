"""What a GGUF file says of its model, read from its beginning; the weights stay on the disk.

llama.cpp's own ``gguf`` reads all of the file into numpy arrays and takes a second for a
vocabulary. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError

_MOST_KEYS = 100_000
_MOST_DIMENSIONS = 8
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


def read_header(path: Path, wanted: Collection[str] | None = None) -> dict[str, Any]:
    """The file's key-value pairs; only those whose keys are ``wanted``, where that is given.

    Raises LLMInvalidRequestError for what is no GGUF file of version 2 or 3.
    """
    with _reading(path) as reader:
        return reader.header(wanted)


def read_tensors(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """The file's tensors by name: their dimensions, the inner one first, and ggml's type number.

    Raises LLMInvalidRequestError as ``read_header`` does.
    """
    with _reading(path) as reader:
        return reader.tensors()


@contextmanager
def _reading(path: Path) -> Iterator[_Reader]:
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            yield _Reader(data)
    except (struct.error, ValueError, LookupError, OverflowError, RecursionError) as wrong:
        raise LLMInvalidRequestError(
            f"model file {str(path)!r} is no GGUF file that we can read: {wrong}", param="model"
        ) from wrong


def open_weights(path: Path) -> Any:
    """llama.cpp's own reader of the file, with the tensors' data mapped into memory.

    Raises LLMInvalidRequestError for a file that is cut short or no GGUF file.
    """
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (ValueError, LookupError, OverflowError) as wrong:
        raise LLMInvalidRequestError(
            f"model file {str(path)!r} is damaged or no GGUF file: {wrong}", param="model"
        ) from wrong


def context_tokens(path: Path) -> int | None:
    """How many tokens the model in ``path`` was made for; ``None`` where the file does not say."""
    try:
        made = read_header(path, {"general.architecture"}).get("general.architecture")
        key = f"{made}.context_length"
        found = read_header(path, {key}).get(key)
    except (LLMInvalidRequestError, OSError):
        return None
    return found if isinstance(found, int) else None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._place = 0

    def header(self, wanted: Collection[str] | None) -> dict[str, Any]:
        magic, version = self._data[:4], _U32.unpack_from(self._data, 4)[0]
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r}, version {version}")
        count = _U64.unpack_from(self._data, 16)[0]
        if count > _MOST_KEYS:
            raise ValueError(f"{count} keys")
        self._place = 24
        found = {}
        for _ in range(count):
            key = self._string().decode()
            value = self._value(self._number(_U32), keep=wanted is None or key in wanted)
            if wanted is None or key in wanted:
                found[key] = value
        return found

    def tensors(self) -> dict[str, tuple[tuple[int, ...], int]]:
        self.header(())
        count = _U64.unpack_from(self._data, 8)[0]
        if count > _MOST_KEYS:
            raise ValueError(f"{count} tensors")
        found = {}
        for _ in range(count):
            name = self._string().decode()
            dimensions = self._number(_U32)
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor of {dimensions} dimensions")
            shape = tuple(self._number(_U64) for _ in range(dimensions))
            found[name] = (shape, self._number(_U32))
            self._number(_U64)  # where its data is
        return found

    def _number(self, form: struct.Struct) -> Any:
        value = form.unpack_from(self._data, self._place)[0]
        self._place += form.size
        return value

    def _string(self) -> bytes:
        size = self._number(_U64)
        begin, self._place = self._place, self._place + size
        if self._place > len(self._data):
            raise ValueError("it ends in the middle of a string")
        return self._data[begin : self._place]

    def _value(self, kind: int, *, keep: bool) -> Any:
        if kind == _STRING:
            return self._string().decode(errors="surrogateescape")
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        part, size = self._number(_U32), self._number(_U64)
        if part in (_STRING, _ARRAY):
            if size > len(self._data):
                raise ValueError(f"an array of {size} parts")
            values = [self._value(part, keep=keep) for _ in range(size)]
            return values if keep else None
        form = _NUMBERS[part]
        begin, self._place = self._place, self._place + size * form.size
        if self._place > len(self._data):
            raise ValueError("it ends in the middle of an array")
        if not keep:
            return None
        return [value for (value,) in form.iter_unpack(self._data[begin : self._place])]
