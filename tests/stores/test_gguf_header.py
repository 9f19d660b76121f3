"""The beginning of a GGUF file, judged by llama.cpp's own library for the format."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.tiny_llama import write_tiny_llama
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models import BOX
from headrace.stores.models.gguf_header import context_tokens, read_header, read_tensors


def write(path: Path) -> None:
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_context_length(2048)
    writer.add_string("general.name", "Ä model")
    writer.add_array("tokenizer.ggml.tokens", ["a", "ġ", ""])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0])
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    assert read_header(tmp_path / "a.gguf") == {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "general.name": "Ä model",
        "tokenizer.ggml.tokens": ["a", "ġ", ""],
        "tokenizer.ggml.scores": [0.5, -1.0],
        "tokenizer.ggml.add_bos_token": False,
    }


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    assert read_header(tmp_path / "a.gguf", {"general.name"}) == {"general.name": "Ä model"}


@given(data=st.data())
def test_a_file_that_is_cut_short_or_spoilt_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "spoilt.gguf"
    write(path)
    whole = path.read_bytes()
    size = data.draw(st.integers(1, len(whole) - 1))
    path.write_bytes(whole[:size])
    with pytest.raises(LLMInvalidRequestError, match=r"spoilt\.gguf"):
        read_header(path)


def test_tensors_are_those_that_the_library_reads(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    theirs = {
        tensor.name: (tuple(int(size) for size in tensor.shape), int(tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }
    assert read_tensors(path) == theirs
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"blk.0.")])
    with pytest.raises(LLMInvalidRequestError, match=r"tiny\.gguf"):
        read_tensors(path)


def test_the_window_is_what_the_file_says(tmp_path):
    assert context_tokens(write_tiny_llama(tmp_path / "tiny.gguf")) == 4096


def test_the_model_in_the_box_has_the_window_that_its_file_says(box_model):
    assert context_tokens(box_model.path) == BOX.context_tokens


def test_fields_of_every_type_before_it_are_passed_over(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "odd")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 1)
    for kind in ("float32", "float64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "text")
    writer.add_array("a.texts", ["one", "two"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.reals", [0.5])
    writer.add_uint32("other.context_length", 7)
    writer.add_context_length(1234)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert context_tokens(path) == 1234


def test_a_file_that_does_not_say_gives_nothing(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "odd")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert context_tokens(path) is None


def test_a_file_that_is_not_there_gives_nothing(tmp_path):
    assert context_tokens(tmp_path / "nowhere.gguf") is None


@pytest.mark.parametrize("length", [1 << 40, 1 << 63])
def test_lengths_that_no_file_has_are_not_believed(tmp_path, length):
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, length))
    assert context_tokens(path) is None
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, length))
    assert context_tokens(path) is None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


@given(cut=st.integers(0, 600), junk=st.binary(max_size=100))
def test_a_broken_file_is_no_error(tiny, tmp_path_factory, cut, junk):
    path = tmp_path_factory.getbasetemp() / "broken.gguf"
    path.write_bytes(tiny[:cut] + junk + tiny[cut + len(junk) :])
    assert isinstance(context_tokens(path), int | None)
