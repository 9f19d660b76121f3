"""Who counts the tokens of what a load test sends."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from headrace.backends.tokens import count_here


class Tokenizer(Protocol):
    """Counts a text's tokens, without whatever a chat template puts around it.

    ``source`` names who counts; ``counted`` says whether the count is the model's own.
    """

    @property
    def source(self) -> str: ...

    @property
    def counted(self) -> bool: ...

    def count(self, text: str) -> int: ...


@frozen(kw_only=True)
class Estimate:
    """For when nobody can count: a token for every four letters or so."""

    source: str = "estimate"
    counted: bool = False

    def count(self, text: str) -> int:
        return count_here(text).tokens
