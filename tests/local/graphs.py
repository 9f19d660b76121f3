"""The tiny models as ONNX graphs in the layout of optimum, traced by torch."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache


class _Steps(torch.nn.Module):
    """A causal model whose memory goes in and out as plain tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> Any:
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, layer)
        # The mask is made here: a model's own way to make one cannot be traced for every length.
        whole, new = attention_mask.shape[1], input_ids.shape[1]
        rows = torch.arange(new)[:, None] + (whole - new)
        seen = (torch.arange(whole)[None, :] <= rows)[None, None] & attention_mask[
            :, None, None, :
        ].bool()
        barred = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        out = self.model(
            input_ids=input_ids,
            attention_mask=barred,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        made = []
        for layer in out.past_key_values.layers:
            made += [layer.keys, layer.values]
        return (out.logits, *made)


def causal_graph(folder: Path, to: Path) -> Path:
    """The causal model in ``folder`` as ``model.onnx`` with a memory, its other files beside it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager"
    ).eval()
    _copy(folder, to)
    config = model.config
    heads = config.num_key_value_heads
    width = config.hidden_size // config.num_attention_heads
    past = [torch.zeros(2, heads, 3, width) for _ in range(2 * config.num_hidden_layers)]
    names = [
        f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")
    ]
    axes: dict[str, Any] = {
        "input_ids": {0: "batch_size", 1: "sequence_length"},
        "attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length"},
        "position_ids": {0: "batch_size", 1: "sequence_length"},
        "logits": {0: "batch_size", 1: "sequence_length"},
    }
    for name in names:
        axes[f"past_key_values.{name}"] = {0: "batch_size", 2: "past_sequence_length"}
        axes[f"present.{name}"] = {0: "batch_size", 2: "total_sequence_length"}
    given = (torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 7, dtype=torch.long))
    _export(
        _Steps(model),
        (*given, torch.arange(3, 7).expand(2, 4), *past),
        to / "model.onnx",
        [*list(axes)[:3], *(f"past_key_values.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
        axes,
    )
    return to


class _Plain(torch.nn.Module):
    """A model of which one output alone is wanted."""

    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        barred = torch.where(
            attention_mask[:, None, None, :].bool(), 0.0, torch.finfo(torch.float32).min
        )
        said = self.model(input_ids=input_ids, attention_mask=barred, token_type_ids=token_type_ids)
        return getattr(said, self.output)


def encoder_graph(folder: Path, to: Path, *, below: str = "") -> Path:
    """The encoder or classifier in ``folder`` as ``model.onnx``, in the folder ``below`` if named."""
    config = transformers.AutoConfig.from_pretrained(folder)
    scores = config.architectures[0].endswith("ForSequenceClassification")
    auto = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModel
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()
    output = "logits" if scores else "last_hidden_state"
    _copy(folder, to)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in names}
    axes[output] = {0: "batch_size"} if scores else {0: "batch_size", 1: "sequence_length"}
    (to / below).mkdir(exist_ok=True)
    ones = torch.ones(2, 5, dtype=torch.long)
    given = (ones, ones, torch.zeros(2, 5, dtype=torch.long))
    _export(_Plain(model, output), given, to / below / "model.onnx", names, [output], axes)
    return to


def _copy(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))


def _export(module: Any, given: Any, path: Path, inputs: Any, outputs: Any, axes: Any) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # what the exporter thinks of being traced
        torch.onnx.export(
            module,
            given,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
