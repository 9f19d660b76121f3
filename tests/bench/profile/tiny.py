"""Models small enough to run in a test, pictures, and requests for both; nothing is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts.profiling import LLMProfileRequest

# Skips whoever imports this where the profile's packages are not installed.
torch: Any = pytest.importorskip("torch", reason="torch is not installed: make test-profile")
transformers: Any = pytest.importorskip(
    "transformers", reason="transformers is not installed: make test-profile"
)
# Two threads that wait for each other are slow beside other programs, and these models need one.
torch.set_num_threads(1)
IMAGE_TOKEN = 299
TEXT = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "dtype": "float32",
    "vocab_size": 300,
    "max_position_embeddings": 8192,
}
EYE = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
}
LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": TEXT,
    "vision_config": EYE,
    "image_token_index": IMAGE_TOKEN,
    "dtype": "float32",
}


OCR = {
    "architectures": ["DeepseekOCRForCausalLM"],
    "auto_map": {
        "AutoConfig": "modeling_deepseekocr.DeepseekOCRConfig",
        "AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM",
    },
    # Not the kind that its class has, as in the published configuration.
    "model_type": "deepseek_vl_v2",
    "language_config": {
        "first_k_dense_replace": 1,
        "hidden_size": 64,
        "intermediate_size": 160,
        "kv_lora_rank": None,
        "max_position_embeddings": 8192,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_attention_heads": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "tie_word_embeddings": False,
        "use_mla": False,
        "v_head_dim": 0,
        "vocab_size": 300,
    },
    "projector_config": {"input_dim": 128, "n_embed": 64, "projector_type": "linear"},
    "torch_dtype": "float32",
    "vision_config": {
        "image_size": 256,
        "mlp_ratio": 3.7362,
        "width": {
            "clip-l-14-224": {
                "heads": 4,
                "image_size": 224,
                "layers": 2,
                "patch_size": 14,
                "width": 64,
            },
            "sam_vit_b": {
                "downsample_channels": [48, 64],
                "global_attn_indexes": [1],
                "heads": 2,
                "layers": 2,
                "width": 32,
            },
        },
    },
}


def written(folder: Path, config: dict[str, Any]) -> Path:
    """A model's folder with nothing in it but its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def llama(folder: Path) -> Path:
    """A language model's shape."""
    return written(folder, {**TEXT, "architectures": ["LlamaForCausalLM"]})


def llava(folder: Path) -> Path:
    """A vision-language model with its weights (random ones), tokenizer and picture processor."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_settings(EYE)),
        text_config=transformers.LlamaConfig(**_settings(TEXT)),
        image_token_index=IMAGE_TOKEN,
    )
    torch.manual_seed(0)
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer = _tokenizer()
    side = {"height": EYE["image_size"], "width": EYE["image_size"]}
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(size=side, crop_size=side),
        tokenizer=tokenizer,
        patch_size=EYE["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def ocr(folder: Path) -> Path:
    """A model that brings its code and asks for it to be trusted: DeepSeek-OCR's shape, small."""
    written(folder, OCR)
    shutil.copy(Path(__file__).with_name("modeling_deepseekocr.py"), folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    words = {"<unk>": 0, "</s>": 1, "<image>": IMAGE_TOKEN}
    words |= {f"word{i}": i for i in range(2, IMAGE_TOKEN)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "model_type"}


def pictures(folder: Path, count: int = 12) -> Path:
    """So many pictures of different sizes and colours."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed: make test-profile")
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image.new("RGB", (30 + 3 * i, 60 - 2 * i), (20 * i, 90, 250 - 20 * i)).save(
            folder / f"{i:02}.png"
        )
    return folder


def prompts(folder: Path, *texts: str) -> Path:
    """A folder of prompts, a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts or ("How far is it to the mill?", "Tell me about weirs. " * 8)):
        (folder / f"{i}.txt").write_text(text)
    return folder


def asked(model: Path, inputs: Path, **more: Any) -> LLMProfileRequest:
    """A short profile on the processor."""
    usual = {"device": "cpu", "max_new_tokens": 6, "repeats": 2, "random_weights": True}
    return LLMProfileRequest(model_path=str(model), input_dir=str(inputs), **{**usual, **more})
