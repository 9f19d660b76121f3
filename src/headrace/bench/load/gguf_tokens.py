"""Counts a text's tokens as llama.cpp does, by the vocabulary in a GGUF file alone.

Only byte-level BPE, which most models of today have, and only with ways of cutting a text into
words that are known here (``stores.models.byte_pairs``). They were compared with the token ids that
llama.cpp's tests expect. Words are kept once merged, so that a thousand tokens take some hundred
microseconds.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.stores.models import byte_pairs
from headrace.stores.models.gguf_header import read_header

_KEYS = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.token_type",
)
_MOST_KEPT = 200_000
# Python's \s also has the four separators of ASCII.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


class GgufTokenizer:
    """The tokenizer of the GGUF file at ``path``.

    Raises ValueError that says what would be right for a vocabulary that is not known here, and
    LLMInvalidRequestError for what is no GGUF file.
    """

    counted = True

    def __init__(self, path: Path) -> None:
        header = read_header(path, _KEYS)
        kind, pre = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.pre")
        ways = byte_pairs.CUTS.get(str(pre))
        if kind != "gpt2" or ways is None:
            raise ValueError(
                f"{path}: cannot count with its tokenizer ({kind}, {pre}); known is byte-level BPE"
                f" (gpt2) that cuts as {', '.join(byte_pairs.CUTS)}"
            )
        self.source = f"{path.name} ({pre})"
        self._patterns = [re.compile(_with_classes(way)) for way in ways]
        self._ranks = _ranks(header)
        self._tokens = frozenset(header["tokenizer.ggml.tokens"])
        kinds = header.get("tokenizer.ggml.token_type") or ()
        # Tokens that are found in the text before it is cut, the longest first.
        self._whole = sorted(
            (
                token
                for token, kind in zip(header["tokenizer.ggml.tokens"], kinds, strict=False)
                if kind == byte_pairs.USER_DEFINED
            ),
            key=len,
            reverse=True,
        )
        self._words_first = pre in byte_pairs.WORDS_FIRST
        self._kept: dict[str, int] = {}

    def count(self, text: str) -> int:
        """How many tokens ``text`` is, with nothing before it; no special token is read in it."""
        words = [text]
        total = 0
        for token in self._whole:
            if token in text:
                parts = [word.split(token) for word in words]
                total += sum(len(part) - 1 for part in parts)
                words = [word for part in parts for word in part]
        for pattern in self._patterns:
            words = [part for word in words for part in _cut(pattern, word)]
        kept = self._kept
        for word in words:
            tokens = kept.get(word)
            if tokens is None:
                tokens = self._merged(word)
                if len(kept) < _MOST_KEPT:
                    kept[word] = tokens
            total += tokens
        return total

    def close(self) -> None:
        """Nothing is held: the file was read whole."""

    def _merged(self, word: str) -> int:
        """Byte pair encoding: of all neighbours those that were merged first in training."""
        letters = byte_pairs.letters()
        parts = [letters[byte] for byte in word.encode("utf-8", "surrogatepass")]
        if self._words_first and "".join(parts) in self._tokens:
            return 1
        ranks = self._ranks
        last = len(ranks)
        while len(parts) > 1:
            best = min(
                range(len(parts) - 1), key=lambda at: ranks.get((parts[at], parts[at + 1]), last)
            )
            if (parts[best], parts[best + 1]) not in ranks:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        # What is no token is given byte by byte.
        return sum(1 if part in self._tokens else len(part) for part in parts)


def _cut(pattern: re.Pattern[str], text: str) -> list[str]:
    """The matches of the pattern and what lies between them."""
    parts = []
    end = 0
    for match in pattern.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        if match.end() > match.start():
            parts.append(match[0])
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return parts


def _ranks(header: dict[str, Any]) -> dict[tuple[str, str], int]:
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(byte_pairs.merges(header)):
        ranks.setdefault(pair, rank)
    return ranks


def _with_classes(pattern: str) -> str:
    letters, numbers = _classes()
    for name, held in (("{L}", letters), ("{N}", numbers), ("{S}", _SPACE)):
        pattern = pattern.replace(name, held)
    return pattern


@lru_cache(maxsize=1)
def _classes() -> tuple[str, str]:
    r"""What stands in a class for \p{L} and for \p{N}, which Python's re does not have."""
    runs: dict[str, list[tuple[int, int]]] = {"L": [], "N": []}
    for code in range(sys.maxunicode + 1):
        kind = unicodedata.category(chr(code))[0]
        if kind in runs:
            held = runs[kind]
            if held and held[-1][1] == code - 1:
                held[-1] = (held[-1][0], code)
            else:
                held.append((code, code))
    letters, numbers = (
        "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs[kind]) for kind in "LN"
    )
    return letters, numbers
