"""Made-up text of a wanted number of tokens.

It is built from words that are one token each and checked by encoding the whole, so that its length
is the tokenizer's own count. Which words stand in a text is said by its number and the seed: any
text can be made without those before it, and no two begin alike by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from math import log
from random import Random
from typing import NamedTuple

from headrace.bench.load.tokenizers import Tokenizer
from headrace.bench.load.words import WORDS
from headrace.contracts.load import Length

_MOST_CORRECTIONS = 12
_KEPT_BLOCKS = 1024


def draw(length: Length, random: Random) -> int:
    """A whole number of tokens from the distribution, cut to its bounds."""
    match length.shape:
        case "constant":
            value = length.mean
        case "normal":
            value = random.gauss(length.mean, length.spread)
        case "lognormal":
            # So placed that the mean of the values, not of their logarithms, is the one wanted.
            middle = log(length.mean) - length.spread**2 / 2
            value = random.lognormvariate(middle, length.spread)
        case "uniform":
            if length.most is None:
                raise ValueError("a uniform length needs most: give both ends, as uniform:50..150")
            return random.randint(length.least, length.most)
    whole = max(length.least, round(value))
    return whole if length.most is None else min(length.most, whole)


class Counted(NamedTuple):
    """A text and how many tokens it has, by whoever counts for it."""

    text: str
    tokens: int


class Text:
    """Text by number of tokens, for one tokenizer.

    It asks the tokenizer once which of our words are single tokens; a vocabulary that has too few
    of them is made do with as it is, since every text is counted anyway.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self._seed = seed
        self._block = lru_cache(maxsize=_KEPT_BLOCKS)(self._new_block)

    @cached_property
    def _words(self) -> Sequence[str]:
        """Words that are one token each behind a space."""
        if not self.tokenizer.counted:
            return WORDS
        base = self.tokenizer.count("the")
        found = _singles(
            WORDS, lambda some: self.tokenizer.count("the " + " ".join(some)) - base == len(some)
        )
        return found or WORDS

    @cached_property
    def _openers(self) -> Sequence[str]:
        """Words that are one token each with nothing before them."""
        if not self.tokenizer.counted:
            return self._words
        found = _singles(
            self._words, lambda some: self.tokenizer.count("\n".join(some)) == 2 * len(some) - 1
        )
        return found or self._words

    def distinct(self, tokens: int, number: int, purpose: str = "text") -> Counted:
        """The ``number``-th text of ``tokens`` tokens: its first words are ``number``, spelt out."""
        return self.exact(self._distinct(tokens, number, purpose), tokens)

    def behind(self, prefix: Counted, tokens: int, number: int) -> Counted:
        """``prefix`` and a distinct text, of ``tokens`` tokens together."""
        rest = self._distinct(max(1, tokens - prefix.tokens), number, "text")
        return self.exact([*prefix.text.split(" "), *rest], tokens)

    def of_blocks(self, blocks: Sequence[int], block_tokens: int, tokens: int) -> Counted:
        """``tokens`` tokens in blocks; equal numbers of blocks give equal words."""
        words = [word for block in blocks for word in self._block(block, block_tokens)]
        if len(words) < tokens:
            # More tokens than blocks: the rest belongs to nobody else.
            words += self._distinct(tokens - len(words), hash(tuple(blocks)), "rest")
        return self.exact(words[:tokens], tokens)

    def exact(self, words: list[str], tokens: int) -> Counted:
        """``words`` as text, cut or filled up at its end until it counts ``tokens``.

        Where a vocabulary will not have it, the text has the number of tokens that it says.
        """
        text = " ".join(words)
        if not self.tokenizer.counted:
            return Counted(text, len(words))
        # What fills up must not depend on how often it took.
        filling = Random(f"{self._seed} filling {text[:64]}")
        counted = self.tokenizer.count(text)
        for _ in range(_MOST_CORRECTIONS):
            off = tokens - counted
            if off == 0:
                break
            if off < 0:
                words = words[: max(1, len(words) + off)]
            else:
                words = [*words, *filling.choices(self._words, k=off)]
            text = " ".join(words)
            counted = self.tokenizer.count(text)
        return Counted(text, counted)

    def _distinct(self, tokens: int, number: int, purpose: str) -> list[str]:
        random = Random(f"{self._seed} {purpose} {number}")
        number = abs(number)
        shift = Random(f"{self._seed} {purpose}").randrange(len(self._openers))
        opener, left = (number + shift) % len(self._openers), number // len(self._openers)
        words = [self._openers[opener]]
        while left:
            left, word = divmod(left, len(self._words))
            words.append(self._words[word])
        words += random.choices(self._words, k=max(0, tokens - len(words)))
        return words[:tokens]

    def _new_block(self, block: int, tokens: int) -> list[str]:
        return self._distinct(tokens, block, "block")


def _singles(words: Sequence[str], alright: Callable[[Sequence[str]], bool]) -> list[str]:
    """The words that are ``alright`` alone, found by halves: few questions where most of them are."""
    if not words:
        return []
    if alright(words):
        return list(words)
    if len(words) == 1:
        return []
    half = len(words) // 2
    return _singles(words[:half], alright) + _singles(words[half:], alright)
