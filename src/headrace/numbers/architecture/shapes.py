"""The shape of a model: which blocks it has and how large they are. No format is known here."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from headrace.numbers.architecture.weights import Weights


@frozen(kw_only=True)
class Attention:
    """Multi-head attention; with fewer ``kv_heads`` than ``heads`` these are shared (GQA, MQA).

    ``window`` is how many tokens each may see, itself among them. ``qk_norm`` is the width of a
    norm on queries and keys (0: none). ``sinks`` is one more weight a head.
    """

    heads: int
    kv_heads: int
    head_size: int
    bias_q: bool = False
    bias_k: bool = False
    bias_v: bool = False
    bias_out: bool = False
    window: int | None = None
    qk_norm: tuple[int, int] = (0, 0)
    rotary: bool = True
    softcap: bool = False
    sinks: bool = False
    buckets: int = 0


@frozen(kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): keys and values of all heads from one latent."""

    heads: int
    query_rank: int | None
    latent: int
    plain_size: int
    rotary_size: int
    value_size: int
    bias: bool = False


@frozen(kw_only=True)
class Mlp:
    """Two products with an activation between them, or three where it is ``gated``."""

    width: int
    gated: bool = True
    bias: bool = False


@frozen(kw_only=True)
class Experts:
    """A router that picks ``chosen`` of ``count`` MLPs for each token, and what all tokens take.

    ``shared`` is the width of the shared expert (0: none), ``shared_gate`` whether a gate of one
    number scales it.
    """

    count: int
    chosen: int
    width: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared: int = 0
    shared_gate: bool = False


@frozen(kw_only=True)
class Layer:
    """A block of a stack; ``norms`` of its width, ``cross`` attention to an encoder's output."""

    attention: Attention | LatentAttention
    feed: Mlp | Experts
    cross: Attention | None = None
    norms: int = 2
    norm_bias: bool = False


@frozen(kw_only=True)
class Stack:
    """Layers of one width, with a norm before or after them where the model has one."""

    width: int
    layers: tuple[Layer, ...]
    outer_norms: int = 1
    norm_bias: bool = False
    causal: bool = True


@frozen(kw_only=True)
class Text:
    """Tokens in, logits out: tables, a causal stack, a head (``tied`` to the embedding or not)."""

    vocabulary: int
    stack: Stack
    tied: bool
    positions: int = 0
    head: bool = True
    head_bias: bool = False
    table_width: int | None = None


@frozen(kw_only=True)
class TextEncoder:
    """BERT and its like: tables, a stack that sees all, and a head by name.

    ``types`` are segment rows. ``head`` is ``none``, ``pooler``, ``classes`` (pooler and
    classifier) or ``tokens`` (a masked language model's: a dense layer, then the tied table).
    """

    vocabulary: int
    positions: int
    types: int
    stack: Stack
    head: str = "none"
    classes: int = 0


@frozen(kw_only=True)
class Picture:
    """A vision transformer over ``image`` / ``patch`` squared patches and ``extra`` tokens.

    ``patches`` is False where it is handed patches that another encoder made; ``patch`` is then
    what one of them covers of the picture. ``head`` is ``none``,
    ``pooler`` or ``classes``; ``projection`` is the width that a pooled output is projected to.
    """

    image: int
    patch: int
    channels: int
    stack: Stack
    extra: int = 1
    patch_bias: bool = True
    patches: bool = True
    head: str = "none"
    classes: int = 0
    projection: int = 0


@frozen(kw_only=True)
class Windowed:
    """SAM's encoder: attention within windows but in layers ``whole``; convolutions at the end.

    ``relative`` positions are two more products a layer. ``reductions`` are the channels that
    convolutions of stride 2 end in (DeepSeek-OCR has two).
    """

    image: int
    patch: int
    channels: int
    width: int
    depth: int
    heads: int
    mlp: int
    window: int
    whole: tuple[int, ...]
    neck: int
    bias: bool = True
    relative: bool = True
    positions: bool = True
    reductions: tuple[int, ...] = ()


@frozen(kw_only=True)
class Projector:
    """Products one after the other over ``sizes``, from a vision encoder to a language model.

    They have a row for each square of ``cell`` pixels of the picture, whose own side is ``image``.
    """

    sizes: tuple[int, ...]
    image: int
    cell: int
    bias: bool = True


@frozen(kw_only=True)
class Sound:
    """Whisper: two convolutions over ``frames`` of ``bands``, an encoder, a decoder that crosses."""

    bands: int
    frames: int
    encoder: Stack
    vocabulary: int
    positions: int
    decoder: Stack
    tied: bool = True


@frozen(kw_only=True)
class Rewriter:
    """T5: an encoder over the source, a decoder that crosses to it, one table for both."""

    vocabulary: int
    encoder: Stack
    decoder: Stack
    tied: bool


@frozen(kw_only=True)
class Both:
    """Encoders and projectors in front of a language model, each under its name.

    ``image_tokens`` is how many places of the prompt a picture of its own size takes, None where it
    is not known.
    """

    front: tuple[tuple[str, Shape], ...]
    text: Text
    image_tokens: int | None = None


Shape: TypeAlias = Text | TextEncoder | Picture | Windowed | Projector | Sound | Rewriter | Both


@frozen(kw_only=True)
class Model:
    """A model's shape and its weights' sizes; ``uncounted`` is what the source has beyond both."""

    name: str
    shape: Shape
    weights: Weights
    uncounted: tuple[str, ...] = ()
