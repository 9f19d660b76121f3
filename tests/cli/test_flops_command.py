"""``headrace flops``: what a pass costs, from a config.json or a GGUF file, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.served import run_headrace
from headrace.stores.models import ModelFile

LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "llama-3-8b"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return made


def asked(*arguments: str) -> str:
    done = run_headrace("flops", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: str) -> str:
    done = run_headrace("flops", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: ")
    return done.stderr


def test_a_folder_is_told_by_module_in_total_and_with_its_rules(folder: Path) -> None:
    said = asked(str(folder))
    assert "8,030,261,248 parameters" in said
    assert "7,822,209,187,840 FLOPs" in said
    assert "next token: 1 new after 512" in said
    assert "15,278,276,608 FLOPs, 15,076,564,992 bytes at least" in said
    assert "one multiply-add is 2 FLOPs" in said
    assert "layers 0-31" in said


def test_logits_for_the_last_position_are_a_choice(folder: Path) -> None:
    said = asked(str(folder / "config.json"), "--logits", "last")
    assert "7,285,315,207,168 FLOPs" in said
    assert "last position only" in said


def test_a_device_gives_least_times_and_what_they_are_bound_by(folder: Path) -> None:
    said = asked(str(folder), "--device", "NVIDIA H100 80GB HBM3")
    assert "on NVIDIA H100 SXM in bf16: 7.906 ms at least, bound by compute" in said
    assert "4.500 ms at least, bound by memory" in said
    assert "https://" in said


def test_a_device_that_is_not_known_has_no_times_and_says_why(folder: Path) -> None:
    said = asked(str(folder), "--device", "NVIDIA H101")
    assert "no least time: no datasheet of 'NVIDIA H101' is known here" in said


def test_json_has_the_tree_and_both_stages(folder: Path) -> None:
    said: dict[str, Any] = json.loads(
        asked(str(folder), "--json", "--prompt", "100", "--past", "28", "--batch", "2")
    )
    assert said["stages"]["asked"]["pass"]["past"] == 28
    assert said["stages"]["next_token"]["pass"]["past"] == 128
    assert said["stages"]["asked"]["total"]["flops"] == said["tree"]["total"]["flops"]
    assert said["kv_bytes_per_token"] == 131_072
    assert said["stages"]["asked"]["device"] is None


def test_an_encoder_has_no_next_token_and_a_rewriter_needs_its_source(tmp_path: Path) -> None:
    vit = {
        "model_type": "vit",
        "hidden_size": 64,
        "image_size": 32,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "patch_size": 8,
    }
    (tmp_path / "vit.json").write_text(json.dumps(vit))
    assert "next token" not in asked(str(tmp_path / "vit.json"))
    assert json.loads(asked(str(tmp_path / "vit.json"), "--json"))["stages"]["next_token"] is None
    t5 = {
        "model_type": "t5",
        "d_ff": 128,
        "d_kv": 16,
        "d_model": 64,
        "num_heads": 4,
        "num_layers": 2,
        "vocab_size": 300,
    }
    (tmp_path / "t5.json").write_text(json.dumps(t5))
    assert "source is missing" in refused(str(tmp_path / "t5.json"))
    assert "next token" in asked(str(tmp_path / "t5.json"), "--source", "100", "--prompt", "1")


def test_the_model_in_the_box_is_known_by_name(box_model: ModelFile) -> None:
    said = json.loads(asked("smollm2-135m-instruct", "--json"))
    assert said["stages"]["asked"]["total"]["flops"] == 155_826_782_208
    assert said["stages"]["next_token"]["total"]["flops"] == 304_418_304
    assert said["parameters"] == 134_515_008
    assert "Q8_0" in said["weights"]
    by_path = json.loads(asked(str(box_model.path), "--json"))
    assert by_path["stages"] == said["stages"]


def test_what_is_no_model_is_told(tmp_path: Path, folder: Path) -> None:
    assert "known: smollm2-135m-instruct" in refused("no-such-model")
    assert "without a config.json" in refused(str(tmp_path))
    (tmp_path / "broken.json").write_text("{")
    assert "is no configuration" in refused(str(tmp_path / "broken.json"))
    (tmp_path / "list.json").write_text("[]")
    assert "holds no object" in refused(str(tmp_path / "list.json"))
    (tmp_path / "config.json").write_text('{"model_type": "rwkv7"}')
    assert "model_type is 'rwkv7'" in refused(str(tmp_path))
    assert "dtype 'bf17' is unknown" in asked(str(folder), "--dtype", "bf17")
