"""SAM's image encoder (ViT-B), with the convolutions that DeepSeek-OCR puts behind it."""

from __future__ import annotations

from headrace.numbers.architecture.pieces import (
    Count,
    convolution,
    linear,
    norm,
    products,
    table,
    vectors,
)
from headrace.numbers.architecture.shapes import Mlp, Windowed
from headrace.numbers.architecture.stack import mlp
from headrace.numbers.architecture.tree import Part


def windowed(count: Count, shape: Windowed, name: str) -> Part:
    """Attention in padded windows, in the layers ``whole`` over all; neck; reductions."""
    batch = count.run.batch
    side = (count.run.image_px or shape.image) // shape.patch
    cells = batch * side * side
    patches = convolution(
        count, "patches", shape.channels, shape.width, shape.patch * shape.patch, cells
    )
    parts = [patches]
    if shape.positions:
        own = (shape.image // shape.patch) ** 2
        parts.append(table(count, "positions", "positions", own, shape.width, cells))
    across = -(-side // shape.window) if shape.window else 1
    within = shape.depth - len(shape.whole)
    if within:
        parts.append(
            Part(
                name=f"layers in windows of {shape.window}",
                parts=_layer(count, shape, shape.window, batch * across * across, cells),
                times=within,
            )
        )
    if shape.whole:
        parts.append(
            Part(
                name="layers over all",
                parts=_layer(count, shape, side, batch, cells),
                times=len(shape.whole),
            )
        )
    parts += [
        convolution(count, "neck 1", shape.width, shape.neck, 1, cells, bias=False),
        norm(count, "norm", shape.neck, cells, bias=True),
        convolution(count, "neck 2", shape.neck, shape.neck, 9, cells, bias=False),
        norm(count, "norm", shape.neck, cells, bias=True),
    ]
    channels = shape.neck
    for i, made in enumerate(shape.reductions):
        side = (side + 1) // 2
        parts.append(
            convolution(count, f"reduction {i}", channels, made, 9, batch * side * side, bias=False)
        )
        channels = made
    return Part(name=name, parts=tuple(parts))


def _layer(count: Count, shape: Windowed, side: int, windows: int, cells: int) -> tuple[Part, ...]:
    """A layer over ``windows`` squares of ``side`` squared tokens; the MLP runs without padding.

    Relative positions: for each query and head, its head_size numbers with each row and each column
    of the window, 2 x side products of that length.
    """
    width = shape.width
    tokens = side * side
    rows = windows * tokens
    head = width // shape.heads
    inputs = [
        linear(count, what, f"attention.{what}", width, width, rows, bias=shape.bias)
        for what in ("q", "k", "v")
    ]
    scores = products(
        count,
        "scores and values",
        heads=shape.heads,
        pairs=rows * tokens,
        key_size=head,
        value_size=head,
        rows=rows,
    )
    relative = []
    if shape.relative:
        made = products(
            count,
            "relative positions",
            heads=shape.heads,
            pairs=rows * side,
            key_size=head,
            value_size=head,
            rows=0,
        )
        weights = vectors(count, 2 * (2 * side - 1) * head, 0)
        relative = [made, Part(name="relative position tables", own=weights)]
    return (
        norm(count, "norm", width, cells, bias=True),
        *inputs,
        scores,
        *relative,
        linear(count, "out", "attention.out", width, width, rows, bias=True),
        norm(count, "norm", width, cells, bias=True),
        mlp(count, "mlp", "mlp", Mlp(width=shape.mlp, gated=False, bias=True), width, cells),
    )
