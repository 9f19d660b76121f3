"""``headrace profile``: what it writes and prints, and what it says where torch is not installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from gateway.served import run_headrace

with_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: make test-profile"
)
SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "dtype": "float32",
}


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path / "shape"


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_one_line_says_what_to_install(shape: Path) -> None:
    done = run_headrace("profile", str(shape), "--random-weights")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "headrace: profiling a model needs torch, which is not installed: "
        "pip install 'headrace[torch]'"
    ]


@with_torch
def test_a_shape_is_profiled_with_prompts_of_ours(shape: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_headrace(
        *("profile", str(shape), "--random-weights", "--device", "cpu", "--repeats", "2"),
        *("--max-new-tokens", "4", "--out", str(out), "--json"),
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "report.json").read_text())
    assert [stage["stage"] for stage in printed["stages"]] == ["preprocess", "prefill", "decode"]
    assert printed["inputs"] == ["1.txt", "2.txt", "3.txt", "4.txt"]
    assert "timing 1.txt, repeat 2 of 2" in done.stderr


@with_torch
def test_what_is_no_model_is_one_line() -> None:
    done = run_headrace("profile", "no-such-model")
    assert done.returncode == 1
    assert "is no folder, no GGUF file, no URI and no known name" in done.stderr
