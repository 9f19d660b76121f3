"""From a model's hidden states to one vector a text, as a folder of sentence-transformers says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.backends.local.folders.kinds import read_json
from headrace.contracts.errors import LLMInvalidRequestError

# Its configuration names each way in two forms: the older as a flag, the newer as a word.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@frozen(kw_only=True)
class Dense:
    """A linear layer behind the pooling; ``tanh`` where that is its activation."""

    weight: Any
    bias: Any
    tanh: bool

    def apply(self, vectors: Any) -> Any:
        import numpy as np

        vectors = vectors @ self.weight.T
        if self.bias is not None:
            vectors = vectors + self.bias
        return np.tanh(vectors) if self.tanh else vectors


@frozen(kw_only=True)
class Pooling:
    """How vectors are made in a folder; ``model`` is where its model lies.

    ``modes`` are the ways of pooling, whose results stand one behind the other. ``prefix`` is put
    before each text, ``lower`` has it in small letters. ``most_tokens`` is the longest text.
    """

    model: Path
    modes: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalises: bool = False
    prefix: str = ""
    lower: bool = False
    most_tokens: int | None = None

    def vectors(self, states: Any, lengths: Sequence[int]) -> Any:
        """One vector a text, of hidden ``states`` (texts, tokens, width) of that many tokens each."""
        import numpy as np

        states = np.asarray(states, dtype=np.float32)
        pooled = [_POOLED[mode](states, np.asarray(lengths)) for mode in self.modes]
        vectors = pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
        for layer in self.dense:
            vectors = layer.apply(vectors)
        if self.normalises:
            lengths_of = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths_of, 1e-12)
        return np.ascontiguousarray(vectors, dtype="<f4")

    def dimensions(self, width: int) -> int:
        """How long its vectors are, of hidden states of that ``width``."""
        for layer in self.dense:
            return int(layer.weight.shape[0]) if layer is self.dense[-1] else width
        return width * len(self.modes)


def read_pooling(folder: Path) -> Pooling:
    """What ``folder`` says; the mean of all tokens where it does not say anything.

    Raises LLMInvalidRequestError that names the module or the setting that is not known here.
    """
    listed = folder / "modules.json"
    if not listed.is_file():
        return Pooling(model=folder)
    modules = _modules(listed)
    said: dict[str, Any] = {"model": folder}
    dense: list[Dense] = []
    for kind, place in modules:
        if kind == "Transformer":
            said |= _transformer(place)
        elif kind == "Pooling":
            said["modes"] = _modes(place)
        elif kind == "Normalize":
            said["normalises"] = True
        elif kind == "Dense":
            dense.append(_dense(place))
        else:
            raise LLMInvalidRequestError(
                f"{listed} names a module {kind!r}; those known here are Transformer, Pooling, "
                "Dense and Normalize",
                param="model",
            )
    told = read_json(folder / "config_sentence_transformers.json", needed=False)
    name, prompts = told.get("default_prompt_name"), told.get("prompts")
    if isinstance(name, str) and isinstance(prompts, dict):
        said["prefix"] = str(prompts.get(name) or "")
    return Pooling(**said, dense=tuple(dense))


def _modules(listed: Path) -> list[tuple[str, Path]]:
    import json

    try:
        read = json.loads(listed.read_text(encoding="utf-8"))
        found = [
            (str(each["type"]).rpartition(".")[2], listed.parent / str(each.get("path") or ""))
            for each in read
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise LLMInvalidRequestError(
            f"{listed} is no list of sentence-transformers' modules: {wrong!r}", param="model"
        ) from wrong
    outside = next(
        (
            place
            for _, place in found
            if not place.resolve().is_relative_to(listed.parent.resolve())
        ),
        None,
    )
    if outside is not None:
        raise LLMInvalidRequestError(
            f"{listed} names {outside}, which lies outside of the model's folder", param="model"
        )
    return found


def _transformer(place: Path) -> dict[str, Any]:
    said = read_json(place / "sentence_bert_config.json", needed=False)
    most = said.get("max_seq_length")
    return {
        "model": place,
        "most_tokens": most if isinstance(most, int) else None,
        "lower": said.get("do_lower_case") is True,
    }


def _modes(place: Path) -> tuple[str, ...]:
    said = read_json(place / "config.json")
    newer = said.get("pooling_mode")
    if newer is not None:
        named = [newer] if isinstance(newer, str) else list(newer)
    else:
        named = [
            _FLAGS.get(name, name) for name, on in said.items() if on is True and "mode" in name
        ]
    unknown = next((name for name in named if name not in _POOLED), None)
    if unknown is not None or not named:
        raise LLMInvalidRequestError(
            f"{place / 'config.json'} asks for the pooling {unknown!r}; known here: "
            f"{', '.join(_POOLED)}",
            param="model",
        )
    if said.get("include_prompt") is False:
        raise LLMInvalidRequestError(
            f"{place / 'config.json'} leaves the prompt out of the pooling (include_prompt), which "
            "is not known here",
            param="model",
        )
    return tuple(named)


def _dense(place: Path) -> Dense:
    try:
        from safetensors.numpy import load_file
    except ImportError as missing:
        raise LLMInvalidRequestError(
            f"{place} is a layer of its own, whose weights safetensors reads: pip install safetensors",
            param="model",
        ) from missing
    said, weights = read_json(place / "config.json"), place / "model.safetensors"
    if not weights.is_file():
        raise LLMInvalidRequestError(f"{place} has no model.safetensors", param="model")
    activation = str(said.get("activation_function")).rpartition(".")[2]
    if activation not in ("Tanh", "Identity"):
        raise LLMInvalidRequestError(
            f"{place / 'config.json'} asks for the activation {activation!r}; Tanh and Identity are "
            "known here",
            param="model",
        )
    held = load_file(weights)
    return Dense(
        weight=held["linear.weight"], bias=held.get("linear.bias"), tanh=activation == "Tanh"
    )


def _mask(states: Any, lengths: Any) -> Any:
    """1 for a text's own tokens, 0 for what it was filled up with: (texts, tokens, 1)."""
    import numpy as np

    return (np.arange(states.shape[1]) < lengths[:, None]).astype(np.float32)[:, :, None]


def _first(states: Any, _: Any) -> Any:
    return states[:, 0]


def _last(states: Any, lengths: Any) -> Any:
    import numpy as np

    return states[np.arange(len(states)), lengths - 1]


def _highest(states: Any, lengths: Any) -> Any:
    import numpy as np

    return np.where(_mask(states, lengths) > 0, states, np.float32(-1e9)).max(axis=1)


def _mean(states: Any, lengths: Any) -> Any:
    return (states * _mask(states, lengths)).sum(axis=1) / lengths[:, None]


def _mean_of_roots(states: Any, lengths: Any) -> Any:
    import numpy as np

    return (states * _mask(states, lengths)).sum(axis=1) / np.sqrt(lengths)[:, None]


def _later_more(states: Any, lengths: Any) -> Any:
    import numpy as np

    weights = _mask(states, lengths) * np.arange(1, states.shape[1] + 1)[None, :, None]
    return (states * weights).sum(axis=1) / weights.sum(axis=1)


_POOLED: Mapping[str, Callable[[Any, Any], Any]] = {
    "cls": _first,
    "max": _highest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_roots,
    "weightedmean": _later_more,
    "lasttoken": _last,
}
