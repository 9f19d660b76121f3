"""Texts that a grammar lets through, found by walking it at random byte by byte."""

from __future__ import annotations

from functools import cache
from random import Random

from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

_END = 256
_LONGEST = 700


class _Bytes:
    """Every byte is a token."""

    eos_token_id = _END
    bos_token_id = None
    special_token_ids = (_END,)
    tokens = (*(bytes([each]) for each in range(256)), b"<end>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))


def walked(grammar: str, random: Random) -> str | None:
    """A text that ``grammar`` takes as whole, or ``None`` where the walk grew too long."""
    matcher = LLMatcher(_tokenizer(), LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    text = bytearray()
    while len(text) < _LONGEST:
        mask = matcher.compute_bitmask()
        allowed = [i for i in range(_END + 1) if mask[i // 8] >> (i % 8) & 1]
        # Digits and names would else go on for long: an end that may be is taken often.
        if _END in allowed and (len(allowed) == 1 or random.random() < 0.3):
            return text.decode()
        token = random.choice([each for each in allowed if each != _END])
        if not matcher.consume_token(token):
            # A schema whose objects hold themselves has no end, and the parser's memory has one.
            assert "Too many items" in matcher.get_error(), matcher.get_error()
            return None
        text.append(token)
    return None


def takes(grammar: str, text: str) -> bool:
    """Whether ``grammar`` takes ``text`` as whole."""
    matcher = LLMatcher(_tokenizer(), LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
