"""A model's vocabulary as its GGUF file has it: the bytes of its tokens, and which of them end.

Only byte-level BPE (GPT-2's way of writing bytes as letters), which is what most models of today
have and what OpenVINO's reader of GGUF files is used with here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError
from headrace.stores.models import byte_pairs
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
        pieces=tuple(_pieces(header)), ends=byte_pairs.ends(header), context_tokens=context_tokens
    )


def writes_reasoning(template: str | None) -> bool:
    """Whether a model with this chat template writes down what it thinks."""
    return template is not None and any(word in template for word in _REASONING)


def _pieces(header: dict[str, Any]) -> list[bytes]:
    tokens: list[str] = header["tokenizer.ggml.tokens"]
    kinds: list[int] = header.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    letters = {letter: bytes([byte]) for byte, letter in enumerate(byte_pairs.letters())}
    pieces = []
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (byte_pairs.UNKNOWN, byte_pairs.CONTROL):
            pieces.append(b"")
        elif kind == byte_pairs.USER_DEFINED:
            pieces.append(token.encode(errors="surrogateescape"))
        else:
            # A letter that stands for no byte can only be meant as itself.
            pieces.append(b"".join(letters.get(c) or c.encode() for c in token))
    return pieces
