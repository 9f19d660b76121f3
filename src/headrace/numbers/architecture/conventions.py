"""By which rules work is counted, and what is run: both are parameters, and both are printed.

Two counts of one model differ by their rules more often than by a mistake. The rules here that
nobody chooses are those of torch's FlopCounterMode, so that the two can be compared to the unit.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

AttentionCount: TypeAlias = Literal["dense", "causal"]
LogitsCount: TypeAlias = Literal["all", "last"]
LatentCache: TypeAlias = Literal["expanded", "latent", "absorbed"]


@frozen(kw_only=True)
class Conventions:
    """The rules of a count.

    ``attention``: ``dense`` counts every query with every key that is computed, masked or not, as
    kernels without knowledge of the mask do; ``causal`` only the pairs that the mask lets through.

    ``logits``: for ``all`` positions, or only the ``last`` of each sequence, which is all that
    generating needs.

    ``latent``: how multi-head latent attention is run. ``expanded``: keys and values of every head
    are computed once a token and cached. ``latent``: the latent is cached, and the keys and values
    of all tokens so far are computed from it again in every pass (transformers does so).
    ``absorbed``: the latent is cached, and the up-projections are applied to query and output
    instead (vLLM and SGLang decode so).

    ``elementwise``: also count norms, activations, softmax, biases, residual sums and rotations,
    and read the weights of norms and biases. Off by default: FlopCounterMode counts matrix
    products and convolutions alone.
    """

    attention: AttentionCount = "dense"
    logits: LogitsCount = "all"
    latent: LatentCache = "expanded"
    elementwise: bool = False
    flops_per_multiply_add: int = 2


@frozen(kw_only=True)
class Pass:
    """One forward pass: ``tokens`` new ones in each of ``batch`` sequences after ``past`` ones.

    ``source`` is the length of an encoder's input beside it, for a model that has one; None takes
    the model's own usual length. ``image_px`` is the side of a picture, None the model's own.
    """

    tokens: int
    past: int = 0
    batch: int = 1
    source: int | None = None
    image_px: int | None = None

    def __attrs_post_init__(self) -> None:
        for name, value, least in (
            ("tokens", self.tokens, 1),
            ("past", self.past, 0),
            ("batch", self.batch, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")
        for name, given in (("source", self.source), ("image_px", self.image_px)):
            if given is not None and given < 1:
                raise ValueError(f"{name} is {given}; it must be 1 or more")


def prefill(
    prompt: int, batch: int = 1, *, source: int | None = None, image_px: int | None = None
) -> Pass:
    """The pass that reads ``prompt`` tokens of each sequence."""
    return Pass(tokens=prompt, batch=batch, source=source, image_px=image_px)


def decode(past: int, batch: int = 1, *, source: int | None = None) -> Pass:
    """The pass that makes one more token after ``past`` ones in each sequence."""
    return Pass(tokens=1, past=past, batch=batch, source=source)


def describe(conventions: Conventions) -> tuple[str, ...]:
    """The rules as lines for a reader."""
    c = conventions
    return (
        f"one multiply-add is {c.flops_per_multiply_add} FLOPs",
        "attention: every query with every key, masked or not (dense)"
        if c.attention == "dense"
        else "attention: only what the mask lets through (causal)",
        "logits: for all positions" if c.logits == "all" else "logits: for the last position only",
        {
            "expanded": "latent attention: keys and values are cached expanded",
            "latent": "latent attention: keys and values are computed again from the latent cache",
            "absorbed": "latent attention: up-projections absorbed into query and output",
        }[c.latent],
        "elementwise work: counted, with the weights of norms and biases"
        if c.elementwise
        else "elementwise work: not counted, nor the weights of norms and biases",
    )
