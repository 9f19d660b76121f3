"""GGUF files of a few kilobytes, made from weights as transformers has them, in llama.cpp's way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from backends.tiny_llama import ALPHABET, SPECIAL

WIDTH, INNER, HEADS, KV_HEADS, LAYERS, CONTEXT = 32, 64, 4, 2, 2, 512
HEAD = WIDTH // HEADS
MERGES = ("t h", "th e", "\u0120 the")
TOKENS = (*ALPHABET, *(merge.replace(" ", "") for merge in MERGES), *SPECIAL)
_PRE = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def weights(architecture: str, *, tied: bool = False) -> dict[str, np.ndarray]:
    """Weights under transformers' names, at random but for their shapes."""
    random = np.random.default_rng(3)

    def some(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, shape).astype(np.float32)

    found = {"model.embed_tokens.weight": some(len(TOKENS), WIDTH)}
    if not tied:
        found["lm_head.weight"] = some(len(TOKENS), WIDTH)
    found["model.norm.weight"] = some(WIDTH)
    for layer in range(LAYERS):
        shapes = {
            "input_layernorm.weight": (WIDTH,),
            "self_attn.q_proj.weight": (WIDTH, WIDTH),
            "self_attn.k_proj.weight": (HEAD * KV_HEADS, WIDTH),
            "self_attn.v_proj.weight": (HEAD * KV_HEADS, WIDTH),
            "self_attn.o_proj.weight": (WIDTH, WIDTH),
            "post_attention_layernorm.weight": (WIDTH,),
            "mlp.gate_proj.weight": (INNER, WIDTH),
            "mlp.up_proj.weight": (INNER, WIDTH),
            "mlp.down_proj.weight": (WIDTH, INNER),
        }
        if architecture == "qwen2":
            shapes |= {
                "self_attn.q_proj.bias": (WIDTH,),
                "self_attn.k_proj.bias": (HEAD * KV_HEADS,),
                "self_attn.v_proj.bias": (HEAD * KV_HEADS,),
            }
        if architecture == "qwen3":
            shapes |= {"self_attn.q_norm.weight": (HEAD,), "self_attn.k_norm.weight": (HEAD,)}
        for name, shape in shapes.items():
            found[f"model.layers.{layer}.{name}"] = some(*shape)
    return found


def write_tiny(
    path: Path,
    architecture: str = "llama",
    *,
    tied: bool = False,
    kind: str = "F32",
    factors: np.ndarray | None = None,
    extra: Mapping[str, Any] | None = None,
    template: str | None = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
) -> Path:
    """Write the model of ``weights``; its matrices as ``kind``, ``extra`` further settings of its own."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0 if factors is None else 500_000.0)
    if architecture == "qwen3":
        writer.add_key_length(HEAD)
        writer.add_value_length(HEAD)
    for name, value in (extra or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.{name}", value)
    _write_tokenizer(writer, architecture, template)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    wanted = gguf.GGMLQuantizationType[kind]
    for name, array in weights(architecture, tied=tied).items():
        data = _as_llama_cpp_turns(name, array) if architecture == "llama" else array
        if data.ndim == 1:
            writer.add_tensor(_short(name), data)
        else:
            writer.add_tensor(_short(name), gguf.quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: gguf.GGUFWriter, architecture: str, template: str | None) -> None:
    normal = len(TOKENS) - len(SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE[architecture])
    writer.add_token_list(list(TOKENS))
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * normal + [gguf.TokenType.CONTROL] * len(SPECIAL)
    )
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(TOKENS.index("<|begin_of_text|>"))
    writer.add_eos_token_id(TOKENS.index("<|eot_id|>"))
    if template is not None:
        writer.add_chat_template(template)


def _short(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{_NAMES[stem]}.{kind}"
    layer, _, inside = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_NAMES[inside]}.{kind}"


def _as_llama_cpp_turns(name: str, array: np.ndarray) -> np.ndarray:
    """Row i of a head's first half beside row i of its second, as convert_hf_to_gguf.py has them."""
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return array
    rows = []
    for head in np.split(array, heads):
        first, second = np.split(head, 2)
        for one, other in zip(first, second, strict=True):
            rows += [one, other]
    return np.stack(rows)


def llama3_factors(base: float = 500_000.0, factor: float = 8.0) -> np.ndarray:
    """By how much Llama 3.1 slows each wave of a head down (its published rule, for 8192 tokens)."""
    found = []
    for place in range(0, HEAD, 2):
        wave = 2 * np.pi * base ** (place / HEAD)
        if wave < 8192 / 4:
            found.append(1.0)
        elif wave > 8192:
            found.append(factor)
        else:
            share = (8192 / wave - 1) / 3
            found.append(1 / ((1 - share) / factor + share))
    return np.array(found)
