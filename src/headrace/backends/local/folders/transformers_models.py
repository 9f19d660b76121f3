"""Models computed by transformers and torch: one loader for each kind, and how each is computed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

from headrace.backends.local.folders.computing import Loaded, Loading
from headrace.backends.local.folders.files import (
    activation_of,
    check_weights,
    context_tokens,
    ends_of,
    usual_sampling,
)
from headrace.backends.local.folders.kinds import labels_of
from headrace.backends.local.folders.pooling import read_pooling
from headrace.backends.local.folders.template import find_template
from headrace.backends.local.folders.text import Tokenizer
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError

DTYPES = ("auto", "bfloat16", "float16", "float32")


def load(loading: Loading) -> Loaded:
    """The model that ``loading`` names, on its device.

    Raises LLMInvalidRequestError for what is no such model, LLMCapabilityError for what is not here.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = _device(torch, loading.device)
    with torch.inference_mode():
        return _LOADERS[loading.kind](torch, transformers, loading, device)


def _device(torch: Any, said: str) -> str:
    if not said.startswith("cuda"):
        return said
    if not torch.cuda.is_available():
        raise LLMCapabilityError(
            f"device is {said!r}, and torch finds no CUDA here; say cpu, or install a torch with "
            "CUDA",
            param="device",
        )
    number = int(said.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise LLMCapabilityError(
            f"device is {said!r}, and the last one here is cuda:{torch.cuda.device_count() - 1}",
            param="device",
        )
    return f"cuda:{number}"


def _weights(auto: Any, loading: Loading, device: str) -> Any:
    """The model of the class that ``auto`` finds for it. Only safetensors are read, from this machine."""
    more: dict[str, Any] = {}
    if loading.attention is not None:
        more["attn_implementation"] = loading.attention
    try:
        model = auto.from_pretrained(
            str(loading.folder),
            dtype=loading.dtype or ("float32" if device == "cpu" else "auto"),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=loading.trust_remote_code,
            **more,
        )
    except (ValueError, ImportError, KeyError) as refusal:
        raise LLMInvalidRequestError(
            f"transformers does not load {str(loading.folder)!r}: {refusal}", param="model"
        ) from refusal
    return model.to(device).eval()


def _tokenizer(transformers: Any, loading: Loading) -> Tokenizer:
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            str(loading.folder),
            local_files_only=True,
            use_fast=True,
            trust_remote_code=loading.trust_remote_code,
        )
    except (ValueError, OSError, ImportError, KeyError) as refusal:
        raise LLMInvalidRequestError(
            f"transformers finds no tokenizer in {str(loading.folder)!r}: {refusal}", param="model"
        ) from refusal
    fast = getattr(found, "backend_tokenizer", None)
    if fast is None:
        raise LLMInvalidRequestError(
            f"model {str(loading.folder)!r} has a tokenizer in Python alone "
            f"({type(found).__name__}); one with a tokenizer.json is needed",
            param="model",
        )
    return Tokenizer(fast)


def _writer(torch: Any, transformers: Any, loading: Loading, device: str) -> Loaded:
    check_weights(loading.folder)
    model = _weights(transformers.AutoModelForCausalLM, loading, device)
    tokenizer = _tokenizer(transformers, loading)
    folder = loading.folder
    return Loaded(
        tokenizer=tokenizer,
        context_tokens=context_tokens(folder, loading.max_model_len),
        fingerprint=_fingerprint(torch, transformers, model),
        ends=ends_of(folder),
        template=find_template(folder),
        decoder=TorchDecoder(torch, model, device),
        defaults=usual_sampling(folder),
    )


def _embedder(torch: Any, transformers: Any, loading: Loading, device: str) -> Loaded:
    pooling = read_pooling(loading.folder)
    inner = evolve(loading, folder=pooling.model)
    check_weights(inner.folder)
    model = _weights(transformers.AutoModel, inner, device)
    encoder = TorchEncoder(torch, model, device)
    context = context_tokens(inner.folder, loading.max_model_len)
    return Loaded(
        tokenizer=_tokenizer(transformers, inner),
        context_tokens=min(context, pooling.most_tokens or context),
        fingerprint=_fingerprint(torch, transformers, model),
        encoder=encoder,
        pooling=pooling,
        dimensions=pooling.dimensions(model.config.get_text_config().hidden_size),
    )


def _classifier(torch: Any, transformers: Any, loading: Loading, device: str) -> Loaded:
    check_weights(loading.folder)
    model = _weights(transformers.AutoModelForSequenceClassification, loading, device)
    return Loaded(
        tokenizer=_tokenizer(transformers, loading),
        context_tokens=context_tokens(loading.folder, loading.max_model_len),
        fingerprint=_fingerprint(torch, transformers, model),
        encoder=TorchEncoder(torch, model, device, scores=True),
        labels=labels_of(loading.folder),
        activation=activation_of(loading.folder),
    )


def _fingerprint(torch: Any, transformers: Any, model: Any) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    return f"transformers-{transformers.__version__}-torch-{torch.__version__}-{dtype}"


_LOADERS: Mapping[str, Callable[[Any, Any, Loading, str], Loaded]] = {
    "generate": _writer,
    "embed": _embedder,
    "rerank": _classifier,
    "classify": _classifier,
}
"""What loads a model, by its kind."""


class TorchDecoder:
    """A causal language model of transformers.

    ``past`` is a cache of transformers. One of plain layers (all tokens of all texts kept, which is
    so in most models) can hold several texts, the shorter ones filled up at their beginnings; others,
    such as those that forget what lies outside of a window, hold one text each.
    """

    def __init__(self, torch: Any, model: Any, device: str) -> None:
        from transformers.cache_utils import DynamicCache, DynamicLayer

        self._torch, self._model, self._device = torch, model, device
        self._plain_cache, self._plain_layer = DynamicCache, DynamicLayer
        self.width: int = model.get_output_embeddings().weight.shape[0]
        takes = inspect.signature(model.forward).parameters
        self._places = "position_ids" in takes
        # Its name was another one until 5.24.
        self._cache = "cache" if "cache" in takes else "past_key_values"
        self._usual: dict[str, Any] = {"use_cache": True, "return_dict": True}
        if "logits_to_keep" in takes:
            self._usual["logits_to_keep"] = 1

    def read(self, past: Any, ids: Sequence[int]) -> tuple[Any, Any]:
        torch = self._torch
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([list(ids)], device=self._device),
                **{self._cache: past},
                **self._usual,
            )
        return getattr(out, self._cache), out.logits[:, -1]

    def write(self, past: Any, ids: Sequence[int], lengths: Sequence[int]) -> tuple[Any, Any]:
        torch = self._torch
        more: dict[str, Any] = {}
        longest = max(lengths)
        with torch.inference_mode():
            if len(lengths) > 1:
                # Of a text that was filled up, what it was filled up with is not to be looked at.
                seen = torch.tensor(lengths, device=self._device).unsqueeze(1)
                columns = torch.arange(longest + 1, device=self._device)
                more["attention_mask"] = (columns >= longest - seen).long()
                if self._places:
                    more["position_ids"] = seen
            out = self._model(
                input_ids=torch.tensor(list(ids), device=self._device).unsqueeze(1),
                **{self._cache: past},
                **self._usual,
                **more,
            )
        return getattr(out, self._cache), out.logits[:, -1]

    def can_join(self, past: Any) -> bool:
        return type(past) is self._plain_cache and all(
            type(layer) is self._plain_layer for layer in past.layers
        )

    def join(self, pasts: Sequence[Any]) -> Any:
        torch = self._torch
        first = pasts[0]
        with torch.inference_mode():
            for layer, *others in zip(*(past.layers for past in pasts), strict=True):
                for name in ("keys", "values"):
                    parts = [getattr(each, name) for each in (layer, *others)]
                    longest = max(part.shape[-2] for part in parts)
                    filled = [
                        torch.nn.functional.pad(part, (0, 0, longest - part.shape[-2], 0))
                        for part in parts
                    ]
                    setattr(layer, name, torch.cat(filled))
        return first

    def keep(self, past: Any, rows: Sequence[int], longest: int) -> Any:
        torch = self._torch
        with torch.inference_mode():
            which = torch.tensor(list(rows), device=self._device)
            for layer in past.layers:
                for name in ("keys", "values"):
                    whole = getattr(layer, name)
                    cut = whole.shape[-2] - longest
                    setattr(layer, name, whole.index_select(0, which)[..., cut:, :].contiguous())
        return past

    def copy(self, past: Any) -> Any:
        with self._torch.inference_mode():
            return copy.deepcopy(past)

    def likeliest(self, scores: Any) -> list[int]:
        found: list[int] = scores.argmax(-1).tolist()
        return found

    def row(self, scores: Any, row: int) -> Any:
        return scores[row].float().cpu().numpy()


class TorchEncoder:
    """An encoder of transformers, or a classifier, of which the ``scores`` are wanted."""

    def __init__(self, torch: Any, model: Any, device: str, *, scores: bool = False) -> None:
        self._torch, self._model, self._device = torch, model, device
        self._scores = scores
        self.width: int = model.get_input_embeddings().weight.shape[0]
        self._filling = model.config.pad_token_id or 0
        self._takes_types = "token_type_ids" in inspect.signature(model.forward).parameters

    def encode(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Any:
        torch = self._torch
        longest = max(map(len, ids))

        def filled(rows: Sequence[Sequence[int]], filling: int) -> Any:
            whole = [[*row, *[filling] * (longest - len(row))] for row in rows]
            return torch.tensor(whole, device=self._device)

        more = {"token_type_ids": filled(types, 0)} if self._takes_types else {}
        with torch.inference_mode():
            out = self._model(
                input_ids=filled(ids, self._filling),
                attention_mask=filled([[1] * len(row) for row in ids], 0),
                return_dict=True,
                **more,
            )
            said = out.logits if self._scores else out.last_hidden_state
            return said.float().cpu().numpy()
