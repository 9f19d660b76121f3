"""The beginning of a GGUF file, judged by llama.cpp's own library for the format."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models.gguf_header import read_header


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
