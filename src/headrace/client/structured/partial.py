"""An object while it is still being written."""

from __future__ import annotations

import re
from typing import Any

_ALWAYS_BELOW = 4096
_SHARE = 64
"""Beyond ``_ALWAYS_BELOW`` characters the text is read again once it grew by one part in so many.

So all readings together cost as much as reading the whole answer 64 times, however small its
pieces are, and the view lags behind by under 2%.
"""

# The object begins here, and not at a brace in some prose before it.
_START = re.compile(r'\{(?=\s*(?:"|\}))')
_OF_A_NUMBER = "0123456789+-.eE"


class PartialReader:
    """Takes an answer's text in pieces and gives the JSON value so far.

    Each value is the beginning of the next: texts and lists grow at their end, objects gain
    properties, and a number is there once it is whole.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._read_at = 0
        self._start: int | None = None
        self._last: Any = None

    def feed(self, text: str) -> Any:
        """The value after ``text``, or ``None`` where nothing new can be seen of it."""
        self._pieces.append(text)
        self._length += len(text)
        grown = self._length - self._read_at
        if not grown or (self._length > _ALWAYS_BELOW and grown * _SHARE < self._length):
            return None
        return self._read()

    def rest(self) -> Any:
        """The value after all of the text, or ``None`` where it has been given already."""
        return self._read() if self._length > self._read_at else None

    def _read(self) -> Any:
        from jiter import from_json

        text = "".join(self._pieces)
        self._pieces, self._read_at = [text], self._length
        if self._start is None:
            found = _START.search(text)
            if found is None:
                return None
            self._start = found.start()
        seen = _without_open_number(text[self._start :])
        try:
            value = from_json(seen.encode(), partial_mode="trailing-strings")
        except ValueError:
            return None
        if value == self._last:
            return None
        self._last = value
        return value


def _without_open_number(text: str) -> str:
    """``text`` without a number at its end, which may go on."""
    before = text.rstrip(_OF_A_NUMBER).rstrip()
    return before if before.endswith((":", "[", ",")) else text
