"""A model's matrices in another type: ggml's own numbers, the rest untouched, a file whole or none."""

from __future__ import annotations

import ctypes
import json

import gguf
import numpy as np
import pytest
import xllamacpp

from gateway.served import run_headrace
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models.ggml import K_TYPES, TYPES, encoded
from headrace.stores.models.quantise import quantise_file
from stores.tiny_gguf import write_tiny

FEW_BITS = [kind for kind in (*TYPES, *K_TYPES) if kind.startswith("Q")]
# What is lost at most of numbers between -1 and 1, by the bits that each of them has.
LOST = {"Q2": 0.5, "Q3": 0.25, "Q4": 0.13, "Q5": 0.07, "Q6": 0.04, "Q8": 0.01}


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def quantised(source, target, kind):
    return quantise_file(source, target, kind, lambda *_: None)


def by_ggml(data, kind, count):
    """What ggml itself takes these bytes for."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    read = getattr(library, f"dequantize_row_{kind[:2].lower()}{kind[2:]}")
    out = np.empty(count, np.float32)
    read(ctypes.c_void_p(data.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(count))
    return out


@pytest.mark.parametrize("kind", FEW_BITS)
def test_numbers_are_written_and_read_as_ggml_means_them(kind):
    numbers = np.random.default_rng(5).uniform(-1, 1, (3, 512)).astype(np.float32)
    data = np.ascontiguousarray(encoded(numbers, kind))
    read = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    assert np.allclose(read.ravel(), by_ggml(data, kind, numbers.size), rtol=1e-6, atol=1e-7)
    assert np.abs(read - numbers).max() < LOST[kind[:2]]


@pytest.mark.parametrize("kind", ["Q8_0", "q4_0", "F16", "BF16", "F32"])
def test_matrices_change_and_all_else_stays(tmp_path, kind):
    source = write_tiny(tmp_path / "tiny.gguf", "qwen2")
    made = quantised(source, tmp_path / "out.gguf", kind)
    before, after = tensors(source), tensors(tmp_path / "out.gguf")
    assert list(after) == list(before)
    for name, tensor in before.items():
        changes = len(tensor.shape) > 1
        assert after[name].tensor_type.name == (kind.upper() if changes else "F32"), name
        assert list(after[name].shape) == list(tensor.shape)
        if not changes:
            assert np.array_equal(after[name].data, tensor.data)
    fields, old = gguf.GGUFReader(tmp_path / "out.gguf").fields, gguf.GGUFReader(source).fields
    assert set(old) <= set(fields)
    assert fields["tokenizer.ggml.tokens"].contents() == old["tokenizer.ggml.tokens"].contents()
    assert made.rewritten == sum(len(tensor.shape) > 1 for tensor in before.values())
    assert made.notes == ()


def test_rows_without_room_take_llama_cpp_s_next_type_and_that_is_told(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf")
    made = quantised(source, tmp_path / "out.gguf", "Q4_K")
    (note,) = made.notes
    assert "Q5_0" in note
    assert "256" in note
    assert made.rewritten == 0
    kinds = {t.tensor_type.name for t in tensors(tmp_path / "out.gguf").values()}
    assert kinds == {"Q5_0", "F32"}


def test_a_file_that_is_there_is_left_as_it_is(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf")
    content = source.read_bytes()
    with pytest.raises(LLMInvalidRequestError, match="is there already"):
        quantised(source, source, "Q8_0")
    assert source.read_bytes() == content


def test_a_damaged_model_leaves_no_file(tmp_path):
    whole = write_tiny(tmp_path / "tiny.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LLMInvalidRequestError, match=r"cut\.gguf"):
        quantised(cut, tmp_path / "out.gguf", "Q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.gguf", "tiny.gguf"]


def test_the_command_writes_a_file_and_tells_of_it(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf")
    target = tmp_path / "out.gguf"
    done = run_headrace("model", "quantize", str(source), "Q8_0", "-o", str(target), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["weight_type"] == "Q8_0"
    assert said["size_bytes"] == target.stat().st_size < said["source_bytes"]
    wrong = run_headrace("model", "quantize", str(source), "Q4_K_M", "-o", str(tmp_path / "x.gguf"))
    assert wrong.returncode == 1
    assert "Q4_K" in wrong.stderr
