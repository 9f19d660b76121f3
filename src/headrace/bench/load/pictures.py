"""Pictures for vision models: noise, which no cache has seen and no encoding makes smaller."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from random import Random

_RGB8 = bytes([8, 2, 0, 0, 0])  # bits a channel, true colour, and the only methods there are


def noise_png(side: int, random: Random) -> bytes:
    """A PNG of ``side`` x ``side`` random pixels (https://www.w3.org/TR/png-3/)."""
    row = side * 3
    pixels = random.randbytes(row * side)
    # Each row begins with its filter; 0 is none.
    rows = b"".join(b"\0" + pixels[at : at + row] for at in range(0, len(pixels), row))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">II", side, side) + _RGB8),
            # Level 0 only frames the bytes: noise does not get smaller, and trying costs 20 ms.
            _chunk(b"IDAT", zlib.compress(rows, 0)),
            _chunk(b"IEND", b""),
        ]
    )


def noise_url(side: int, random: Random) -> str:
    """Such a picture as the data URL that chat messages carry."""
    return "data:image/png;base64," + b64encode(noise_png(side, random)).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
