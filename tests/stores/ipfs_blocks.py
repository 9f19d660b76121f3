"""Files and folders cut into IPFS blocks, as kubo does it, but with pieces of any size.

Written by the specifications and by hand, so that the reader has another's blocks to read:
https://specs.ipfs.tech/unixfs/
"""

from __future__ import annotations

import hashlib
from base64 import b32encode

RAW, DAG_PB = 0x55, 0x70
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def number_field(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def bytes_field(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def cid_v1(codec: int, block: bytes) -> bytes:
    return b"\x01" + varint(codec) + b"\x12\x20" + hashlib.sha256(block).digest()


def cid_v0(block: bytes) -> bytes:
    return b"\x12\x20" + hashlib.sha256(block).digest()


def base32(cid: bytes) -> str:
    return "b" + b32encode(cid).decode().lower().rstrip("=")


def base58(data: bytes) -> str:
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = _BASE58[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


class Blocks:
    """``by_name`` holds every block made, under its CIDv1 in base32, as gateways are asked for it."""

    def __init__(self, *, raw_leaves: bool = True, version: int = 1) -> None:
        self.raw_leaves, self.version = raw_leaves, version
        self.by_name: dict[str, bytes] = {}

    def keep(self, codec: int, block: bytes) -> bytes:
        self.by_name[base32(cid_v1(codec, block))] = block
        if codec == DAG_PB and self.version == 0:
            return cid_v0(block)
        return cid_v1(codec, block)

    def leaf(self, data: bytes) -> bytes:
        if self.raw_leaves:
            return self.keep(RAW, data)
        unixfs = number_field(1, 2) + bytes_field(2, data) + number_field(3, len(data))
        return self.keep(DAG_PB, bytes_field(1, unixfs))

    def node(self, children: list[tuple[bytes, int]], packed: bool = False) -> bytes:
        sizes = [size for _, size in children]
        unixfs = number_field(1, 2) + number_field(3, sum(sizes))
        if packed:
            unixfs += bytes_field(4, b"".join(varint(size) for size in sizes))
        else:
            unixfs += b"".join(number_field(4, size) for size in sizes)
        links = b"".join(
            bytes_field(2, bytes_field(1, cid) + bytes_field(2, b"") + number_field(3, size + 9))
            for cid, size in children
        )
        return self.keep(DAG_PB, links + bytes_field(1, unixfs))

    def file(self, data: bytes, piece: int, fan: int = 4) -> bytes:
        """The CID of a file cut into pieces, with at most ``fan`` links a block."""
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)] or [b""]
        level = [(self.leaf(each), len(each)) for each in pieces]
        while len(level) > 1:
            groups = [level[at : at + fan] for at in range(0, len(level), fan)]
            level = [(self.node(group), sum(size for _, size in group)) for group in groups]
        return level[0][0]

    def folder(self, entries: dict[str, bytes], kind: int = 1) -> bytes:
        links = b"".join(
            bytes_field(2, bytes_field(1, cid) + bytes_field(2, name.encode()) + number_field(3, 9))
            for name, cid in sorted(entries.items())
        )
        return self.keep(DAG_PB, links + bytes_field(1, number_field(1, kind)))
