"""A model's vocabulary as its GGUF file has it: the bytes of its tokens, and which of them end.

Only byte-level BPE (GPT-2's way of writing bytes as letters), which is what most models of today
have and what OpenVINO's reader of GGUF files is used with here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError
from headrace.stores.models.gguf_header import read_header

_KEYS = (
    "general.architecture",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.chat_template",
)
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
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
# A model whose template speaks of these writes down what it thinks; llama.cpp takes that apart
# from the answer, which the tokens alone do not tell.
_REASONING = ("<think>", "<|channel|>", "[THINK]", "reasoning_content", "enable_thinking")


@frozen(kw_only=True)
class Vocabulary:
    """``pieces`` are the bytes of each token, empty for those that are no text."""

    pieces: tuple[bytes, ...]
    ends: frozenset[int]
    context_tokens: int


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of the GGUF file at ``path``.

    Raises LLMCapabilityError for a model whose tokens or answers we could not put into words as
    llama.cpp does, LLMInvalidRequestError for what is no GGUF file.
    """
    header = read_header(path, _KEYS)
    kind = header.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise LLMCapabilityError(f"its tokenizer is {kind!r}, and must be byte-level BPE ('gpt2')")
    if writes_reasoning(header.get("tokenizer.chat_template")):
        raise LLMCapabilityError("it writes down its reasoning, which only llama.cpp takes apart")
    context = f"{header.get('general.architecture')}.context_length"
    context_tokens = read_header(path, (context,)).get(context)
    if not isinstance(context_tokens, int):
        raise LLMCapabilityError(f"its file does not say its context length ({context})")
    return Vocabulary(
        pieces=tuple(_pieces(header)), ends=_ends(header), context_tokens=context_tokens
    )


def writes_reasoning(template: str | None) -> bool:
    """Whether a model with this chat template writes down what it thinks."""
    return template is not None and any(word in template for word in _REASONING)


def _pieces(header: dict[str, Any]) -> list[bytes]:
    tokens: list[str] = header["tokenizer.ggml.tokens"]
    kinds: list[int] = header.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    letters = _bytes_of_letters()
    pieces = []
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_UNKNOWN, _CONTROL):
            pieces.append(b"")
        elif kind == _USER_DEFINED:
            pieces.append(token.encode(errors="surrogateescape"))
        else:
            # A letter that stands for no byte can only be meant as itself.
            pieces.append(b"".join(letters.get(c) or c.encode() for c in token))
    return pieces


def _ends(header: dict[str, Any]) -> frozenset[int]:
    tokens: list[str] = header["tokenizer.ggml.tokens"]
    named = (header.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    ends = {place for place, token in enumerate(tokens) if token in _ENDS}
    return frozenset(ends | {place for place in named if place is not None})


def _bytes_of_letters() -> dict[str, bytes]:
    """GPT-2's letters for bytes: printable ones are themselves, the others follow from U+0100 on."""
    themselves = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(themselves)]
    letters = {chr(byte): bytes([byte]) for byte in themselves}
    return letters | {chr(0x100 + place): bytes([byte]) for place, byte in enumerate(others)}
