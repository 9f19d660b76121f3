"""A model from a GGUF file's metadata, and its weights' bytes from the types of its tensors.

The metadata is put into the words of a config.json, which one reader then reads. Names of keys:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import Any, TypeAlias

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.numbers.architecture.config import READERS
from headrace.numbers.architecture.config_text import ROWS, read_text
from headrace.numbers.architecture.fields import Fields
from headrace.numbers.architecture.shapes import Model
from headrace.numbers.architecture.weights import GGUF_TYPE_NUMBERS, Weights, of_gguf_type

Tensors: TypeAlias = Mapping[str, tuple[tuple[int, ...], int]]
"""By name: the dimensions as the file has them (the inner one first), and the type's number."""

_KINDS = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "gpt-oss": "gpt_oss",
    "granite": "granite",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "phi2": "phi",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "starcoder2": "starcoder2",
    "deepseek2": "deepseek_v2",
    "bert": "bert",
}
# A config.json's field, and the key below the architecture's name.
_FIELDS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
    "num_experts_per_tok": "expert_used_count",
    "num_experts": "expert_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "first_k_dense_replace": "leading_dense_block_count",
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
}
# Where a tensor's weights are used, by its name without the layer.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "token_embd": ("embedding",),
    "output": ("head",),
    "position_embd": ("positions",),
    "token_types": ("positions",),
    "attn_q": ("attention.q",),
    "attn_k": ("attention.k",),
    "attn_v": ("attention.v",),
    "attn_qkv": ("attention.q", "attention.k", "attention.v"),
    "attn_output": ("attention.out",),
    "attn_q_a": ("attention.q_a",),
    "attn_q_b": ("attention.q_b",),
    "attn_kv_a_mqa": ("attention.kv_a",),
    "attn_kv_b": ("attention.kv_b",),
    "attn_k_b": ("attention.kv_b",),
    "attn_v_b": ("attention.kv_b",),
    "ffn_gate_inp": ("router",),
    **{f"ffn_{what}": (f"mlp.{what}",) for what in ("gate", "up", "down")},
    **{f"ffn_{what}_exps": (f"experts.{what}",) for what in ("gate", "up", "down")},
    **{f"ffn_{what}_shexp": (f"shared.{what}",) for what in ("gate", "up", "down")},
}
# The file types that have one type of weights (ggml's enum llama_ftype); others are mixtures.
_WHOLE_FILES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    32: "BF16",
}


def model_from_gguf(
    metadata: Mapping[str, Any], tensors: Tensors | None = None, *, name: str | None = None
) -> Model:
    """The model that a GGUF file's key-value pairs describe; ``tensors`` give its bytes exactly.

    Raises LLMInvalidRequestError for an architecture that is not known here.
    """
    made = str(metadata.get("general.architecture", ""))
    kind = _KINDS.get(made)
    if kind is None:
        raise LLMInvalidRequestError(
            f"general.architecture is {made!r}, which is not known here; "
            f"known: {', '.join(sorted(_KINDS))}",
            param="general.architecture",
        )
    config = config_of(made, kind, metadata, tensors)
    kind = str(config["model_type"])
    fields = Fields(config, "the GGUF file's metadata")
    shape, uncounted = read_text(fields, kind) if kind in ROWS else READERS[kind](fields)
    weights = _weights(metadata, tensors)
    return Model(
        name=name or str(metadata.get("general.name") or made),
        shape=shape,
        weights=weights,
        uncounted=uncounted,
    )


def config_of(
    made: str, kind: str, metadata: Mapping[str, Any], tensors: Tensors | None
) -> dict[str, Any]:
    """The metadata in the words of a config.json."""
    # A BERT in these files is an encoder whose outputs are pooled without weights.
    config: dict[str, Any] = {"model_type": kind, "architectures": ["BertEncoder"]}
    for field, key in _FIELDS.items():
        value = metadata.get(f"{made}.{key}")
        if isinstance(value, (list, tuple)):
            # One for each layer; a file with several values has layers that we do not know.
            if len(set(value)) != 1:
                raise LLMInvalidRequestError(
                    f"{made}.{key} differs from layer to layer; one value is needed", param=key
                )
            value = value[0]
        if value is not None:
            config[field] = value
    config["n_routed_experts"] = config.get("num_experts")
    if kind == "llama" and config.get("num_experts"):
        config |= {"model_type": "mixtral", "sliding_window": None}
    if kind == "deepseek_v2":
        rotary = metadata.get(f"{made}.rope.dimension_count")
        whole = metadata.get(f"{made}.attention.key_length_mla", config.get("head_dim"))
        if isinstance(rotary, int) and isinstance(whole, int):
            config |= {"qk_rope_head_dim": rotary, "qk_nope_head_dim": whole - rotary}
        config["v_head_dim"] = metadata.get(
            f"{made}.attention.value_length_mla", metadata.get(f"{made}.attention.value_length")
        )
    config["vocab_size"] = _vocabulary(made, metadata, tensors)
    if tensors is not None:
        config["tie_word_embeddings"] = "output.weight" not in tensors
        config["type_vocab_size"] = tensors.get("token_types.weight", ((0, 0), 0))[0][1]
    return config


def _vocabulary(made: str, metadata: Mapping[str, Any], tensors: Tensors | None) -> int | None:
    if tensors is not None and "token_embd.weight" in tensors:
        return tensors["token_embd.weight"][0][1]
    named = metadata.get(f"{made}.vocab_size")
    if isinstance(named, int):
        return named
    tokens = metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, (list, tuple)) else None


def _weights(metadata: Mapping[str, Any], tensors: Tensors | None) -> Weights:
    """Bytes by place: the mean over its tensors, so that the sum over all layers is exact.

    Norms and biases are F32 in these files; llama.cpp keeps activations in F32 and its cache in
    F16 where it is not told otherwise.
    """
    if tensors is None:
        number = metadata.get("general.file_type")
        name = _WHOLE_FILES.get(number) if isinstance(number, int) else None
        size = of_gguf_type(name) if name else None
        why = f"weight bytes: file type {number!r} is a mixture or unknown; its tensors would tell"
        return Weights(
            usual=size,
            vectors=4,
            activations=4,
            cache=2,
            what=name or "GGUF",
            unknown=() if size else (why,),
        )
    stored: dict[str, float] = defaultdict(float)
    held: dict[str, int] = defaultdict(int)
    by_type: dict[str, float] = defaultdict(float)
    unknown: list[str] = []
    for tensor, (shape, number) in tensors.items():
        kind = GGUF_TYPE_NUMBERS.get(number)
        size = None if kind is None else of_gguf_type(kind)
        if kind is None or size is None:
            unknown.append(f"weight bytes: tensor {tensor!r} has the unknown type {number}")
            continue
        by_type[kind] += prod(shape) * size
        place = re.sub(r"^blk\.\d+\.|\.weight$", "", tensor)
        if tensor.endswith(".weight") and len(shape) > 1:
            for each in _PLACES.get(place, ()):
                stored[each] += prod(shape) * size
                held[each] += prod(shape)
    everything = sum(by_type.values())
    most = sorted(by_type.items(), key=lambda item: -item[1])
    shares = [f"{size / everything:.0%} {kind}" for kind, size in most if size > everything / 200]
    return Weights(
        usual=None,
        kinds={place: stored[place] / held[place] for place in stored},
        vectors=4,
        activations=4,
        cache=2,
        what=f"GGUF: {', '.join(shares)} of the bytes; cache F16",
        unknown=tuple(unknown),
    )
