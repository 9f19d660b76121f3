"""Models computed by ONNX Runtime out of a folder as optimum exports it; needs no torch.

The graph lies in ``model.onnx``, in the folder itself or in ``onnx`` below it. One that writes text
takes what it remembers as ``past_key_values.<layer>.key`` and ``.value`` and gives it back as
``present.<layer>.key`` and ``.value``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.backends.local.folders.computing import Loaded, Loading
from headrace.backends.local.folders.files import (
    activation_of,
    context_tokens,
    ends_of,
    usual_sampling,
)
from headrace.backends.local.folders.kinds import labels_of, read_json
from headrace.backends.local.folders.pooling import read_pooling
from headrace.backends.local.folders.template import find_template
from headrace.backends.local.folders.text import Tokenizer
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError

_FILES = ("model.onnx", "decoder_model.onnx", "decoder_model_merged.onnx")
_PAST, _PRESENT = "past_key_values.", "present."
_STATES = ("last_hidden_state", "token_embeddings")


def load(loading: Loading) -> Loaded:
    """The model that ``loading`` names, on its device.

    Raises LLMInvalidRequestError for what is no such model, LLMCapabilityError for what is not here.
    """
    return _LOADERS[loading.kind](loading)


def _graph(folder: Path) -> Path:
    for place in (folder, folder / "onnx"):
        for name in _FILES:
            if (place / name).is_file():
                return place / name
    raise LLMInvalidRequestError(
        f"model {str(folder)!r} has no model.onnx, neither itself nor in a folder onnx below it; "
        "optimum-cli export onnx writes one",
        param="model",
    )


def _session(loading: Loading) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        options.intra_op_num_threads = int(threads)
    providers: list[Any] = ["CPUExecutionProvider"]
    if loading.device.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LLMCapabilityError(
                f"device is {loading.device!r}, and this onnxruntime has no CUDA; say cpu, or "
                "install onnxruntime-gpu in its place",
                param="device",
            )
        number = int(loading.device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    path = _graph(loading.folder)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as refusal:
        raise LLMInvalidRequestError(
            f"ONNX Runtime does not load {str(path)!r}: {refusal}", param="model"
        ) from refusal


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Read

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LLMInvalidRequestError(
            f"model {str(folder)!r} has no tokenizer.json; a tokenizer of another form becomes one "
            "by transformers' save_pretrained",
            param="model",
        )
    try:
        return Tokenizer(Read.from_file(str(path)))
    except Exception as refusal:
        raise LLMInvalidRequestError(
            f"{str(path)!r} is no tokenizer: {refusal}", param="model"
        ) from refusal


def _fingerprint(session: Any) -> str:
    import onnxruntime

    kind = str(session.get_providers()[0]).removesuffix("ExecutionProvider").lower()
    return f"onnxruntime-{onnxruntime.__version__}-{kind}"


def _writer(loading: Loading) -> Loaded:
    session, folder = _session(loading), loading.folder
    return Loaded(
        tokenizer=_tokenizer(folder),
        context_tokens=context_tokens(folder, loading.max_model_len),
        fingerprint=_fingerprint(session),
        ends=ends_of(folder),
        template=find_template(folder),
        decoder=OnnxDecoder(session, read_json(folder / "config.json")),
        defaults=usual_sampling(folder),
    )


def _embedder(loading: Loading) -> Loaded:
    pooling = read_pooling(loading.folder)
    session = _session(loading)
    encoder = OnnxEncoder(session, read_json(pooling.model / "config.json"))
    context = context_tokens(pooling.model, loading.max_model_len)
    return Loaded(
        tokenizer=_tokenizer(
            pooling.model if (pooling.model / "tokenizer.json").is_file() else loading.folder
        ),
        context_tokens=min(context, pooling.most_tokens or context),
        fingerprint=_fingerprint(session),
        encoder=encoder,
        pooling=pooling,
        dimensions=pooling.dimensions(encoder.states_width()),
    )


def _classifier(loading: Loading) -> Loaded:
    session = _session(loading)
    config = read_json(loading.folder / "config.json")
    return Loaded(
        tokenizer=_tokenizer(loading.folder),
        context_tokens=context_tokens(loading.folder, loading.max_model_len),
        fingerprint=_fingerprint(session),
        encoder=OnnxEncoder(session, config, scores=True),
        labels=labels_of(loading.folder),
        activation=activation_of(loading.folder),
    )


_LOADERS: Mapping[str, Callable[[Loading], Loaded]] = {
    "generate": _writer,
    "embed": _embedder,
    "rerank": _classifier,
    "classify": _classifier,
}
"""What loads a model, by its kind."""


@frozen(kw_only=True)
class _Input:
    """One input of a graph, by numpy's name for its type."""

    name: str
    dtype: str
    shape: tuple[Any, ...]


_TYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
}


def _inputs(session: Any) -> dict[str, _Input]:
    found = {}
    for each in session.get_inputs():
        dtype = _TYPES.get(each.type)
        if dtype is None:
            raise LLMInvalidRequestError(
                f"the graph's input {each.name!r} is of the type {each.type}; known here: "
                f"{', '.join(_TYPES)}",
                param="model",
            )
        found[each.name] = _Input(name=each.name, dtype=dtype, shape=tuple(each.shape))
    return found


class OnnxDecoder:
    """A causal language model as a graph that takes and gives back what it remembers.

    ``past`` is a list of arrays (texts, heads, tokens, width), two a layer, the shorter texts filled
    up at their beginnings.
    """

    def __init__(self, session: Any, config: Mapping[str, Any]) -> None:
        self._session = session
        self._takes = _inputs(session)
        given = [each.name for each in session.get_outputs()]
        self._past = [name for name in self._takes if name.startswith(_PAST)]
        self._present = [_PRESENT + name.removeprefix(_PAST) for name in self._past]
        missing = [name for name in ("logits", *self._present) if name not in given]
        if not self._past or missing or "input_ids" not in self._takes:
            raise LLMInvalidRequestError(
                "the graph does not write text step by step: "
                + (
                    f"it gives back no {', '.join(missing[:3])}"
                    if missing
                    else "it takes no input_ids and past_key_values.<layer>.key and .value"
                )
                + "; export it with optimum for the task text-generation-with-past",
                param="model",
            )
        known = {
            "input_ids",
            "attention_mask",
            "position_ids",
            "use_cache_branch",
            *self._past,
        }
        unknown = next((name for name in self._takes if name not in known), None)
        if unknown is not None:
            raise LLMInvalidRequestError(
                f"the graph takes {unknown!r}, and what that means is not known here", param="model"
            )
        self._config = config
        self._nothing()  # says now what would be wrong with its shapes
        vocabulary = config.get("vocab_size")
        last = next(each for each in session.get_outputs() if each.name == "logits").shape[-1]
        width = last if isinstance(last, int) else vocabulary
        if not isinstance(width, int):
            raise LLMInvalidRequestError(
                "neither the graph nor config.json (vocab_size) says how many tokens there are",
                param="model",
            )
        self.width = width

    def read(self, past: Any, ids: Sequence[int]) -> tuple[Any, Any]:
        import numpy as np

        past = self._nothing() if past is None else past
        before = past[0].shape[2]
        places = np.arange(before, before + len(ids))[None]
        return self._run(past, np.array([list(ids)]), np.ones((1, before + len(ids))), places)

    def write(self, past: Any, ids: Sequence[int], lengths: Sequence[int]) -> tuple[Any, Any]:
        import numpy as np

        seen = np.array(lengths)[:, None]
        longest = max(lengths)
        mask = np.arange(longest + 1) >= longest - seen
        return self._run(past, np.array(list(ids))[:, None], mask, seen)

    def can_join(self, past: Any) -> bool:
        return True

    def join(self, pasts: Sequence[Any]) -> Any:
        import numpy as np

        longest = max(past[0].shape[2] for past in pasts)

        def filled(array: Any) -> Any:
            return np.pad(array, ((0, 0), (0, 0), (longest - array.shape[2], 0), (0, 0)))

        return [
            np.concatenate([filled(array) for array in layer]) for layer in zip(*pasts, strict=True)
        ]

    def keep(self, past: Any, rows: Sequence[int], longest: int) -> Any:
        import numpy as np

        return [np.ascontiguousarray(array[list(rows), :, -longest:]) for array in past]

    def copy(self, past: Any) -> Any:
        return list(past)  # the arrays themselves are never written into

    def likeliest(self, scores: Any) -> list[int]:
        found: list[int] = scores.argmax(-1).tolist()
        return found

    def row(self, scores: Any, row: int) -> Any:
        import numpy as np

        return scores[row].astype(np.float32)

    def _run(self, past: Any, ids: Any, mask: Any, places: Any) -> tuple[Any, Any]:
        import numpy as np

        told = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        fed = {
            name: value.astype(self._takes[name].dtype)
            for name, value in told.items()
            if name in self._takes
        }
        if "use_cache_branch" in self._takes:
            fed["use_cache_branch"] = np.array([past[0].shape[2] > 0])
        fed |= dict(zip(self._past, past, strict=True))
        scores, *present = self._session.run(["logits", *self._present], fed)
        return present, scores[:, -1]

    def _nothing(self) -> list[Any]:
        """What it remembers of no tokens."""
        import numpy as np

        config, made = self._config, []
        heads = config.get("num_key_value_heads") or config.get("num_attention_heads")
        size = config.get("head_dim")
        if size is None and config.get("hidden_size") and config.get("num_attention_heads"):
            size = config["hidden_size"] // config["num_attention_heads"]
        for name in self._past:
            takes = self._takes[name]
            if len(takes.shape) != 4:
                raise LLMInvalidRequestError(
                    f"the graph's input {name!r} has {len(takes.shape)} dimensions; (texts, heads, "
                    "tokens, width) is known here",
                    param="model",
                )
            rows = takes.shape[1] if isinstance(takes.shape[1], int) else heads
            width = takes.shape[3] if isinstance(takes.shape[3], int) else size
            if not isinstance(rows, int) or not isinstance(width, int):
                raise LLMInvalidRequestError(
                    f"neither the graph nor config.json says how many heads {name!r} has, and how "
                    "wide they are",
                    param="model",
                )
            made.append(np.zeros((1, rows, 0, width), dtype=takes.dtype))
        return made


class OnnxEncoder:
    """An encoder as a graph, or a classifier, of which the ``scores`` are wanted."""

    def __init__(self, session: Any, config: Mapping[str, Any], *, scores: bool = False) -> None:
        self._session, self._config, self._scores = session, config, scores
        self._takes = _inputs(session)
        given = {each.name: each.shape for each in session.get_outputs()}
        wanted = ("logits",) if scores else _STATES
        found = next((name for name in wanted if name in given), None)
        if found is None:
            raise LLMInvalidRequestError(
                f"the graph gives {', '.join(given)}, and {' or '.join(wanted)} is needed",
                param="model",
            )
        self._gives, self._last = found, given[found][-1]
        self.width = int(config.get("vocab_size") or 1 << 31)
        self._filling = config.get("pad_token_id") or 0

    def states_width(self) -> int:
        """How long a hidden state is."""
        width = self._last if isinstance(self._last, int) else self._config.get("hidden_size")
        if not isinstance(width, int):
            raise LLMInvalidRequestError(
                "neither the graph nor config.json (hidden_size) says how long its vectors are",
                param="model",
            )
        return width

    def encode(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Any:
        import numpy as np

        longest = max(map(len, ids))

        def filled(rows: Sequence[Sequence[int]], filling: int) -> Any:
            return np.array([[*row, *[filling] * (longest - len(row))] for row in rows])

        told = {
            "input_ids": filled(ids, self._filling),
            "attention_mask": filled([[1] * len(row) for row in ids], 0),
            "token_type_ids": filled(types, 0),
            "position_ids": filled([list(range(len(row))) for row in ids], 0),
        }
        fed = {
            name: told[name].astype(takes.dtype)
            for name, takes in self._takes.items()
            if name in told
        }
        (said,) = self._session.run([self._gives], fed)
        return said.astype(np.float32)
