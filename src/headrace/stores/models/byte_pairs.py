"""Byte-level BPE as GGUF files name it: letters for bytes, how a text is cut, what ends an answer.

The ways of cutting are llama.cpp's (``llm_tokenizer_bpe`` in src/llama-vocab.cpp). Each is written
with ``{L}`` for letters, ``{N}`` for numbers and ``{S}`` for white space, to stand in a class: who
reads one says how its regular expressions spell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Values of ``tokenizer.ggml.token_type`` for tokens that are more than text."""

_DIGIT = "[{N}]"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{S}{L}{N}]+|[{S}]+(?![^{S}])"
_LATER = (
    r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n{L}{N}]?[{L}]+|[{N}]COUNT"
    r"| ?[^{S}{L}{N}]+[\r\n]*|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+"
)
_LLAMA3 = (_LATER.replace("COUNT", "{1,3}"),)
_QWEN2 = (_LATER.replace("COUNT", ""),)
CUTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "trillion"), (_GPT2,)),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        (_DIGIT, _GPT2),
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan"), _QWEN2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3"), _LLAMA3),
}
"""By ``tokenizer.ggml.pre``: what finds the words of a text, one expression after the other."""

WORDS_FIRST = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3"})
"""Of these a word that is a token is that token, whether or not the merges lead there."""

# As llama.cpp has them (llama-vocab.cpp): whatever token has one of these texts ends an answer.
_ENDS = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "< EOT >",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end▁of▁sentence|>",
        "<end_of_utterance>",
        "<eos>",
    ]
)


def ends(metadata: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end an answer, as llama.cpp finds them."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    named = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    found = {place for place, token in enumerate(tokens) if token in _ENDS}
    return frozenset(found | {place for place in named if place is not None})


def merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is merged, first things first."""
    pairs = []
    for merge in metadata["tokenizer.ggml.merges"]:
        # A piece may itself begin with a space in no vocabulary: a space is written as a letter.
        first, _, second = merge.partition(" ")
        pairs.append((first, second))
    return pairs


@lru_cache(maxsize=1)
def letters() -> tuple[str, ...]:
    """GPT-2's letters for bytes: printable ones are themselves, the others follow from U+0100 on."""
    themselves = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in themselves else next(others)) for byte in range(256))
