"""A model from the config.json of transformers: its type says which reader, ``KNOWN`` lists all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.numbers.architecture.config_text import ROWS, read_text
from headrace.numbers.architecture.fields import Fields
from headrace.numbers.architecture.shapes import (
    Attention,
    Both,
    Layer,
    Mlp,
    Model,
    Picture,
    Projector,
    Rewriter,
    Shape,
    Sound,
    Stack,
    TextEncoder,
    Windowed,
)
from headrace.numbers.architecture.weights import of_dtype, quantised

Read: TypeAlias = tuple[Shape, tuple[str, ...]]


def model_from_config(
    config: Mapping[str, Any], *, name: str | None = None, dtype: str | None = None
) -> Model:
    """The model that a config.json describes; ``dtype`` goes before the one that it names.

    Raises LLMInvalidRequestError for a type that is not known here, and for a field that is missing
    or makes no sense: a wrong shape would give a wrong count in silence.
    """
    kind = str(config.get("model_type", ""))
    read = READERS.get(kind)
    if read is None and kind in ROWS:
        read = _text_reader(kind)
    if read is None:
        raise LLMInvalidRequestError(
            f"model_type is {kind!r}, which is not known here; known: {', '.join(known())}",
            param="model_type",
        )
    shape, uncounted = read(Fields(config, "config"))
    weights = of_dtype(dtype or _dtype(config))
    settings = config.get("quantization_config")
    if isinstance(settings, Mapping):
        weights = quantised(weights, settings)
    return Model(
        name=name or str(config.get("_name_or_path") or kind),
        shape=shape,
        weights=weights,
        uncounted=uncounted,
    )


def known() -> list[str]:
    """Every ``model_type`` that can be read."""
    return sorted({*ROWS, *READERS})


def _dtype(config: Mapping[str, Any]) -> str | None:
    for holder in (config, config.get("text_config"), config.get("language_config")):
        if isinstance(holder, Mapping):
            for name in ("dtype", "torch_dtype"):
                if holder.get(name):
                    return str(holder[name])
    return None


def _text_reader(kind: str) -> Callable[[Fields], Read]:
    return lambda f: read_text(f, kind)


def _even(
    *,
    width: int,
    depth: int,
    heads: int,
    mlp: int,
    bias: bool = True,
    gated: bool = False,
    outer_norms: int = 1,
    head_size: int | None = None,
    cross: bool = False,
    bias_k: bool | None = None,
    norm_bias: bool = True,
    buckets: int = 0,
    causal: bool = False,
) -> Stack:
    """A stack of ``depth`` equal layers; ``buckets`` of relative positions in the first alone."""

    def attention(buckets: int = 0) -> Attention:
        return Attention(
            heads=heads,
            kv_heads=heads,
            head_size=head_size or width // heads,
            bias_q=bias,
            bias_k=bias if bias_k is None else bias_k,
            bias_v=bias,
            bias_out=bias,
            rotary=False,
            buckets=buckets,
        )

    def layer(buckets: int) -> Layer:
        return Layer(
            attention=attention(buckets),
            cross=attention() if cross else None,
            feed=Mlp(width=mlp, gated=gated, bias=bias),
            norms=3 if cross else 2,
            norm_bias=norm_bias,
        )

    return Stack(
        width=width,
        layers=(layer(buckets), *[layer(0)] * (depth - 1)),
        outer_norms=outer_norms,
        norm_bias=norm_bias,
        causal=causal,
    )


def _bert(f: Fields) -> Read:
    made = f.any("architectures") or ["BertModel"]
    name = str(made[0])
    head, classes = "none", 0
    uncounted: tuple[str, ...] = ()
    if name.endswith("ForMaskedLM"):
        head = "tokens"
    elif name.endswith("ForSequenceClassification"):
        head, classes = "classes", len(f.any("id2label") or ()) or 2
    elif name.endswith("Model"):
        head = "pooler"
    elif not name.endswith("Encoder"):
        uncounted = (f"the head of {name}",)
    shape = TextEncoder(
        vocabulary=f.whole("vocab_size"),
        positions=f.whole("max_position_embeddings"),
        types=f.whole("type_vocab_size", default=0),
        stack=_even(
            width=f.whole("hidden_size"),
            depth=f.whole("num_hidden_layers"),
            heads=f.whole("num_attention_heads"),
            mlp=f.whole("intermediate_size"),
        ),
        head=head,
        classes=classes,
    )
    return shape, uncounted


def _vit(f: Fields) -> Read:
    name = str((f.any("architectures") or ["ViTModel"])[0])
    classifies = name.endswith("ForImageClassification")
    shape = Picture(
        image=f.whole("image_size"),
        patch=f.whole("patch_size"),
        channels=f.whole("num_channels", default=3),
        stack=_even(
            width=f.whole("hidden_size"),
            depth=f.whole("num_hidden_layers"),
            heads=f.whole("num_attention_heads"),
            mlp=f.whole("intermediate_size"),
            bias=f.flag("qkv_bias", True),
        ),
        head="classes" if classifies else "pooler",
        classes=len(f.any("id2label") or ()) or 2,
    )
    known = classifies or name.endswith("Model")
    return shape, () if known else (f"the head of {name}",)


def clip_vision(f: Fields, *, patches: bool = True, projection: int = 0) -> Picture:
    """CLIP's vision transformer; two norms stand outside its layers."""
    return Picture(
        image=f.whole("image_size"),
        patch=f.whole("patch_size"),
        channels=f.whole("num_channels", default=3),
        stack=_even(
            width=f.whole("hidden_size", "width"),
            depth=f.whole("num_hidden_layers", "layers"),
            heads=f.whole("num_attention_heads", "heads"),
            mlp=f.maybe("intermediate_size") or 4 * f.whole("hidden_size", "width"),
            outer_norms=2,
        ),
        patch_bias=False,
        patches=patches,
        projection=projection,
    )


def _clip_vision(f: Fields) -> Read:
    name = str((f.any("architectures") or ["CLIPVisionModel"])[0])
    projected = name.endswith("WithProjection")
    return clip_vision(f, projection=f.whole("projection_dim") if projected else 0), ()


def sam(f: Fields, reductions: tuple[int, ...] = ()) -> Windowed:
    """SAM's image encoder; DeepSeek-OCR's configuration leaves most of it to the code (ViT-B)."""
    width = f.whole("hidden_size", "width")
    return Windowed(
        image=f.whole("image_size", default=1024),
        patch=f.whole("patch_size", default=16),
        channels=f.whole("num_channels", default=3),
        width=width,
        depth=f.whole("num_hidden_layers", "layers"),
        heads=f.whole("num_attention_heads", "heads"),
        mlp=f.maybe("mlp_dim") or 4 * width,
        window=f.whole("window_size", default=14),
        whole=tuple(f.any("global_attn_indexes") or ()),
        neck=f.whole("output_channels", default=256),
        bias=f.flag("qkv_bias", True),
        relative=f.flag("use_rel_pos", True),
        positions=f.flag("use_abs_pos", True),
        reductions=reductions,
    )


def _whisper(f: Fields) -> Read:
    width = f.whole("d_model")
    side = partial(_even, width=width, bias_k=False)
    shape = Sound(
        bands=f.whole("num_mel_bins"),
        frames=2 * f.whole("max_source_positions"),
        encoder=side(
            depth=f.whole("encoder_layers"),
            heads=f.whole("encoder_attention_heads"),
            mlp=f.whole("encoder_ffn_dim"),
        ),
        vocabulary=f.whole("vocab_size"),
        positions=f.whole("max_target_positions"),
        decoder=side(
            depth=f.whole("decoder_layers"),
            heads=f.whole("decoder_attention_heads"),
            mlp=f.whole("decoder_ffn_dim"),
            cross=True,
            causal=True,
        ),
    )
    return shape, ()


def _t5(f: Fields) -> Read:
    side = partial(
        _even,
        width=f.whole("d_model"),
        heads=f.whole("num_heads"),
        head_size=f.whole("d_kv"),
        mlp=f.whole("d_ff"),
        bias=False,
        gated=f.text("feed_forward_proj").startswith("gated"),
        norm_bias=False,
        buckets=f.whole("relative_attention_num_buckets", default=32),
    )
    depth = f.whole("num_layers")
    shape = Rewriter(
        vocabulary=f.whole("vocab_size"),
        encoder=side(depth=depth),
        decoder=side(depth=f.maybe("num_decoder_layers") or depth, cross=True, causal=True),
        tied=f.flag("tie_word_embeddings", True),
    )
    return shape, ()


def _deepseek_ocr(f: Fields) -> Read:
    """DeepSeek-OCR: SAM at 1024 px, its cells as CLIP-L's patches, both side by side projected."""
    vision = f.inner("vision_config")
    widths = vision.inner("width")
    base = widths.inner("sam_vit_b")
    image = vision.whole("image_size", default=1024)
    # Its SAM has no size of its own: it sees the picture as it comes.
    looks = Fields({"image_size": image, **base.plain()}, "config.vision_config.width.sam_vit_b")
    eye = sam(looks, tuple(base.any("downsample_channels") or (512, 1024)))
    # CLIP gets SAM's cells of 16 px, halved by each reduction, as its patches.
    cell = eye.patch * 2 ** len(eye.reductions)
    clip = {**widths.inner("clip-l-14-224").plain(), "image_size": image, "patch_size": cell}
    side = image // cell
    projector = f.inner("projector_config")
    text, uncounted = read_text(f.inner("language_config"), "deepseek_v2")
    shape = Both(
        front=(
            ("SAM encoder", eye),
            ("CLIP encoder", clip_vision(Fields(clip, "config"), patches=False)),
            (
                "projector",
                Projector(
                    sizes=(projector.whole("input_dim"), projector.whole("n_embed")),
                    image=image,
                    cell=cell,
                ),
            ),
        ),
        text=text,
        # A newline after each row, and one separator.
        image_tokens=side * (side + 1) + 1,
    )
    return shape, (*uncounted, "tiles: one view of the whole picture is counted, no crops of it")


def _nested(f: Fields) -> Read:
    """A vision-language model whose text and vision are models of their own: LLaVA's way."""
    inner = f.inner("text_config")
    kind = inner.text("model_type", "llama")
    if kind not in ROWS:
        raise inner.complain("model_type", f"known: {', '.join(sorted(ROWS))}")
    text, uncounted = read_text(inner, kind)
    vision = f.inner("vision_config")
    if vision.text("model_type") != "clip_vision_model":
        raise vision.complain("model_type", "known: clip_vision_model")
    eye = clip_vision(vision)
    side = eye.image // eye.patch
    return (
        Both(
            front=(
                ("vision encoder", eye),
                (
                    "projector",
                    Projector(
                        sizes=(eye.stack.width, text.stack.width, text.stack.width),
                        image=eye.image,
                        cell=eye.patch,
                    ),
                ),
            ),
            text=text,
            image_tokens=side * side,
        ),
        (*uncounted, "vision_feature_layer: all layers of the vision encoder are counted"),
    )


READERS: Mapping[str, Callable[[Fields], Read]] = {
    "bert": _bert,
    "vit": _vit,
    "clip_vision_model": _clip_vision,
    "sam_vision_model": lambda f: (sam(f), ()),
    "whisper": _whisper,
    "t5": _t5,
    # DeepSeek-OCR's own configuration says deepseek_vl_v2.
    "deepseek_vl_v2": _deepseek_ocr,
    "deepseek_ocr": _deepseek_ocr,
    "llava": _nested,
}
