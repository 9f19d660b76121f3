"""IPFS's names of contents: a CID read from text or bytes, and whether a block is the one it names.

The forms are those of https://github.com/multiformats/cid. Of the hashes SHA-256 alone is known,
which is what IPFS makes; any other is refused by its name.
"""

from __future__ import annotations

import hashlib
from base64 import b32decode, b32encode

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError

RAW = 0x55
DAG_PB = 0x70

_SHA2_256 = 0x12
_CODECS = {RAW: "raw", DAG_PB: "dag-pb", 0x71: "dag-cbor", 0x72: "libp2p-key", 0x0129: "dag-json"}
# https://github.com/multiformats/multicodec/blob/master/table.csv
_HASHES = {
    0x00: "identity",
    0x11: "sha1",
    0x13: "sha2-512",
    0x14: "sha3-512",
    0x15: "sha3-384",
    0x16: "sha3-256",
    0x17: "sha3-224",
    0x1B: "keccak-256",
    0x1E: "blake3",
    0x56: "dbl-sha2-256",
    0xB220: "blake2b-256",
    0xB240: "blake2b-512",
}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@frozen(kw_only=True)
class Cid:
    """The name of a block: the codec that it is written in, and its SHA-256."""

    codec: int
    sha256: bytes

    @property
    def codec_name(self) -> str:
        return _CODECS.get(self.codec, f"0x{self.codec:x}")

    def names(self, block: bytes) -> bool:
        """Whether ``block`` is the one."""
        return hashlib.sha256(block).digest() == self.sha256

    def __str__(self) -> str:
        """As text: CIDv1 in base32, whichever way it was read."""
        return "b" + _base32(b"\x01" + _varint(self.codec) + b"\x12\x20" + self.sha256)


def read_cid(text: str) -> Cid:
    """A CID as people write it: ``Qm...`` (version 0), ``b...`` or ``z...`` (version 1)."""
    try:
        if len(text) == 46 and text.startswith("Qm"):
            return _of_bytes(_from_base58(text), text)
        if text[:1] in {"b", "B"}:
            padded = text[1:].upper() + "=" * (-len(text[1:]) % 8)
            return _of_bytes(b32decode(padded), text)
        if text.startswith("z"):
            return _of_bytes(_from_base58(text[1:]), text)
    except ValueError as error:
        raise LLMInvalidRequestError(f"bad CID {text!r}: {error}", param="model") from None
    raise LLMInvalidRequestError(
        f"bad CID {text!r}: expected Qm... (version 0), or b... or z... (version 1)", param="model"
    )


def cid_from_bytes(data: bytes) -> Cid:
    """A CID as blocks hold it; ValueError where it is none."""
    return _of_bytes(data, data.hex())


def _of_bytes(data: bytes, shown: str) -> Cid:
    if data[:2] == b"\x12\x20" and len(data) == 34:
        return Cid(codec=DAG_PB, sha256=data[2:])
    version, at = read_varint(data, 0)
    if version != 1:
        raise ValueError(f"its version is {version}, expected 0 or 1")
    codec, at = read_varint(data, at)
    function, at = read_varint(data, at)
    length, at = read_varint(data, at)
    digest = data[at:]
    if function != _SHA2_256:
        name = _HASHES.get(function, f"0x{function:x}")
        raise LLMCapabilityError(
            f"the CID {shown} is made with the hash {name}, which cannot be checked here; "
            "expected sha2-256",
            param="model",
        )
    if len(digest) != length or length != 32:
        raise ValueError(f"its hash has {len(digest)} bytes, expected 32")
    return Cid(codec=codec, sha256=digest)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` (unsigned LEB128) and where it ends; ValueError where there is none."""
    value = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("it ends within a number")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _base32(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()


def _from_base58(text: str) -> bytes:
    value = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"{character!r} is no base58 digit")
        value = value * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")
