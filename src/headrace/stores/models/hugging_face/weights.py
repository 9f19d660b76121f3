"""``model.safetensors`` from the tensors of a GGUF file: other names, plain numbers, rows put back.

llama.cpp keeps the rows of Llama's q and k in the order that its rotation wants (``permute`` in its
convert_hf_to_gguf.py); here they go back to where transformers expects them. Tensors are read,
rewritten and written a few rows at a time, so that a model need not fit into memory. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.stores.models.ggml import encoded
from headrace.stores.models.store import Progress

DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""The types of numbers that can be written, with torch's names for them."""

ROPE_FACTORS = "rope_freqs.weight"

_BYTES = {"bf16": 2, "f16": 2, "f32": 4}
_ALIGNMENT = 8
_NUMBERS_AT_ONCE = 1 << 24
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OF_HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


@frozen(kw_only=True)
class Written:
    """A tensor to be written: ``source`` as the GGUF file has it, ``heads`` whose rows go back."""

    name: str
    shape: tuple[int, ...]
    source: Any
    heads: int | None = None


def name_tensors(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> list[Written]:
    """The file's tensors under transformers' names; all that the model has, and nothing else.

    Raises LLMInvalidRequestError for one that is missing, LLMCapabilityError for one too many.
    """
    names = _names(config)
    for name in names:
        if name not in tensors:
            raise LLMInvalidRequestError(
                f"the file holds no tensor {name!r}, which its model needs", param="model"
            )
    for name in tensors:
        if name not in names and name != ROPE_FACTORS:
            raise LLMCapabilityError(
                f"the file holds a tensor {name!r}, which has no place in a "
                f"{config['architectures'][0]}"
            )
    return [
        Written(
            name=ours,
            shape=tuple(int(size) for size in reversed(tensors[name].shape)),
            source=tensors[name],
            heads=_turned(name, config),
        )
        for name, ours in names.items()
    ]


def write_weights(path: Path, tensors: list[Written], dtype: str, progress: Progress) -> int:
    """Write them to a new file at ``path``; its size in bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + prod(tensor.shape) * _BYTES[dtype]
        header[tensor.name] = {
            "dtype": dtype.upper(),
            "shape": tensor.shape,
            "data_offsets": (begin, end),
        }
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % _ALIGNMENT)
    with path.open("xb") as out:
        out.write(len(words).to_bytes(8, "little") + words)
        done = 0
        for tensor in tensors:
            for part in _parts(tensor):
                done += _write(out, part, dtype, tensor.name)
                progress("Writing the weights", done, end)
        return out.tell()


def values(tensor: Any) -> Any:
    """A tensor's numbers as an array of 32-bit floats; LLMCapabilityError for a type unknown here."""
    return _decoded(tensor.data, tensor.tensor_type, tensor.name)


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """Every tensor that this model has: its name in a GGUF file, and transformers' name."""
    outside = {name: ours for name, ours in _OUTSIDE.items() if name != "output"}
    if not config["tie_word_embeddings"]:
        outside["output"] = _OUTSIDE["output"]
    names = {f"{name}.weight": f"{ours}.weight" for name, ours in outside.items()}
    inside = {**_LAYER, **(_OF_HEADS if config["model_type"] == "qwen3" else {})}
    biased = _biased(config)
    for layer in range(config["num_hidden_layers"]):
        for name, ours in inside.items():
            for kind in ("weight", "bias") if name in biased else ("weight",):
                names[f"blk.{layer}.{name}.{kind}"] = f"model.layers.{layer}.{ours}.{kind}"
    return names


def _biased(config: Mapping[str, Any]) -> set[str]:
    if config["model_type"] == "qwen2":
        return {"attn_q", "attn_k", "attn_v"}
    return {
        name
        for name in _MATRICES
        if config.get("attention_bias" if name.startswith("attn") else "mlp_bias")
    }


def _turned(name: str, config: Mapping[str, Any]) -> int | None:
    inside = _IN_LAYER.fullmatch(name)
    if config["model_type"] != "llama" or inside is None:
        return None
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    field = heads.get(inside[2])
    return None if field is None else int(config[field])


def _parts(tensor: Written) -> Iterator[Any]:
    """Its numbers from the first row to the last."""
    data, kind = tensor.source.data, tensor.source.tensor_type
    if tensor.heads is not None:
        # A head has its rows as pairs that are rotated together: (pair, half) back to (half, pair).
        rows = _decoded(data, kind, tensor.source.name)
        pairs = rows.reshape(tensor.heads, -1, 2, *rows.shape[1:])
        yield pairs.swapaxes(1, 2).reshape(rows.shape)
        return
    if len(tensor.shape) < 2:
        yield _decoded(data, kind, tensor.source.name)
        return
    at_once = max(1, _NUMBERS_AT_ONCE // tensor.shape[-1])
    for row in range(0, tensor.shape[0], at_once):
        yield _decoded(data[row : row + at_once], kind, tensor.source.name)


def _decoded(data: Any, kind: Any, name: str) -> Any:
    import gguf

    try:
        return gguf.dequantize(data, kind)
    except NotImplementedError as unknown:
        raise LLMCapabilityError(
            f"tensor {name!r} is of the type {kind.name}, which cannot be read here"
        ) from unknown


def _write(out: IO[bytes], numbers: Any, dtype: str, name: str) -> int:
    import numpy as np

    if dtype == "f16":
        largest = float(np.abs(numbers).max(initial=0.0))
        if largest > float(np.finfo(np.float16).max):
            raise LLMCapabilityError(
                f"tensor {name!r} holds {largest:g}, which f16 cannot; export it as bf16 or f32"
            )
    # Plain numbers are the same in ggml's types of these names.
    return out.write(encoded(numbers, dtype.upper()).tobytes())
