"""A BERT sentence encoder of a few kilobytes with random weights, and what it makes of a text.

The arithmetic is that of the paper (https://arxiv.org/abs/1810.04805) and of the sentence encoders
built on it (https://arxiv.org/abs/1908.10084: the mean over the tokens), in plain numpy.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "un", "##cat"]
_WIDTH, _INNER, _HEADS, _LAYERS, _POSITIONS, _EPSILON = 32, 64, 2, 2, 24, 1e-12

Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def write_tiny_bert(folder: Path) -> Weights:
    """Write the model to ``folder`` as Hugging Face does; gives its weights."""
    weights = _weights()
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    config = {
        "_name_or_path": "tiny-bert",
        "hidden_act": "gelu",
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "layer_norm_eps": _EPSILON,
        "max_position_embeddings": _POSITIONS,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    more = {"embeddings.position_ids": np.arange(_POSITIONS)[None]}
    write_safetensors(folder / "model.safetensors", {**weights, **more})
    return weights


def write_safetensors(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """https://github.com/huggingface/safetensors#format"""
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        begin = len(data)
        data += array.tobytes()
        header[name] = {
            "dtype": kinds[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def vector(w: Weights, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The text's vector, of length 1."""
    x = (
        w["embeddings.word_embeddings.weight"][tokens]
        + w["embeddings.position_embeddings.weight"][: len(tokens)]
        + w["embeddings.token_type_embeddings.weight"][0]
    ).astype(np.float64)
    x = _norm(w, "embeddings.LayerNorm", x)
    for layer in range(_LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            _split(_dense(w, f"{at}.attention.self.{part}", x))
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(_WIDTH / _HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(tokens), _WIDTH)
        attended = _dense(w, f"{at}.attention.output.dense", mixed)
        x = _norm(w, f"{at}.attention.output.LayerNorm", x + attended)
        inner = _gelu(_dense(w, f"{at}.intermediate.dense", x))
        x = _norm(w, f"{at}.output.LayerNorm", x + _dense(w, f"{at}.output.dense", inner))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def _weights() -> Weights:
    random = np.random.default_rng(0)

    def some(*shape: int, around: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (around + 0.3 * random.standard_normal(shape)).astype(np.float32)

    w = {
        "embeddings.word_embeddings.weight": some(len(WORDS), _WIDTH),
        "embeddings.position_embeddings.weight": some(_POSITIONS, _WIDTH),
        "embeddings.token_type_embeddings.weight": some(2, _WIDTH),
        # Trained for another task: must play no part.
        "pooler.dense.weight": some(_WIDTH, _WIDTH),
        "pooler.dense.bias": some(_WIDTH),
    }
    norms, denses = ["embeddings.LayerNorm"], []
    for layer in range(_LAYERS):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        denses += [(f"{at}.attention.self.{p}", _WIDTH, _WIDTH) for p in ("query", "key", "value")]
        denses += [
            (f"{at}.attention.output.dense", _WIDTH, _WIDTH),
            (f"{at}.intermediate.dense", _INNER, _WIDTH),
            (f"{at}.output.dense", _WIDTH, _INNER),
        ]
    for name in norms:
        w |= {f"{name}.weight": some(_WIDTH, around=1.0), f"{name}.bias": some(_WIDTH)}
    for name, to, of in denses:
        w |= {f"{name}.weight": some(to, of), f"{name}.bias": some(to)}
    return w


def _dense(w: Weights, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w: Weights, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + _EPSILON)
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def _split(x: Any) -> Any:
    return x.reshape(len(x), _HEADS, -1).transpose(1, 0, 2)


def _gelu(x: Any) -> Any:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
