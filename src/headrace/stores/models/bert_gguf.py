"""Write a BERT sentence encoder, as Hugging Face keeps one in a folder, to one GGUF file.

Run as a program (``python -m headrace.stores.models.bert_gguf FOLDER OUT TYPE``), because the arrays
it needs would stay with the process that did it; prints ``done total`` per tensor. The folder holds
``model.safetensors``, ``config.json``, ``vocab.txt``, ``tokenizer_config.json`` and
``1_Pooling/config.json``. Names and metadata are those that llama.cpp's ``bert`` architecture reads.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Trained for another task (next sentences), or mere numbers in order: no part of an embedding.
_UNUSED = re.compile(r"pooler\.dense\.(weight|bias)|embeddings\.position_ids")
_EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_IN_LAYER = re.compile(r"encoder\.layer\.(?P<layer>\d+)\.(?P<part>.+)")
# Looked up a row at a time, not multiplied: as they are, they cost no time and lose nothing.
_TABLES = ("position_embd.weight", "token_types.weight")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SUFFIX, _SPACE = "##", "\u2581"


def convert(folder: Path, target: Path, weight_type: str) -> None:
    """Write ``folder``'s model to ``target``; ``weight_type`` (F32, F16, Q8_0) is for matrices."""
    import gguf
    import numpy as np

    wanted = gguf.GGMLQuantizationType[weight_type]
    writer = gguf.GGUFWriter(target, arch="bert")
    _write_shape(writer, folder)
    _write_tokenizer(writer, folder)
    tensors = [
        (name, array)
        for name, array in read_safetensors(folder / "model.safetensors")
        if not _UNUSED.fullmatch(name)
    ]
    for done, (name, array) in enumerate(tensors, 1):
        data = array.astype(np.float32)
        ours = tensor_name(name)
        kind = wanted if data.ndim == 2 and ours not in _TABLES else gguf.GGMLQuantizationType.F32
        writer.add_tensor(ours, gguf.quantize(data, kind), raw_dtype=kind)
        sys.stdout.write(f"{done} {len(tensors)}\n")
        sys.stdout.flush()
    exact = weight_type == "F32"
    writer.add_file_type(int(gguf.LlamaFileType[f"{'ALL' if exact else 'MOSTLY'}_{weight_type}"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    """The named arrays in a file: a length (8 bytes), a header in JSON, then the numbers.

    https://github.com/huggingface/safetensors#format
    """
    import numpy as np

    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in kinds:
                raise ValueError(
                    f"{path.name}: {name} is of type {entry['dtype']}, known: {', '.join(kinds)}"
                )
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            data = np.frombuffer(file.read(end - begin), kinds[entry["dtype"]])
            yield name, data.reshape(entry["shape"])


def tensor_name(name: str) -> str:
    """llama.cpp's name for a tensor that Hugging Face's BERT calls ``name``."""
    stem, _, kind = name.removeprefix("bert.").rpartition(".")
    inside = _IN_LAYER.fullmatch(stem)
    try:
        if inside is not None:
            return f"blk.{inside['layer']}.{_LAYER[inside['part']]}.{kind}"
        return f"{_EMBEDDINGS[stem]}.{kind}"
    except KeyError:
        raise ValueError(f"a BERT encoder has no tensor {name!r}") from None


def _write_shape(writer: Any, folder: Path) -> None:
    import gguf

    config = _json(folder / "config.json")
    if config["hidden_act"] != "gelu" or config["position_embedding_type"] != "absolute":
        raise ValueError(f"{folder}: an encoder with gelu and absolute positions was expected")
    pooling = _json(folder / "1_Pooling" / "config.json")
    if not pooling["pooling_mode_mean_tokens"]:
        raise ValueError(f"{folder}: the tokens' mean was expected as the text's vector")
    writer.add_name(config["_name_or_path"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])


def _write_tokenizer(writer: Any, folder: Path) -> None:
    import gguf

    if not _json(folder / "tokenizer_config.json")["do_lower_case"]:
        raise ValueError(f"{folder}: a tokenizer that writes small was expected")
    # Not splitlines: some words are what it takes for the end of a line.
    words = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    special = {word: place for place, word in enumerate(words) if word in _SPECIAL}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([word if word in special else spaced(word) for word in words])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words]
    )
    for add, word in (
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(special[word])


def spaced(word: str) -> str:
    """A WordPiece as llama.cpp keeps it: it marks a word's beginning, where BERT marks the rest."""
    return word.removeprefix(_SUFFIX) if word.startswith(_SUFFIX) else _SPACE + word


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
