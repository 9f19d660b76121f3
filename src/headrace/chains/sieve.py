"""Which keys were never seen, told without looking them up: a Bloom filter of a fixed size.

Two megabytes, whatever is put in. Up to a million keys fewer than one in a hundred is taken for one
that was seen; beyond, ever more are, until looking up costs what it did without.
"""

from __future__ import annotations

from struct import Struct

_BITS = 24
_MASK = (1 << _BITS) - 1
_four = Struct("<4I").unpack_from


class Sieve:
    """Keys that are hashes already, of 16 bytes or more: bits of the key are the bits' places."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))

    def add(self, key: bytes) -> None:
        """From now on ``key`` may have been seen."""
        bits = self._bits
        for word in _four(key):
            place = word & _MASK
            bits[place >> 3] |= 1 << (place & 7)

    def may_have(self, key: bytes) -> bool:
        """False: it was never added."""
        bits = self._bits
        for word in _four(key):
            place = word & _MASK
            if not bits[place >> 3] >> (place & 7) & 1:
                return False
        return True
