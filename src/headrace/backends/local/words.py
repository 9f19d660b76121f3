"""From tokens to text: bytes joined to characters, and stop strings found across tokens."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

_Utf8 = getincrementaldecoder("utf-8")


class Stops:
    """Text as far as it holds none of the stop strings.

    What may be the beginning of one is held back until that is known; ``stopped_by`` is the one
    that was found, and neither it nor anything after it is given.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped_by: str | None = None
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    @property
    def looks_for_any(self) -> bool:
        """Whether there are stop strings at all."""
        return bool(self._stops)

    def feed(self, text: str) -> str:
        """The text that is settled now that ``text`` has come; often none."""
        if not self._stops or not text:
            return text
        if self.stopped_by is not None:
            return ""
        text = self._held + text
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            # Of two that begin at the same place the longer one, as if looked for at once.
            place, self.stopped_by = min(found, key=lambda each: (each[0], -len(each[1])))
            self._held = ""
            return text[:place]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """What was held back, once nothing follows."""
        rest, self._held = self._held, ""
        return rest


class Words:
    """The text of one answer as its tokens come.

    A character may take several tokens, and is given when it is whole: bytes that are none become
    U+FFFD, and what the end cuts in two is left out. Stop strings are found as by ``Stops``.
    """

    def __init__(self, pieces: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self._pieces = pieces
        self._decoder = _Utf8("replace")
        self._decode = self._decoder.decode
        self._stops = Stops(stops)

    @property
    def stopped_by(self) -> str | None:
        """The stop string that was found."""
        return self._stops.stopped_by

    @property
    def owes_nothing(self) -> bool:
        """Whether the next token's text is that token's alone: nothing of those before is held."""
        return not self._stops.looks_for_any and not self._decoder.getstate()[0]

    def feed(self, token: int) -> str:
        """The text that is settled now that ``token`` has come; often none."""
        return self._stops.feed(self._decode(self._pieces[token]))

    def close(self) -> str:
        """What was held back, once no token follows."""
        return self._stops.close()

    def piece(self, token: int) -> bytes:
        """The bytes of ``token``; none where it is no text."""
        return self._pieces[token]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
