"""Torch as the judge: the FLOPs that FlopCounterMode counts in a pass of a model without weights.

Models are built on the meta device, where shapes are computed and nothing else, with eager
attention, so that every product is one that FlopCounterMode sees. Run as a program it writes
``recorded.json``, which the ordinary tests compare with where torch is not installed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from architecture.cases import Case
from headrace.numbers.architecture import Pass

RECORDED = Path(__file__).with_name("recorded.json")


def built(case: Case) -> Any:
    """The model of transformers, without weights."""
    import torch
    import transformers

    settings = {k: v for k, v in case.config.items() if k not in {"model_type", "architectures"}}
    kind = case.config["model_type"]
    if kind == "clip_vision_model":
        config = transformers.CLIPVisionConfig(**settings)
    elif kind == "sam_vision_model":
        config = transformers.SamVisionConfig(**settings)
    else:
        config = transformers.AutoConfig.for_model(kind, **settings)
    config._attn_implementation = "eager"
    if any("expert" in field for field in settings):
        config._experts_implementation = "grouped_mm"
    auto = getattr(transformers, case.auto)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = auto.from_config if case.auto.startswith("Auto") else auto
        model = make(config)
    return model.to(torch.bfloat16).eval()


def counted(model: Any, case: Case, run: Pass) -> int:
    """FLOPs of ``run``, with our own formulas for what FlopCounterMode misses."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from headrace.bench.profile.formulas import formulas

    with torch.no_grad(), torch.device("meta"):
        inputs = prepared(model, case, run)
        counter = FlopCounterMode(display=False, custom_mapping=formulas())
        with counter:
            model(**inputs)
    return counter.get_total_flops()


def prepared(model: Any, case: Case, run: Pass) -> dict[str, Any]:
    """What is handed to the model: tokens, a filled cache, pictures or sound."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    kind = case.config["model_type"]
    tokens = torch.zeros(run.batch, run.tokens, dtype=torch.long)
    if kind in {"vit", "clip_vision_model", "sam_vision_model"}:
        side = case.config["image_size"]
        return {"pixel_values": torch.zeros(run.batch, 3, side, side, dtype=torch.bfloat16)}
    if kind == "bert":
        return {"input_ids": tokens}
    past = torch.zeros(run.batch, run.past, dtype=torch.long)
    if kind in {"t5", "whisper"}:
        if kind == "t5":
            read = {"input_ids": torch.zeros(run.batch, run.source, dtype=torch.long)}
        else:
            bands = case.config["num_mel_bins"]
            read = {"input_features": torch.zeros(run.batch, bands, 3000, dtype=torch.bfloat16)}
        if not run.past:
            return {**read, "decoder_input_ids": tokens, "use_cache": True}
        done = model(**read, decoder_input_ids=past, use_cache=True)
        assert isinstance(done.past_key_values, EncoderDecoderCache)
        from transformers.modeling_outputs import BaseModelOutput

        return {
            "encoder_outputs": BaseModelOutput(last_hidden_state=done.encoder_last_hidden_state),
            "decoder_input_ids": tokens,
            "past_key_values": done.past_key_values,
            "use_cache": True,
        }
    inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": True}
    cache = DynamicCache(config=model.config)
    if run.past:
        # The past in one pass, whose work is not counted; a long one costs nothing here.
        model(input_ids=past, past_key_values=cache, use_cache=True, logits_to_keep=1)
    inputs["past_key_values"] = cache
    if case.rules.logits == "last":
        inputs["logits_to_keep"] = 1
    return inputs


def parameters(model: Any) -> int:
    """All numbers of the model that a checkpoint has; a tied table is one."""
    return sum(each.numel() for each in model.parameters())


def ocr_counted(run: Pass) -> dict[str, int]:
    """DeepSeek-OCR's parts by transformers' model of the same make, Unlimited-OCR.

    Its vision side is DeepSeek-OCR's; its language model is too, but for sliding windows.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DynamicCache
    from transformers.models.unlimited_ocr import configuration_unlimited_ocr as configurations
    from transformers.models.unlimited_ocr import modeling_unlimited_ocr as models

    from headrace.bench.profile.formulas import formulas

    text = configurations.UnlimitedOcrTextConfig(layer_types=["full_attention"] * 12)
    found = {}
    with torch.no_grad(), torch.device("meta"):
        parts = {
            "SAM encoder": models.UnlimitedOcrSamVisionEncoder(
                configurations.UnlimitedOcrSamVisionConfig(attn_implementation="eager")
            ),
            "CLIP encoder": models.UnlimitedOcrVisionEncoder(
                configurations.UnlimitedOcrVisionEncoderConfig(attn_implementation="eager")
            ),
            "projector": nn.Linear(2048, 1280),
        }
        inputs = {
            "SAM encoder": torch.zeros(run.batch, 3, 1024, 1024),
            "CLIP encoder": torch.zeros(run.batch, 1024, 16, 16),
            "projector": torch.zeros(run.batch, 256, 2048),
        }
        for name, part in parts.items() if not run.past else ():
            with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
                part(inputs[name])
            found[name] = counter.get_total_flops()
        text._attn_implementation = "eager"
        text._experts_implementation = "grouped_mm"
        language = models.UnlimitedOcrTextModel(text).to(torch.bfloat16)
        head = nn.Linear(1280, 129280, bias=False).to(torch.bfloat16)
        cache = DynamicCache()
        if run.past:
            past = torch.zeros(run.batch, run.past, dtype=torch.long)
            language(input_ids=past, cache=cache)
        tokens = torch.zeros(run.batch, run.tokens, dtype=torch.long)
        with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            head(language(input_ids=tokens, cache=cache).last_hidden_state)
        found["language model"] = counter.get_total_flops()
    return found


def record() -> None:
    """Write what torch counts for every case."""
    import torch
    import transformers

    from architecture.cases import CASES, OCR_PASSES

    found: dict[str, Any] = {}
    for name, case in CASES.items():
        model = built(case)
        found[name] = {
            "parameters": parameters(model) + case.shared_by_torch,
            "flops": [counted(model, case, run) for run in case.passes],
        }
        print(name, found[name], flush=True)
    plain = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cases": found,
        "deepseek-ocr": [ocr_counted(run) for run in OCR_PASSES],
    }
    RECORDED.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
