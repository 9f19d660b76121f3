"""A GGUF file's model as a Hugging Face folder: the same numbers, tokens and settings, or a refusal."""

from __future__ import annotations

import hashlib
import json

import gguf
import numpy as np
import pytest

from gateway.served import MODEL, run_headrace
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.stores.models.hugging_face import export_folder
from stores.tiny_gguf import HEAD, TOKENS, llama3_factors, weights, write_tiny

# Of the model in the box as bf16. The folder was judged by transformers, whose own reading of the
# GGUF file gives the same weights, logits and tokens (test_hugging_face_judged.py).
BOX_SHA256 = "5481e313498b53c20eec92284bff46ee02ea67487f7a5b71de59fbb64f46e14a"


def silent(*_):
    return None


def export(source, folder, dtype="f32"):
    return export_folder(source, folder, dtype, silent)


def tensors(folder):
    """Name, type and numbers of each tensor, read from the format's description."""
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert (8 + size) % 8 == 0
    found, place = {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert begin == place  # no gap, as the format demands
        place = end
        found[name] = _numbers(data[8 + size + begin : 8 + size + end], entry["dtype"]).reshape(
            entry["shape"]
        )
    assert len(data) == 8 + size + place
    return found


def _numbers(data, dtype):
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_weights_are_those_from_which_the_file_was_made(tmp_path, architecture, tied):
    source = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied)
    made = export(source, tmp_path / "out")
    original, found = weights(architecture, tied=tied), tensors(tmp_path / "out")
    assert set(found) == set(original)
    for name, array in original.items():
        assert np.array_equal(found[name], array), name
    assert made.parameters == sum(array.size for array in original.values())
    config = read(tmp_path / "out", "config.json")
    assert config["model_type"] == architecture
    assert config["tie_word_embeddings"] is tied


@pytest.mark.parametrize(("dtype", "bits"), [("bf16", 8), ("f16", 11)])
def test_a_smaller_type_rounds_to_the_nearest(tmp_path, dtype, bits):
    export(write_tiny(tmp_path / "tiny.gguf"), tmp_path / "out", dtype)
    for name, array in weights("llama").items():
        found = tensors(tmp_path / "out")[name]
        # Half a unit in the last of the bits, and of what is too small for f16's exponents.
        assert (np.abs(found - array) <= np.abs(array) * 2.0**-bits + 2.0**-25).all()
    assert (
        read(tmp_path / "out", "config.json")["torch_dtype"]
        == {
            "bf16": "bfloat16",
            "f16": "float16",
        }[dtype]
    )


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_weights_of_few_bits_are_written_as_what_they_stand_for(tmp_path, kind):
    export(write_tiny(tmp_path / "tiny.gguf", "qwen2", kind=kind), tmp_path / "out")
    wanted, found = gguf.GGMLQuantizationType[kind], tensors(tmp_path / "out")
    for name, array in weights("qwen2").items():
        meant = gguf.dequantize(gguf.quantize(array, wanted), wanted) if array.ndim > 1 else array
        assert np.array_equal(found[name], meant), name


def test_llama_3_1_s_slower_waves_become_the_settings_that_they_were_made_from(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf", factors=llama3_factors())
    export(source, tmp_path / "out")
    assert read(tmp_path / "out", "config.json")["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_a_stretched_context_keeps_its_way_and_factor(tmp_path):
    stretched = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    export(write_tiny(tmp_path / "tiny.gguf", "qwen2", extra=stretched), tmp_path / "out")
    scaling = read(tmp_path / "out", "config.json")["rope_scaling"]
    assert scaling == {"rope_type": "linear", "factor": 4.0}
    half = write_tiny(tmp_path / "half.gguf", extra={"rope.scaling.type": "yarn"})
    with pytest.raises(LLMInvalidRequestError, match=r"no llama\.rope\.scaling\.factor"):
        export(half, tmp_path / "half")


def test_other_waves_are_refused(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf", factors=np.linspace(1, 2, HEAD // 2))
    with pytest.raises(LLMCapabilityError, match="rope_freqs"):
        export(source, tmp_path / "out")


def test_the_tokenizer_has_the_file_s_tokens_merges_and_special_tokens(tmp_path):
    export(write_tiny(tmp_path / "tiny.gguf"), tmp_path / "out")
    made = read(tmp_path / "out", "tokenizer.json")
    assert made["model"]["vocab"] == {token: place for place, token in enumerate(TOKENS)}
    assert made["model"]["merges"] == [["t", "h"], ["th", "e"], ["\u0120", "the"]]
    special = [entry["content"] for entry in made["added_tokens"]]
    assert special == [token for token in TOKENS if token.startswith("<|")]
    settings = read(tmp_path / "out", "tokenizer_config.json")
    assert settings["bos_token"] == "<|begin_of_text|>"
    assert settings["eos_token"] == "<|eot_id|>"
    assert settings["chat_template"].startswith("{% for m in messages %}")
    generation = read(tmp_path / "out", "generation_config.json")
    ends = {TOKENS[place] for place in generation["eos_token_id"]}
    assert ends == {"<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"}


def test_a_file_without_a_chat_template_is_exported_with_a_note(tmp_path):
    made = export(write_tiny(tmp_path / "tiny.gguf", template=None), tmp_path / "out")
    assert "chat_template" not in read(tmp_path / "out", "tokenizer_config.json")
    assert any("chat template" in note for note in made.notes)


def test_a_setting_that_would_be_lost_is_refused_by_name(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf", extra={"logit_scale": 8.0})
    with pytest.raises(LLMCapabilityError, match=r"llama\.logit_scale is 8\.0"):
        export(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.gguf"]


def test_another_architecture_is_refused_with_those_that_are_known(tmp_path):
    path = tmp_path / "gemma.gguf"
    writer = gguf.GGUFWriter(path, "gemma2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LLMCapabilityError, match=r"'gemma2'.*llama, qwen2, qwen3"):
        export(path, tmp_path / "out")


def test_a_number_that_f16_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(source, "r+")
    (norm,) = [tensor for tensor in reader.tensors if tensor.name == "output_norm.weight"]
    norm.data[3] = 70_000.0
    reader.data.flush()
    with pytest.raises(LLMCapabilityError, match=r"model\.norm\.weight.*70000.*bf16"):
        export(source, tmp_path / "out", "f16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.gguf"]


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(LLMInvalidRequestError, match="is there already"):
        export(write_tiny(tmp_path / "tiny.gguf"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_goes_up_to_all_of_the_bytes(tmp_path):
    seen = []
    source = write_tiny(tmp_path / "tiny.gguf")
    export_folder(
        source, tmp_path / "out", "f32", lambda _, done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    size = 4 * sum(array.size for array in weights("llama").values())
    assert seen[-1] == (size, size)


@pytest.mark.real_model
def test_the_command_exports_the_model_in_the_box_as_it_was_judged(tmp_path, box_model):
    done = run_headrace("model", "export", MODEL, str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["architecture"], said["dtype"]) == ("LlamaForCausalLM", "bf16")
    assert said["parameters"] == 134_515_008
    with (tmp_path / "out" / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == BOX_SHA256
    config = read(tmp_path / "out", "config.json")
    assert (config["rope_theta"], config["rms_norm_eps"]) == (100_000.0, 1e-5)
    assert read(tmp_path / "out", "generation_config.json")["eos_token_id"] == [0, 2]
    again = run_headrace("model", "export", MODEL, str(tmp_path / "out"))
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_another_form_or_dtype_is_refused_with_what_is_right(tmp_path):
    source = write_tiny(tmp_path / "tiny.gguf")
    for flags, right in ((("--to", "onnx"), "safetensors"), (("--dtype", "int8"), "bf16, f16")):
        done = run_headrace("model", "export", str(source), str(tmp_path / "out"), *flags)
        assert done.returncode == 1
        assert right in done.stderr
