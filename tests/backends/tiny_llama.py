"""A real GGUF model of a few kilobytes, with the special tokens of Llama 3 and random weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_WIDTH, _INNER, _HEADS, _CONTEXT = 32, 64, 2, 4096


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


ALPHABET = _byte_alphabet()


def piece(token: int) -> str:
    """The text of a token: one byte's, or a special token's name."""
    return chr(token) if token < 256 else SPECIAL[token - 256]


def write_tiny_llama(path: Path) -> Path:
    """One layer, one token a byte, and Llama 3's special tokens after them."""
    tokens = [*ALPHABET, *SPECIAL]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-llama-3")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    # A byte-level tokenizer must have merges; this one never applies to what the tests write.
    writer.add_token_merges([f"{ALPHABET[0]} {ALPHABET[0]}"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256 + SPECIAL.index("<|eot_id|>"))
    writer.add_add_bos_token(True)
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.05, shape).astype(np.float32)

    writer.add_tensor("token_embd.weight", weights(len(tokens), _WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    writer.add_tensor("output.weight", weights(len(tokens), _WIDTH))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(_WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(_WIDTH, _WIDTH))
    for name in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(_INNER, _WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", weights(_WIDTH, _INNER))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
