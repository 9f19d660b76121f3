"""A model that brings its code, in the manner of DeepSeek-OCR; copied beside a configuration.

Its class has the names, the parts and the ways in of the published one: SAM, whose cells are CLIP's
patches, both side by side projected between the words of a mixture of experts; ``infer`` prepares a
picture, says ``.cuda()`` and prints, and calls ``generate``. The parts are transformers' own of a
model of the same make, so that they run with the transformers that we run with.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.unlimited_ocr import configuration_unlimited_ocr as configurations
from transformers.models.unlimited_ocr import modeling_unlimited_ocr as parts

IMAGE_TOKEN = 299


class DeepseekOCRConfig(PreTrainedConfig):
    model_type = "DeepseekOCR"


class Projector(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Linear(into, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


def _sam(vision: dict[str, Any]) -> nn.Module:
    made = vision["width"]["sam_vit_b"]
    return parts.UnlimitedOcrSamVisionEncoder(
        configurations.UnlimitedOcrSamVisionConfig(
            hidden_size=made["width"],
            num_hidden_layers=made["layers"],
            num_attention_heads=made["heads"],
            mlp_dim=4 * made["width"],
            global_attn_indexes=made["global_attn_indexes"],
            downsample_channels=made["downsample_channels"],
            image_size=vision["image_size"],
            attn_implementation="eager",
        )
    )


def _clip(vision: dict[str, Any]) -> nn.Module:
    made = vision["width"]["clip-l-14-224"]
    return parts.UnlimitedOcrVisionEncoder(
        configurations.UnlimitedOcrVisionEncoderConfig(
            hidden_size=made["width"],
            intermediate_size=4 * made["width"],
            num_hidden_layers=made["layers"],
            num_attention_heads=made["heads"],
            image_size=made["image_size"],
            patch_size=made["patch_size"],
            attn_implementation="eager",
        )
    )


def _language(config: DeepseekOCRConfig) -> Any:
    wanted = configurations.UnlimitedOcrTextConfig.__dataclass_fields__
    given = {k: v for k, v in config.language_config.items() if k in wanted}
    depth = given["num_hidden_layers"]
    dense = config.language_config["first_k_dense_replace"]
    return configurations.UnlimitedOcrTextConfig(
        **given,
        layer_types=["full_attention"] * depth,
        mlp_layer_types=["dense" if i < dense else "sparse" for i in range(depth)],
        attn_implementation="eager",
    )


class DeepseekOCRModel(parts.UnlimitedOcrTextModel):
    def __init__(self, config: DeepseekOCRConfig) -> None:
        super().__init__(_language(config))
        self.sam_model = _sam(config.vision_config)
        self.vision_model = _clip(config.vision_config)
        width = config.projector_config["n_embed"]
        self.projector = Projector(config.projector_config["input_dim"], width)
        self.image_newline = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.view_seperator = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(
        self,
        input_ids=None,
        images=None,
        images_seq_mask=None,
        images_spatial_crop=None,
        past_key_values=None,
        use_cache=None,
        **more,
    ):
        embedded = self.embed_tokens(input_ids)
        # As in the published class: a step of one token never looks at a picture.
        if input_ids.shape[1] != 1 and torch.sum(images[0][1]).item() != 0:
            embedded = embedded.masked_scatter(
                images_seq_mask.unsqueeze(-1), self.look(*images[0], images_spatial_crop)
            )
        return super().forward(
            inputs_embeds=embedded, cache=past_key_values, use_cache=use_cache, **more
        )

    def look(self, crops, whole, grid):
        assert torch.sum(crops).item() == 0, "one view was asked for"
        assert grid.tolist() == [[1, 1]]
        cells = self.sam_model(whole).last_hidden_state
        seen = self.vision_model(cells).last_hidden_state
        both = torch.cat((seen[:, 1:], cells.flatten(2).transpose(1, 2)), dim=-1)
        found = self.projector(both)[0]
        side = math.isqrt(found.shape[0])
        rows = found.view(side, side, -1)
        rows = torch.cat((rows, self.image_newline.expand(side, 1, -1)), dim=1)
        return torch.cat((rows.flatten(0, 1), self.view_seperator[None]), dim=0)


class DeepseekOCRForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = DeepseekOCRConfig

    def __init__(self, config: DeepseekOCRConfig) -> None:
        super().__init__(config)
        self.model = DeepseekOCRModel(config)
        text = config.language_config
        self.lm_head = nn.Linear(text["hidden_size"], text["vocab_size"], bias=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        past_key_values=None,
        use_cache=None,
        images=None,
        images_seq_mask=None,
        images_spatial_crop=None,
        return_dict=None,
    ):
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            images=images,
            images_seq_mask=images_seq_mask,
            images_spatial_crop=images_spatial_crop,
        )
        logits = self.lm_head(out.last_hidden_state).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.cache)

    def infer(
        self,
        tokenizer,
        prompt="",
        image_file="",
        output_path="",
        base_size=1024,
        image_size=640,
        crop_mode=True,
        test_compress=False,
        save_results=False,
        eval_mode=False,
    ):
        Path(output_path, "images").mkdir(exist_ok=True)
        print("=" * 20, "BASE:", base_size)
        ids = [0]
        mask = [False]
        whole = torch.zeros((1, 3, image_size, image_size))
        for number, words in enumerate(prompt.split("<image>")):
            if number:
                assert not crop_mode
                picture = Image.open(image_file).convert("RGB")
                view = ImageOps.pad(picture, (image_size, image_size), color=(127, 127, 127))
                pixels = torch.frombuffer(bytearray(view.tobytes()), dtype=torch.uint8)
                whole = pixels.view(1, image_size, image_size, 3).permute(0, 3, 1, 2) / 127.5 - 1
                side = math.ceil(image_size / 16 / 4)
                marks = ([IMAGE_TOKEN] * side + [IMAGE_TOKEN]) * side + [IMAGE_TOKEN]
                ids += marks
                mask += [True] * len(marks)
            said = tokenizer.encode(words, add_special_tokens=False)
            ids += said
            mask += [False] * len(said)
        out = self.generate(
            torch.tensor([ids]).cuda(),
            images=[
                (
                    torch.zeros((1, 3, base_size, base_size)).cuda(),
                    whole.to(torch.bfloat16).cuda(),
                )
            ],
            images_seq_mask=torch.tensor([mask]).cuda(),
            images_spatial_crop=torch.tensor([[1, 1]], dtype=torch.long),
            temperature=0.0,
            eos_token_id=tokenizer.eos_token_id,
            max_new_tokens=8192,
            use_cache=True,
        )
        return tokenizer.decode(out[0, len(ids) :]) if eval_mode else None
