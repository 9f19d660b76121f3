"""Language models from the config.json of transformers: one row a model type, and what differs.

A row says what the configuration does not: which products have biases, how many norms a layer has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from attrs import evolve, frozen

from headrace.numbers.architecture.fields import Fields
from headrace.numbers.architecture.shapes import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Stack,
    Text,
)


@frozen(kw_only=True)
class Row:
    """What a model type does that its configuration does not say.

    ``windows``: which layers slide: ``none`` where the configuration's window is not used, ``all``,
    ``even`` (the first, third, ... layer), ``types`` (by ``layer_types`` alone).
    ``qk_norm``: a norm on each head, or on all heads together.
    ``learned``: positions are a table, which has so many rows more than there are; None where they
    are rotated into queries and keys.
    """

    bias_qkv: bool | None = None
    bias_out: bool | None = None
    bias_mlp: bool | None = None
    gated: bool = True
    norms: int = 2
    norm_bias: bool = False
    outer_norms: int = 1
    tied: bool = False
    learned: int | None = None
    windows: Literal["none", "all", "even", "types"] = "none"
    qk_norm: Literal["none", "head", "whole"] = "none"
    head_bias: bool = False
    sinks: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False


# GPT-2's way of a layer, which others have gone on with.
_BIASED = Row(bias_qkv=True, bias_out=True, bias_mlp=True, gated=False, norm_bias=True)

ROWS: Mapping[str, Row] = {
    "llama": Row(),
    "smollm3": Row(windows="types", tied=True),
    "mistral": Row(windows="all"),
    "ministral": Row(windows="types"),
    "qwen2": Row(bias_qkv=True, bias_out=False, windows="types"),
    "qwen3": Row(qk_norm="head", windows="types"),
    "qwen2_moe": Row(bias_qkv=True, bias_out=False, windows="types", shared_gate=True),
    "qwen3_moe": Row(qk_norm="head", windows="types"),
    "mixtral": Row(windows="all"),
    "gemma": Row(tied=True),
    "gemma2": Row(tied=True, norms=4, windows="even"),
    "gemma3_text": Row(tied=True, norms=4, windows="types", qk_norm="head"),
    "phi3": Row(windows="all"),
    "phi": evolve(_BIASED, norms=1, head_bias=True),
    "granite": Row(),
    "olmo2": Row(qk_norm="whole"),
    "olmoe": Row(qk_norm="whole"),
    "starcoder2": evolve(_BIASED, tied=True, windows="all"),
    "gpt2": evolve(_BIASED, tied=True, learned=0),
    "gpt_neox": _BIASED,
    # Its table has two rows more than it has positions.
    "opt": evolve(_BIASED, tied=True, learned=2),
    "gpt_oss": Row(
        bias_qkv=True,
        bias_out=True,
        windows="types",
        sinks=True,
        router_bias=True,
        expert_bias=True,
    ),
    "deepseek_v2": Row(),
    "deepseek_v3": Row(router_bias=False),
}


def read_text(f: Fields, kind: str) -> tuple[Text, tuple[str, ...]]:
    """The shape of a language model of type ``kind``, and what its configuration has beyond it."""
    row = ROWS[kind]
    width = f.whole("hidden_size", "n_embd")
    depth = f.whole("num_hidden_layers", "n_layer")
    uncounted: list[str] = []
    attention = _attention(f, row, width)
    windows = _windows(f, row, depth)
    feed = _feeds(f, row, kind, width, uncounted)
    layers = tuple(
        Layer(
            attention=attention
            if isinstance(attention, LatentAttention)
            else evolve(attention, window=windows[i]),
            feed=feed(i),
            norms=row.norms,
            norm_bias=row.norm_bias,
        )
        for i in range(depth)
    )
    if f.maybe("num_nextn_predict_layers"):
        uncounted.append("num_nextn_predict_layers: layers that draft tokens are not run here")
    learned = 0
    if row.learned is not None:
        learned = f.whole("n_positions", "max_position_embeddings") + row.learned
    table = f.maybe("word_embed_proj_dim") if kind == "opt" else None
    # OPT's smallest large model has its norms behind the products, and none at the end.
    last = row.outer_norms if f.flag("do_layer_norm_before", True) else 0
    text = Text(
        vocabulary=f.whole("vocab_size"),
        stack=Stack(
            width=width,
            layers=layers,
            outer_norms=last,
            norm_bias=row.norm_bias,
        ),
        tied=f.flag("tie_word_embeddings", row.tied),
        positions=learned,
        head_bias=row.head_bias,
        table_width=table,
    )
    return text, tuple(uncounted)


def _attention(f: Fields, row: Row, width: int) -> Attention | LatentAttention:
    heads = f.whole("num_attention_heads", "n_head")
    if f.maybe("kv_lora_rank") and f.flag("use_mla", True):
        return LatentAttention(
            heads=heads,
            query_rank=f.maybe("q_lora_rank"),
            latent=f.whole("kv_lora_rank"),
            plain_size=f.whole("qk_nope_head_dim"),
            rotary_size=f.whole("qk_rope_head_dim"),
            value_size=f.whole("v_head_dim"),
            bias=f.flag("attention_bias", False),
        )
    size = f.maybe("head_dim") or width // heads
    shared = f.maybe("num_key_value_heads") or heads
    says = f.flag("attention_bias", False)
    biased = says if row.bias_qkv is None else row.bias_qkv
    if f.any("use_bias") is not None and row.bias_qkv:
        biased = f.flag("use_bias", True)
    norms = {"none": (0, 0), "head": (size, size), "whole": (heads * size, shared * size)}
    return Attention(
        heads=heads,
        kv_heads=shared,
        head_size=size,
        bias_q=biased,
        bias_k=biased,
        bias_v=biased,
        bias_out=says if row.bias_out is None else row.bias_out and biased,
        qk_norm=norms[row.qk_norm],
        rotary=row.learned is None,
        softcap=bool(f.any("attn_logit_softcapping")),
        sinks=row.sinks,
    )


def _windows(f: Fields, row: Row, depth: int) -> list[int | None]:
    """The window of each layer, None where it sees all."""
    size = f.maybe("sliding_window")
    if not size or row.windows == "none" or f.any("use_sliding_window") is False:
        return [None] * depth
    kinds = f.any("layer_types")
    if isinstance(kinds, (list, tuple)):
        if len(kinds) != depth:
            raise f.complain("layer_types", f"one for each of {depth} layers is needed")
        slides = [kind == "sliding_attention" for kind in kinds]
    else:
        slides = [_slides(f, row, i) for i in range(depth)]
    return [size if sliding else None for sliding in slides]


def _slides(f: Fields, row: Row, i: int) -> bool:
    """Whether layer ``i`` has a window, in a configuration that does not list its layers."""
    kind = f.text("model_type")
    pattern = f.maybe("sliding_window_pattern", "_sliding_window_pattern")
    if row.windows == "all":
        return True
    if row.windows == "even" or kind == "gpt_oss":
        return i % 2 == 0
    if pattern or kind == "gemma3_text":
        return (i + 1) % (pattern or 6) != 0
    first = f.maybe("max_window_layers")
    return bool(f.any("use_sliding_window")) and first is not None and i >= first


def _feeds(
    f: Fields, row: Row, kind: str, width: int, uncounted: list[str]
) -> Callable[[int], Mlp | Experts]:
    """What stands behind attention in each layer."""
    dense = Mlp(
        width=f.maybe("intermediate_size", "n_inner", "ffn_dim") or 4 * width,
        gated=row.gated,
        bias=f.flag("mlp_bias", False) if row.bias_mlp is None else row.bias_mlp,
    )
    count = f.maybe("n_routed_experts", "num_local_experts", "num_experts")
    if not count or kind not in _MIXTURES:
        if count:
            uncounted.append(f"experts: {kind} is not known here to have any")
        return lambda _: dense
    each = f.maybe("moe_intermediate_size") or f.whole("intermediate_size")
    shared = f.maybe("shared_expert_intermediate_size") or 0
    if kind.startswith("deepseek"):
        shared = each * (f.maybe("n_shared_experts") or 0)
    experts = Experts(
        count=count,
        chosen=f.whole("num_experts_per_tok", "num_selected_experts", "experts_per_token"),
        width=each,
        bias=row.expert_bias,
        router_bias=row.router_bias,
        shared=shared,
        shared_gate=row.shared_gate,
    )
    if kind.startswith("deepseek"):
        first, step = f.whole("first_k_dense_replace", default=0), f.maybe("moe_layer_freq") or 1
        return lambda i: experts if i >= first and i % step == 0 else dense
    alone = f.any("mlp_only_layers") or ()
    step = f.maybe("decoder_sparse_step") or 1
    return lambda i: dense if i in alone or (i + 1) % step else experts


_MIXTURES = frozenset(
    {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3"}
)
