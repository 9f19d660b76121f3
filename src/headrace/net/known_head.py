"""A head that the strict parser has read is not read again where the same bytes come back.

On a kept connection the requests of one caller, or the answers of one server, mostly have the same
head but for the length of the body. What the parser found in one of them holds for each that
differs in those digits only. Nothing here decides what a head means: whatever is not that head, byte
for byte, and the whole of one body behind it, is for the parser.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_BYTES = 4096
"""A longer head is read anew each time, so that many connections do not hold much."""

_MOST_DIGITS = 7
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]{0,6})\r\n", re.IGNORECASE)


class KnownHead(Generic[T]):
    """The last head of one connection that came with the whole of its body, and what it ``means``.

    It is no other connection's, so that nobody learns from it what somebody else has sent.
    """

    __slots__ = ("_after", "_before", "_misses", "means")

    means: T

    def __init__(self) -> None:
        self._before = self._after = b""
        self._misses = 0

    def body_of(self, data: bytes) -> bytes | None:
        """The body of the message that is all of ``data``; ``None`` where the parser shall see."""
        before = self._before
        if not before or not data.startswith(before):
            return None
        begin = len(before)
        end = data.find(b"\r", begin, begin + _MOST_DIGITS + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or digits[0] == 0x30:
            return None
        after = self._after
        body = data[end + len(after) :]
        if len(body) != int(digits) or not data.startswith(after, end):
            return None
        self._misses = 0
        return body

    def learn(self, data: bytes, body: bytes, means: T) -> None:
        """The parser, with nothing before it, took ``data`` for one message of this ``body``, whose
        length it states.

        Where heads never come back, this is left off more and more: it costs as much as it saves.
        """
        misses = self._misses = self._misses + 1
        end = data.find(b"\r\n\r\n", 0, MOST_BYTES) + 4
        # Whatever else the parser may have taken for a head's end, or left behind the body.
        if misses & (misses - 1) or end < 4 or data[end:] != body:
            return
        found = _LENGTH.search(data, 0, end)
        if found is not None and int(found[1]) == len(body):
            self._before, self._after = data[: found.start(1)], data[found.end(1) : end]
            self.means = means
