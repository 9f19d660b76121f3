"""Rewriting a GGUF file's weights: the values stay, and so does all that is said about them."""

from __future__ import annotations

import subprocess
import sys

import gguf
import numpy as np
import pytest

Q4_1, Q8_0, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "F32"))


@pytest.fixture
def original(tmp_path):
    """A small file with tensors of several types and fields of every kind; its true weights."""
    random = np.random.default_rng(7)
    weights = random.normal(0, 1, (6, 64)).astype(np.float32)
    norm = random.normal(1, 0.1, 64).astype(np.float32)
    path = tmp_path / "original.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small and odd \u00e9")
    writer.add_context_length(77)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_add_bos_token(False)
    writer.add_token_list(["a", "b\n", "\u00e9"])
    writer.add_token_scores([0.5, -1.0, 0.0])
    writer.add_token_types([1, 1, 3])
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q4_1))
    writer.add_tensor("blk.0.w.weight", gguf.quantize(weights, Q4_1), raw_dtype=Q4_1)
    writer.add_tensor("blk.0.norm.weight", norm)
    writer.add_tensor("blk.0.v.weight", gguf.quantize(weights * 2, Q8_0), raw_dtype=Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def requantise(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "headrace.stores.models.requantise", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type)


@pytest.fixture
def rewritten(tmp_path, original):
    path = tmp_path / "rewritten.gguf"
    done = requantise(original, path, "Q4_1", "Q8_0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 3", "2 3", "3 3"]
    return path


def test_the_weights_keep_their_values(original, rewritten):
    before, after = tensors(original)["blk.0.w.weight"], tensors(rewritten)["blk.0.w.weight"]
    assert (before.tensor_type, after.tensor_type) == (Q4_1, Q8_0)
    assert values(after).shape == values(before).shape
    # Q8_0 rounds to 1/127 of the largest of 32 neighbours, at most by half of that.
    largest = np.abs(values(before)).reshape(-1, 32).max(axis=1, keepdims=True)
    off = np.abs(values(after) - values(before)).reshape(-1, 32)
    assert (off <= largest / 127 * 0.51 + 1e-3).all()


def test_tensors_of_other_types_stay_as_they_are(original, rewritten):
    for name in ("blk.0.norm.weight", "blk.0.v.weight"):
        before, after = tensors(original)[name], tensors(rewritten)[name]
        assert after.tensor_type == before.tensor_type
        assert (after.data == before.data).all()


def test_the_fields_stay_but_for_the_file_type(original, rewritten):
    before = gguf.GGUFReader(original).fields
    after = gguf.GGUFReader(rewritten).fields
    assert set(after) == set(before)
    for name, field in before.items():
        if name != gguf.Keys.General.FILE_TYPE and not name.startswith("GGUF."):
            assert after[name].contents() == field.contents()
            assert after[name].types == field.types
    kind = after[gguf.Keys.General.FILE_TYPE].contents()
    assert kind == int(gguf.LlamaFileType.MOSTLY_Q8_0)


def test_a_second_time_changes_nothing(tmp_path, rewritten):
    again = tmp_path / "again.gguf"
    assert requantise(rewritten, again, "Q4_1", "Q8_0").returncode == 0
    assert again.read_bytes() == rewritten.read_bytes()


def test_a_damaged_file_fails(tmp_path, original):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(original.read_bytes()[:200])
    assert requantise(cut, tmp_path / "out.gguf", "Q4_1", "Q8_0").returncode != 0
