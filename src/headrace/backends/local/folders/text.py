"""Text to tokens and back, by the tokenizer in a model's folder (the tokenizers package)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.backends.local.words import Stops
from headrace.contracts.errors import LLMContextLengthError
from headrace.stores.models import byte_pairs

# No character is cut into so many tokens: what comes is no text, and looking at all of it again
# with each token would take ever longer.
_MOST_CUT = 64
_CUT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A ``tokenizers.Tokenizer`` as we use it."""

    def __init__(self, tokenizer: Any) -> None:
        self.raw = tokenizer
        # What a folder says of cutting and filling up is for training; we do neither unasked.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.special = frozenset(
            token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        )
        self._letters: dict[str, bytes] | None = None
        if _names(tokenizer.decoder, "ByteLevel"):
            self._letters = {
                letter: bytes([byte]) for byte, letter in enumerate(byte_pairs.letters())
            }

    def ids(self, text: str, *, special: bool) -> list[int]:
        """The tokens of ``text``; with ``special`` also those that begin and end a text."""
        found: list[int] = self.raw.encode(text, add_special_tokens=special).ids
        return found

    def encoded(
        self, text: str, second: str | None = None, *, most: int | None = None
    ) -> tuple[list[int], list[int]]:
        """The tokens of ``text``, or of two texts that are read together, with those that begin and
        end them, and the type of each.

        What is longer than ``most`` is cut at its end. Raises LLMContextLengthError where the first of
        two is too long by itself.
        """
        if most is None:
            found = self.raw.encode(text, second)
            return found.ids, found.type_ids
        strategy = "longest_first" if second is None else "only_second"
        try:
            self.raw.enable_truncation(most, strategy=strategy)
            found = self.raw.encode(text, second)
        except Exception as refusal:  # the package raises nothing more exact
            raise LLMContextLengthError(
                f"the first text alone is longer than the {most} tokens that this model reads of two"
            ) from refusal
        finally:
            self.raw.no_truncation()
        return found.ids, found.type_ids

    def beginning(self, text: str, most: int) -> str:
        """As much of ``text`` as its first ``most`` tokens."""
        found = self.raw.encode(text, add_special_tokens=False)
        return text if len(found.ids) <= most else text[: found.offsets[most - 1][1]]

    def text(self, ids: Sequence[int]) -> str:
        """What ``ids`` read as; special tokens are no text."""
        said: str = self.raw.decode(list(ids), skip_special_tokens=True)
        return said

    def piece(self, token: int) -> bytes:
        """The bytes of ``token``; none where it is no text."""
        if token in self.special:
            return b""
        said: str | None = self.raw.id_to_token(token)
        if said is None:
            return b""
        if self._letters is not None:
            letters = self._letters
            return b"".join(letters.get(each) or each.encode() for each in said)
        if len(said) == 6 and said.startswith("<0x") and said.endswith(">"):
            return bytes([int(said[3:5], 16)])
        return said.replace("▁", " ").encode()


class Reading:
    """The text of one answer as its tokens come, up to a stop string.

    All pieces together are what the tokenizer makes of all tokens, but for a character that the end
    cuts in two, which is left out.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, Stops(stops)
        self._ids: list[int] = []
        self._said_from = self._read_to = 0

    @property
    def stopped_by(self) -> str | None:
        """The stop string that was found."""
        return self._stops.stopped_by

    def feed(self, token: int) -> str:
        """The text that is settled now that ``token`` has come; often none."""
        self._ids.append(token)
        before = self._tokenizer.text(self._ids[self._said_from : self._read_to])
        now = self._tokenizer.text(self._ids[self._said_from :])
        waits = len(self._ids) - self._read_to
        if len(now) <= len(before) or (now.endswith(_CUT) and waits < _MOST_CUT):
            return ""
        self._said_from, self._read_to = self._read_to, len(self._ids)
        return self._stops.feed(now[len(before) :])

    def close(self) -> str:
        """What was held back, once no token follows."""
        return self._stops.close()


def _names(part: object, name: str) -> bool:
    """Whether ``name`` is among the parts of a tokenizer's decoder."""
    return part is not None and name in repr(part)
