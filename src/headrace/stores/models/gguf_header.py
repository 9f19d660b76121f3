"""What a GGUF file says of its model, read from its first bytes alone.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package ``gguf`` reads everything,
the whole vocabulary included, and takes seconds for it; here it is the few fields in front of it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

# By its number: the format of each type of value; a text is 8 and an array 9.
_FORMATS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
_TEXT, _ARRAY = 8, 9
# What a sound file holds; more is a broken one.
_MOST_FIELDS, _LONGEST_TEXT, _LONGEST_ARRAY = 10_000, 1 << 24, 1 << 24


def context_tokens(path: Path) -> int | None:
    """How many tokens the model in ``path`` was made for; ``None`` where the file does not say."""
    try:
        with path.open("rb") as file:
            return _context_length(file)
    except (OSError, ValueError, struct.error):
        return None


def _context_length(file: IO[bytes]) -> int | None:
    magic, version, _, fields = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2 or fields > _MOST_FIELDS:
        return None
    architecture: object = None
    for _ in range(fields):
        name, value = _text(file), _value(file)
        if name == "general.architecture":
            architecture = value
        elif name == f"{architecture}.context_length":
            return value if isinstance(value, int) else None
    return None


def _value(file: IO[bytes]) -> object:
    """The next value; an array is passed over."""
    (kind,) = struct.unpack("<I", file.read(4))
    if kind == _TEXT:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, kind)
    of, length = struct.unpack("<IQ", file.read(12))
    if length > _LONGEST_ARRAY:
        raise ValueError(f"an array of {length}")
    if of == _TEXT:
        for _ in range(length):
            _text(file)
    else:
        if of not in _FORMATS:  # an array of arrays, which no model has
            raise ValueError(f"an array of the type {of}")
        file.seek(length * struct.calcsize(f"<{_FORMATS[of]}"), 1)
    return None


def _number(file: IO[bytes], kind: int) -> object:
    form = _FORMATS.get(kind)
    if form is None:
        raise ValueError(f"a value of the unknown type {kind}")
    (number,) = struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
    return number


def _text(file: IO[bytes]) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST_TEXT:
        raise ValueError(f"a text of {length} bytes")
    return file.read(length).decode("utf-8", "replace")
