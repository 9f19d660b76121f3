"""What a model's folder says besides its weights: ends, lengths, usual settings, and what is safe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from headrace.backends.local.folders.kinds import labels_of, read_json
from headrace.contracts.errors import LLMInvalidRequestError

# Configurations name the length of their context in one of these ways.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
_NO_CONTEXT = 4096
_MULTI = "multi_label_classification"
Activation: TypeAlias = Literal["each", "together", "none"]
_SHIFTED = ("roberta", "camembert", "mpnet")
# Tokenizers that know no limit say 1e30.
_MOST_CONTEXT = 1 << 30
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# Formats of weights in which a file can bring a program along: unpickling runs it.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


def check_weights(folder: Path) -> None:
    """Raises LLMInvalidRequestError where ``folder`` has no safetensors; what else it has is named."""
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(path.name for kind in _PICKLES for path in folder.glob(kind))
    if others:
        raise LLMInvalidRequestError(
            f"model {str(folder)!r} has its weights in {others[0]}, and loading such a file can run "
            "a program that it brings along; take a version with safetensors, or rewrite one that "
            "you trust with save_pretrained",
            param="model",
        )
    raise LLMInvalidRequestError(
        f"model {str(folder)!r} has no weights (*.safetensors)", param="model"
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about text: models that also see have one for each."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def context_tokens(folder: Path, most: int | None) -> int:
    """Prompt and answer together, in tokens: as the model was made for, and not above ``most``."""
    config = text_config(read_json(folder / "config.json"))
    told = read_json(folder / "tokenizer_config.json", needed=False).get("model_max_length")
    found = [value for name in _CONTEXT if isinstance(value := config.get(name), int)][:1]
    if isinstance(told, (int, float)) and 0 < told < _MOST_CONTEXT:
        found.append(int(told))
    own = min(found) if found else _NO_CONTEXT
    if str(config.get("model_type", "")).endswith(_SHIFTED) and found:
        # Their positions begin behind the one that stands for no text.
        places = config.get("max_position_embeddings", own)
        own = min(own, places - 1 - (config.get("pad_token_id") or 0))
    return own if most is None else min(own, most)


def ends_of(folder: Path) -> frozenset[int]:
    """The tokens that end an answer."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        said = read_json(folder / name, needed=False).get("eos_token_id")
        if said is not None:
            ends |= {said} if isinstance(said, int) else set(said)
            break
    return frozenset(ends)


def usual_sampling(folder: Path) -> dict[str, Any]:
    """How the model's makers would have tokens chosen where a request does not say.

    Where they do not say either, it is the model's own distribution.
    """
    said = read_json(folder / "generation_config.json", needed=False)
    usual: dict[str, Any] = {"temperature": 1.0}
    usual |= {
        name: value for name in _SAMPLING if isinstance(value := said.get(name), (int, float))
    }
    return usual


def activation_of(folder: Path) -> Activation:
    """What is made of a classifier's scores unless they are wanted raw: a probability of each label,
    which are one in all where one label excludes the others."""
    config = read_json(folder / "config.json")
    said = config.get("sentence_transformers")
    named = said.get("activation_fn") if isinstance(said, dict) else None
    if str(named).endswith("Identity"):
        return "none"
    alone = len(labels_of(folder)) == 1
    return "each" if alone or config.get("problem_type") == _MULTI else "together"
