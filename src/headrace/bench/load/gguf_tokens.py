"""Counts a text's tokens as llama.cpp does, by the vocabulary in a GGUF file alone.

Only byte-level BPE, which most models of today have, and only with ways of cutting a text into
words that are known here. They are llama.cpp's (``llm_tokenizer_bpe`` in src/llama-vocab.cpp), and
were compared with the token ids that llama.cpp's tests expect. Words are kept once merged, so that
a thousand tokens take some hundred microseconds.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace.stores.models.gguf_header import read_header

_KEYS = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.token_type",
)
_USER_DEFINED = 4
_MOST_KEPT = 200_000
# Python's \s also has the four separators of ASCII.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# {L} letters, {N} numbers, {S} white space, to stand in a class.
_DIGIT = "[{N}]"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{S}{L}{N}]+|[{S}]+(?![^{S}])"
_LATER = (
    r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n{L}{N}]?[{L}]+|[{N}]COUNT"
    r"| ?[^{S}{L}{N}]+[\r\n]*|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+"
)
_LLAMA3 = (_LATER.replace("COUNT", "{1,3}"),)
_QWEN2 = (_LATER.replace("COUNT", ""),)
_WAYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "trillion"), (_GPT2,)),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        (_DIGIT, _GPT2),
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan"), _QWEN2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3"), _LLAMA3),
}
# Of these a word that is a token is that token, whether or not the merges lead there.
_WORDS_FIRST = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3"})


class GgufTokenizer:
    """The tokenizer of the GGUF file at ``path``.

    Raises ValueError that says what would be right for a vocabulary that is not known here, and
    LLMInvalidRequestError for what is no GGUF file.
    """

    counted = True

    def __init__(self, path: Path) -> None:
        header = read_header(path, _KEYS)
        kind, pre = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.pre")
        ways = _WAYS.get(str(pre))
        if kind != "gpt2" or ways is None:
            raise ValueError(
                f"{path}: cannot count with its tokenizer ({kind}, {pre}); known is byte-level BPE"
                f" (gpt2) that cuts as {', '.join(_WAYS)}"
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
                if kind == _USER_DEFINED
            ),
            key=len,
            reverse=True,
        )
        self._words_first = pre in _WORDS_FIRST
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
        letters = _letters()
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
    for rank, merge in enumerate(header["tokenizer.ggml.merges"]):
        # A piece may itself begin with a space in no vocabulary: a space is written as a letter.
        first, _, second = merge.partition(" ")
        ranks.setdefault((first, second), rank)
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


@lru_cache(maxsize=1)
def _letters() -> list[str]:
    """GPT-2's letters for bytes: printable ones are themselves, the others follow from U+0100 on."""
    themselves = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in themselves else next(others)) for byte in range(256)]
