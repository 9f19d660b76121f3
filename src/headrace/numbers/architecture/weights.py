"""How many bytes a weight takes, by dtype, by GGUF type and by Hugging Face's quantisations.

A weight's ``kind`` is its place in a layer (``attention.q``, ``mlp.down``, ``experts.up``, ``head``,
...), because quantisation treats places differently. ``None`` is unknown, with the reason kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

# ggml's blocks: bytes of a block / weights in it.
# https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
GGUF_TYPES: Mapping[str, tuple[int, int]] = {
    "F32": (4, 1),
    "F16": (2, 1),
    "BF16": (2, 1),
    "F64": (8, 1),
    "I8": (1, 1),
    "I16": (2, 1),
    "I32": (4, 1),
    "Q4_0": (18, 32),
    "Q4_1": (20, 32),
    "Q5_0": (22, 32),
    "Q5_1": (24, 32),
    "Q8_0": (34, 32),
    "Q2_K": (84, 256),
    "Q3_K": (110, 256),
    "Q4_K": (144, 256),
    "Q5_K": (176, 256),
    "Q6_K": (210, 256),
    "Q8_K": (292, 256),
    "IQ1_S": (50, 256),
    "IQ1_M": (56, 256),
    "IQ2_XXS": (66, 256),
    "IQ2_XS": (74, 256),
    "IQ2_S": (82, 256),
    "IQ3_XXS": (98, 256),
    "IQ3_S": (110, 256),
    "IQ4_NL": (18, 32),
    "IQ4_XS": (136, 256),
    "TQ1_0": (54, 256),
    "TQ2_0": (66, 256),
    "MXFP4": (17, 32),
}
# The numbers that stand for them in a file, ggml's enum ggml_type.
GGUF_TYPE_NUMBERS: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
DTYPES: Mapping[str, float] = {
    "float64": 8,
    "float32": 4,
    "float": 4,
    "fp32": 4,
    "float16": 2,
    "half": 2,
    "fp16": 2,
    "bfloat16": 2,
    "bf16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "fp8": 1,
    "int8": 1,
}
_COMPUTES = {
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "fp8": "fp8",
    "float8_e4m3fn": "fp8",
    "int8": "int8",
}
_TABLES = ("embedding", "head", "positions")


@frozen(kw_only=True)
class Weights:
    """Bytes of a weight: ``kinds`` by place, ``usual`` for all others; ``vectors`` norms and biases.

    ``activations`` and ``cache`` are bytes of one number of those, ``computes`` the dtype that
    products are made in (bf16, ...), None where it depends on who runs the model. ``what`` says it
    in words, and ``unknown`` why something is not known.
    """

    usual: float | None
    kinds: Mapping[str, float | None] = {}
    vectors: float | None = None
    activations: float | None = None
    cache: float | None = None
    computes: str | None = None
    what: str = "unknown"
    unknown: tuple[str, ...] = ()


def of_dtype(dtype: str | None) -> Weights:
    """All weights, activations and the cache in one ``dtype``; unknown where that is None."""
    if dtype is None:
        return Weights(
            usual=None,
            unknown=("bytes: the configuration names no dtype (dtype or torch_dtype); name one",),
        )
    name = dtype.removeprefix("torch.").lower()
    size = DTYPES.get(name)
    if size is None:
        return Weights(
            usual=None,
            what=name,
            unknown=(f"bytes: dtype {dtype!r} is unknown; known: {', '.join(DTYPES)}",),
        )
    return Weights(
        usual=size,
        vectors=size,
        activations=size,
        cache=size,
        computes=_COMPUTES.get(name),
        what=name,
    )


def of_gguf_type(name: str) -> float | None:
    """Bytes of one weight of a GGUF type: a block's bytes / a block's weights."""
    found = GGUF_TYPES.get(name.upper())
    return None if found is None else found[0] / found[1]


def quantised(plain: Weights, settings: Mapping[str, Any]) -> Weights:
    """``plain`` with its layers' weights as ``quantization_config`` stores them.

    Tables (embedding, head) and what the configuration excludes stay as they are. The bytes are
    those of the packed weights with their scales and zero points.
    """
    method = str(settings.get("quant_method", "")).lower()
    size, what = _packed(method, settings)
    tables = dict.fromkeys((*_TABLES, "router"), plain.usual)
    if size is None:
        return evolve(
            plain,
            usual=None,
            kinds=tables,
            what=what,
            unknown=(*plain.unknown, f"weight bytes: quantisation {what} is not known here"),
        )
    if method == "mxfp4":  # its experts alone
        places = ("experts.gate", "experts.up", "experts.down")
        return evolve(
            plain, kinds=dict.fromkeys(places, size), what=f"{what}, the rest {plain.what}"
        )
    return evolve(plain, usual=size, kinds=tables, what=f"{what}, tables {plain.what}")


def _packed(method: str, settings: Mapping[str, Any]) -> tuple[float | None, str]:
    """Bytes of one quantised weight with its share of scales, and the method in words."""
    if method in {"gptq", "awq"}:
        bits = settings.get("bits", settings.get("w_bit", 4))
        group = settings.get("group_size", settings.get("q_group_size", 128))
        return _grouped(bits, group, zeros=True), f"{method} {bits} bits in groups of {group}"
    if method in {"bitsandbytes", "bnb"}:
        return _bitsandbytes(settings)
    if method in {"fp8", "fbgemm_fp8"}:
        block = settings.get("weight_block_size")
        return 1 + (4 / (block[0] * block[1]) if block else 0), "fp8"
    if method == "compressed-tensors":
        return _compressed(settings)
    if method == "mxfp4":
        return 17 / 32, "mxfp4 experts"
    return None, repr(method or "without quant_method")


def _bitsandbytes(settings: Mapping[str, Any]) -> tuple[float, str]:
    if not settings.get("load_in_4bit"):
        # A scale a row, which does not show in bytes a weight.
        return 1.0, "bitsandbytes 8 bits"
    # Blocks of 64 with a scale of 4 bytes; doubly quantised: of one, and 4 for 256 blocks.
    twice = settings.get("bnb_4bit_use_double_quant")
    scale = 1 / 64 + 4 / (64 * 256) if twice else 4 / 64
    return 0.5 + scale, "bitsandbytes 4 bits"


def _compressed(settings: Mapping[str, Any]) -> tuple[float | None, str]:
    groups = settings.get("config_groups") or {}
    weights = [group.get("weights") or {} for group in groups.values()]
    found = {
        (w.get("num_bits"), w.get("group_size") or 0, bool(w.get("symmetric", True)))
        for w in weights
    }
    if len(found) != 1:
        return None, "'compressed-tensors' with several kinds of groups"
    ((bits, group, symmetric),) = found
    if not isinstance(bits, int):
        return None, "'compressed-tensors' without num_bits"
    words = f"compressed-tensors {bits} bits" + (f" in groups of {group}" if group else "")
    return _grouped(bits, group or -1, zeros=not symmetric), words


def _grouped(bits: int, group: int, *, zeros: bool) -> float:
    """bits / 8, and for each group a scale of two bytes and, where it has one, a zero of ``bits``."""
    scale = (2 + (bits / 8 if zeros else 0)) / group if group > 0 else 0
    return bits / 8 + scale
