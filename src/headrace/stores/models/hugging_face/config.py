"""``config.json`` and ``generation_config.json`` of the model that a GGUF file holds.

What would change the model's numbers and has no place here is refused by name, so that an exported
model never answers otherwise than the file it came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.numbers.architecture.gguf import Tensors, config_of
from headrace.stores.models import byte_pairs

CLASSES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The architectures that are known here, by the name that both GGUF and transformers give them."""

_SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "max_position_embeddings",
    "vocab_size",
)
# What a file may say of its architecture: below its name, all of it is used or checked here.
_KNOWN = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "vocab_size",
    }
)
_ROPE_BASE = 10_000.0
# Llama 3.1's way of stretching its context; the files keep its results, not these.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read_config(
    metadata: Mapping[str, Any],
    tensors: Tensors,
    *,
    dtype: str,
    rope_factors: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The words of a config.json; ``rope_factors`` are the file's tensor ``rope_freqs.weight``.

    Raises LLMCapabilityError for what is not known here or has no place there, and
    LLMInvalidRequestError where the file lacks what is needed.
    """
    made = str(metadata.get("general.architecture", ""))
    if made not in CLASSES:
        raise LLMCapabilityError(
            f"general.architecture is {made!r}, which cannot be exported; "
            f"known: {', '.join(sorted(CLASSES))}"
        )
    _check_keys(made, metadata)
    found = config_of(made, made, metadata, tensors)
    for name in _SHAPE:
        if not isinstance(found.get(name), int):
            raise LLMInvalidRequestError(
                f"the file does not say the model's {name}; a number is needed", param="model"
            )
    config: dict[str, Any] = {"architectures": [CLASSES[made]], "model_type": made}
    config |= {name: found[name] for name in _SHAPE}
    config["num_key_value_heads"] = found.get("num_key_value_heads") or found["num_attention_heads"]
    head = _head(made, metadata, found)
    if head * found["num_attention_heads"] != found["hidden_size"] or made == "qwen3":
        config["head_dim"] = head
    config["hidden_act"] = "silu"
    config["rms_norm_eps"] = _shortest(metadata[f"{made}.attention.layer_norm_rms_epsilon"])
    config["rope_theta"] = float(metadata.get(f"{made}.rope.freq_base", _ROPE_BASE))
    scaling = _scaling(made, metadata, config["rope_theta"], head, rope_factors)
    if scaling is not None:
        config["rope_scaling"] = scaling
    if made != "qwen2":  # there it is no setting: q, k and v have one
        config["attention_bias"] = "blk.0.attn_output.bias" in tensors
    if made == "llama":
        config["mlp_bias"] = "blk.0.ffn_down.bias" in tensors
    config["tie_word_embeddings"] = found["tie_word_embeddings"]
    config["torch_dtype"] = dtype
    named = {"bos": "bos", "eos": "eos", "pad": "padding"}
    for short, name in named.items():
        token = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None:
            config[f"{short}_token_id"] = token
    return config


def read_generation(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a generation_config.json: where an answer ends."""
    begin = {name: config[name] for name in ("bos_token_id", "pad_token_id") if name in config}
    return {**begin, "eos_token_id": sorted(byte_pairs.ends(metadata))}


def _check_keys(made: str, metadata: Mapping[str, Any]) -> None:
    prefix = f"{made}."
    for key, value in metadata.items():
        if key.startswith(prefix) and key.removeprefix(prefix) not in _KNOWN:
            raise LLMCapabilityError(
                f"{key} is {value!r}, which an export would lose; a model without it is needed"
            )
    if f"{made}.attention.layer_norm_rms_epsilon" not in metadata:
        raise LLMInvalidRequestError(
            f"the file does not say {made}.attention.layer_norm_rms_epsilon", param="model"
        )


def _head(made: str, metadata: Mapping[str, Any], found: Mapping[str, Any]) -> int:
    """How wide one attention head is."""
    head = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    for key in ("attention.value_length", "rope.dimension_count"):
        width = metadata.get(f"{made}.{key}", head)
        if width != head:
            raise LLMCapabilityError(
                f"{made}.{key} is {width}, and must be the heads' width ({head}) to be exported"
            )
    return int(head)


def _scaling(
    made: str,
    metadata: Mapping[str, Any],
    base: float,
    head: int,
    factors: Sequence[float] | None,
) -> dict[str, Any] | None:
    if factors is not None:
        return _as_llama3(factors, base, head)
    kind = metadata.get(f"{made}.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise LLMCapabilityError(
            f"{made}.rope.scaling.type is {kind!r}; none, linear or yarn can be exported"
        )
    factor = metadata.get(f"{made}.rope.scaling.factor")
    if factor is None:
        raise LLMInvalidRequestError(
            f"{made}.rope.scaling.type is {kind!r}, but there is no {made}.rope.scaling.factor",
            param="model",
        )
    scaling = {"rope_type": kind, "factor": float(factor)}
    original = metadata.get(f"{made}.rope.scaling.original_context_length")
    if kind == "yarn" and original is not None:
        scaling["original_max_position_embeddings"] = original
    return scaling


def _as_llama3(factors: Sequence[float], base: float, head: int) -> dict[str, Any]:
    """The settings from which these factors, by which each wave is slowed down, were made."""
    factor = _shortest(max(factors))
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    expected = []
    for place in range(0, head, 2):
        turns = _LLAMA3["original_max_position_embeddings"] / (2 * math.pi * base ** (place / head))
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        expected.append(1 / ((1 - share) / factor + share))
    same = len(expected) == len(factors) and all(
        math.isclose(one, other, rel_tol=1e-4)
        for one, other in zip(expected, factors, strict=False)
    )
    if not same:
        raise LLMCapabilityError(
            "rope_freqs.weight holds factors that are not Llama 3.1's, and have no place in a "
            "config.json"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _shortest(value: float) -> float:
    """The decimal that was meant where a file keeps 32 bits: 1e-05, not 9.999999747378752e-06."""
    return float(f"{value:.7g}")
