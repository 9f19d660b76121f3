"""The rules of a count, bytes, experts, windows, quantisations, GGUF, and what is not known."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from architecture.cases import CASES, DEEPSEEK_OCR, DEEPSEEK_V2_LITE, LLAMA_3_8B
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.numbers.architecture import (
    Conventions,
    Pass,
    decode,
    describe,
    forward,
    kv_bytes_per_token,
    memory_bytes,
    model_from_config,
    model_from_gguf,
    prefill,
    size,
    total,
    walk,
)
from headrace.numbers.architecture.pieces import seen
from headrace.numbers.architecture.stack import touched
from headrace.numbers.architecture.weights import GGUF_TYPES, of_gguf_type

LLAMA = model_from_config(LLAMA_3_8B)
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "torch_dtype": "bfloat16",
}


@given(past=st.integers(0, 60), tokens=st.integers(1, 60), window=st.none() | st.integers(1, 80))
def test_pairs_that_a_mask_lets_through_are_those_that_one_counts(
    past: int, tokens: int, window: int | None
) -> None:
    counted = sum(min(past + i, window) if window else past + i for i in range(1, tokens + 1))
    assert seen(past, tokens, window) == counted


def test_causal_attention_is_just_over_half_of_dense() -> None:
    dense = forward(LLAMA, prefill(512)).total.flops
    causal = forward(LLAMA, prefill(512), Conventions(attention="causal")).total.flops
    pairs = 512 * 512 - 512 * 513 // 2
    assert dense - causal == 4 * 4096 * 32 * pairs
    one = decode(512)
    assert (
        forward(LLAMA, one).total.flops
        == forward(LLAMA, one, Conventions(attention="causal")).total.flops
    )


def test_a_prefill_in_pieces_is_the_causal_prefill() -> None:
    rules = Conventions(attention="causal")
    whole = forward(LLAMA, prefill(700), rules).total.flops
    pieces = [Pass(tokens=300), Pass(tokens=256, past=300), Pass(tokens=144, past=556)]
    assert sum(forward(LLAMA, piece, rules).total.flops for piece in pieces) == whole


def test_the_rules_are_said() -> None:
    said = " ".join(describe(Conventions(attention="causal", logits="last", elementwise=True)))
    for word in ("multiply-add is 2", "causal", "last position", "elementwise work: counted"):
        assert word in said
    assert forward(LLAMA, prefill(1)).rules == describe(Conventions())


def test_elementwise_work_is_little_and_reads_the_norms() -> None:
    plain = forward(LLAMA, decode(512)).total
    more = forward(LLAMA, decode(512), Conventions(elementwise=True)).total
    assert plain.flops < more.flops < 1.01 * plain.flops
    norms = (2 * 32 + 1) * 4096
    assert more.weight_bytes is not None
    assert plain.weight_bytes is not None
    assert more.weight_bytes - plain.weight_bytes == 2 * norms


def test_the_tree_adds_up() -> None:
    for config in (LLAMA_3_8B, DEEPSEEK_V2_LITE, DEEPSEEK_OCR):
        found = forward(model_from_config(config), prefill(100))
        assert total(found.tree) == found.total
        for _, part in walk(found.tree):
            below = sum(total(each).flops for each in part.parts)
            assert (part.own.flops + below) * part.times == total(part).flops


def test_cache_bytes_follow_heads_and_not_queries() -> None:
    assert kv_bytes_per_token(LLAMA) == 32 * 2 * 8 * 128 * 2
    read = forward(LLAMA, decode(1000, batch=3)).total
    assert read.kv_read_bytes == 3 * 1000 * 131_072
    assert read.kv_write_bytes == 3 * 131_072


def test_a_window_bounds_the_cache_that_is_read() -> None:
    gemma = model_from_config(CASES["gemma-2-9b"].config)
    layer = 2 * 8 * 256 * 4
    read = forward(gemma, decode(32_768)).total.kv_read_bytes
    assert read == 21 * layer * (4095 + 32_768)


def test_weights_are_read_once_for_a_batch() -> None:
    one, many = forward(LLAMA, decode(512)).total, forward(LLAMA, decode(512, batch=64)).total
    assert one.weight_bytes is not None
    assert many.weight_bytes is not None
    # A row of the embedding for each sequence is all that is more.
    assert many.weight_bytes - one.weight_bytes == 63 * 4096 * 2


def test_the_experts_that_a_batch_touches_are_those_expected() -> None:
    assert touched(8, 2, 1) == pytest.approx(2)
    assert touched(8, 2, 2) == pytest.approx(8 * (1 - 0.75**2))
    assert touched(8, 2, 10_000) == pytest.approx(8)
    mixtral = model_from_config(CASES["mixtral-8x7b"].config)
    expert = 3 * 4096 * 14336 * 2
    few, all_of_them = forward(mixtral, decode(10)).total, forward(mixtral, prefill(4096)).total
    assert few.weight_bytes is not None
    assert all_of_them.weight_bytes is not None
    apart = all_of_them.weight_bytes - few.weight_bytes
    assert apart == pytest.approx(32 * 6 * expert + 4095 * 4096 * 2)
    # Every expert is stored, whatever is touched.
    assert size(mixtral).parameters == 46_702_792_704


def test_the_ways_of_latent_attention_differ_by_what_they_cache_and_compute() -> None:
    model = model_from_config(DEEPSEEK_V2_LITE)

    def done(way: Any) -> Any:
        return forward(model, decode(2048), Conventions(latent=way)).total

    expanded, latent, absorbed = done("expanded"), done("latent"), done("absorbed")
    assert latent.flops > 10 * expanded.flops
    assert expanded.flops < absorbed.flops < latent.flops
    assert latent.kv_read_bytes == absorbed.kv_read_bytes == 2048 * 27 * (512 + 64) * 2
    assert expanded.kv_read_bytes == 2048 * 27 * 16 * (192 + 128) * 2
    assert kv_bytes_per_token(model, Conventions(latent="absorbed")) == 27 * 576 * 2
    assert {done(way).parameters for way in ("expanded", "latent", "absorbed")} == {
        size(model).parameters
    }


def test_a_decode_step_of_an_encoder_decoder_reads_the_crossed_cache() -> None:
    whisper = model_from_config(CASES["whisper-small"].config)
    first, later = forward(whisper, prefill(4)), forward(whisper, decode(4))
    assert [part.name for part in first.tree.parts] == ["encoder", "decoder"]
    assert [part.name for part in later.tree.parts] == ["decoder"]
    assert later.total.kv_read_bytes == 12 * 2 * 768 * 2 * (1500 + 4)


def test_a_configuration_without_dtype_has_flops_and_no_bytes() -> None:
    model = model_from_config({k: v for k, v in SMALL.items() if k != "torch_dtype"})
    found = forward(model, prefill(5))
    assert found.total.flops > 0
    assert found.total.weight_bytes is None
    assert memory_bytes(found.total) is None
    assert any("dtype" in reason for reason in found.uncounted)
    named = model_from_config({**SMALL, "torch_dtype": None}, dtype="float16")
    assert size(named).stored_bytes == 2 * size(named).parameters


@pytest.mark.parametrize(
    ("settings", "each"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, 0.5 + 2.5 / 64),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5625),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 16384),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "symmetric": True}}},
            },
            1,
        ),
    ],
)
def test_quantised_weights_are_smaller_and_tables_are_not(
    settings: dict[str, Any], each: float
) -> None:
    model = model_from_config({**SMALL, "quantization_config": settings})
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    tables, vectors = 2 * 300 * 64, 5 * 64
    assert size(model).parameters == matrices + tables + vectors
    assert size(model).stored_bytes == pytest.approx(matrices * each + 2 * (tables + vectors))


def test_a_quantisation_that_is_not_known_leaves_the_bytes_open() -> None:
    model = model_from_config({**SMALL, "quantization_config": {"quant_method": "newest"}})
    found = forward(model, prefill(5))
    assert found.total.flops > 0
    assert found.total.weight_bytes is None
    assert found.uncounted == ("weight bytes: quantisation 'newest' is not known here",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba9"}, "model_type is 'mamba9', which is not known here; known: bert,"),
        ({"hidden_size": None}, "config has no hidden_size or n_embd; a whole number is needed"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'; a whole number"),
        ({"vocab_size": True}, "vocab_size is True"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=re.escape(said)):
        model_from_config({**SMALL, **change})


def test_a_pass_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens is 0; it must be 1 or more"):
        prefill(0)
    with pytest.raises(ValueError, match="past is -1"):
        decode(-1)


def test_a_smaller_picture_is_less_work_in_every_part_of_its_front() -> None:
    model = model_from_config(DEEPSEEK_OCR)
    small = forward(model, prefill(300, image_px=640)).tree
    names = [part.name for part in small.parts]
    found = dict(zip(names, (total(part).flops for part in small.parts), strict=True))
    # 10 x 10 cells of 64 px.
    assert found["projector"] == 2 * 100 * 2048 * 1280
    products = 2 * 101 * (4 * 1024**2 + 2 * 1024 * 4096)
    assert found["CLIP encoder"] == 24 * (products + 4 * 101**2 * 1024)


def test_draft_layers_are_named_as_not_counted() -> None:
    model = model_from_config(CASES["deepseek-v3"].config)
    assert any("num_nextn_predict_layers" in text for text in model.uncounted)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 2048,
    "llama.vocab_size": 1024,
    "general.file_type": 7,
}


def tensors(down: int = 14) -> dict[str, tuple[tuple[int, ...], int]]:
    """Tensors of a Q4_K mixture; every other ``ffn_down`` has the type ``down`` (Q6_K)."""
    found = {"token_embd.weight": ((256, 1024), 14), "output_norm.weight": ((256,), 0)}
    for i in range(2):
        for name, shape in {
            "attn_q": (256, 256),
            "attn_k": (256, 128),
            "attn_v": (256, 128),
            "attn_output": (256, 256),
            "ffn_gate": (256, 512),
            "ffn_up": (256, 512),
        }.items():
            found[f"blk.{i}.{name}.weight"] = (shape, 12)
        found[f"blk.{i}.ffn_down.weight"] = ((512, 256), down if i else 12)
        found[f"blk.{i}.attn_norm.weight"] = ((256,), 0)
        found[f"blk.{i}.ffn_norm.weight"] = ((256,), 0)
    return found


def test_a_gguf_files_bytes_are_those_of_its_tensors() -> None:
    model = model_from_gguf(METADATA, tensors())
    sizes = {0: 4, 12: 144 / 256, 14: 210 / 256}
    stored = sum(
        (shape[0] * (shape[1] if len(shape) > 1 else 1)) * sizes[kind]
        for shape, kind in tensors().values()
    )
    assert size(model).stored_bytes == stored
    # Its head is the table: there is no output.weight.
    assert total(forward(model, prefill(1)).tree.parts[-1]).parameters == 0
    assert "Q4_K" in model.weights.what


def test_a_gguf_file_says_its_flops_without_its_tensors() -> None:
    alone = model_from_gguf(METADATA)
    whole = model_from_gguf(METADATA, tensors())
    tied = evolve(alone, shape=whole.shape)
    assert forward(tied, prefill(7)).total.flops == forward(whole, prefill(7)).total.flops
    assert alone.weights.usual == 34 / 32
    mixed = model_from_gguf({**METADATA, "general.file_type": 15})
    assert forward(mixed, prefill(7)).total.weight_bytes is None
    assert "mixture" in mixed.weights.unknown[0]


def test_a_tensor_of_an_unknown_type_leaves_its_bytes_open() -> None:
    model = model_from_gguf(METADATA, {**tensors(), "blk.0.attn_q.weight": ((256, 256), 99)})
    model = model_from_gguf(
        METADATA, {**tensors(), **{f"blk.{i}.attn_q.weight": ((256, 256), 99) for i in (0, 1)}}
    )
    assert forward(model, prefill(1)).total.weight_bytes is None
    assert "type 99" in model.weights.unknown[0]


def test_a_strange_gguf_architecture_is_refused_by_name() -> None:
    with pytest.raises(LLMInvalidRequestError, match="'rwkv7', which is not known here"):
        model_from_gguf({"general.architecture": "rwkv7"})


def test_bytes_of_gguf_types_are_those_of_ggmls_own_library() -> None:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    for name in GGUF_TYPES:
        block, length = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        assert of_gguf_type(name) == length / block
    assert of_gguf_type("Q9_9") is None


def test_numbers_of_gguf_types_are_those_of_ggmls_own_library() -> None:
    from gguf.constants import GGMLQuantizationType

    from headrace.numbers.architecture.weights import GGUF_TYPE_NUMBERS

    for number, name in GGUF_TYPE_NUMBERS.items():
        assert GGMLQuantizationType(number).name == name
