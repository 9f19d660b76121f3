"""Answers held to a grammar while they are written, by llguidance with the model's own tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from headrace.backends.local.folders.text import Tokenizer
from headrace.contracts.errors import LLMInvalidRequestError, LLMProviderError


class Grammars:
    """Makes matchers for a model whose scores are of ``width`` tokens."""

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], width: int) -> None:
        self._tokenizer, self._ends, self._width = tokenizer, sorted(ends), width
        self._known: Any = None

    def matcher(self, text: str) -> Matcher:
        """What holds one answer to the grammar ``text``.

        Raises LLMInvalidRequestError where llguidance does not take it.
        """
        from llguidance import LLMatcher, LLTokenizer

        if self._known is None:  # a moment's work for a large vocabulary, and few ask for it
            self._known = LLTokenizer(
                self._tokenizer.raw.to_str(), n_vocab=self._width, eos_token=self._ends
            )
        held = LLMatcher(self._known, LLMatcher.grammar_from_lark(text), log_level=0)
        if held.is_error():
            raise LLMInvalidRequestError(
                f"this grammar cannot be held: {held.get_error()[:300]}", param="grammar"
            )
        return Matcher(held, self._width)


class Matcher:
    """One answer under a grammar."""

    def __init__(self, held: Any, width: int) -> None:
        import numpy as np

        self._held, self._width = held, width
        self._mask = np.zeros((1, -(-width // 32)), dtype=np.int32)

    def bar(self, scores: Any) -> None:
        """Make the tokens impossible that the grammar does not allow next."""
        import numpy as np
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._held, self._mask, 0)
        if self._held.is_error():
            raise LLMProviderError(
                f"the grammar failed: {self._held.get_error()[:300]}", transient=False
            )
        bits = np.unpackbits(self._mask[0].view(np.uint8), bitorder="little")[: self._width]
        scores[bits == 0] = float("-inf")

    def take(self, token: int) -> None:
        """``token`` was chosen."""
        self._held.consume_token(token)
