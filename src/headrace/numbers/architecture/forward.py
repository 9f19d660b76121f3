"""One forward pass of a model, as a tree of costs; encoders and decoders of every shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.numbers.architecture.conventions import Conventions, Pass, describe
from headrace.numbers.architecture.pieces import (
    Count,
    convolution,
    linear,
    norm,
    table,
    vectors,
)
from headrace.numbers.architecture.shapes import (
    Both,
    Model,
    Picture,
    Projector,
    Rewriter,
    Shape,
    Sound,
    Text,
    TextEncoder,
    Windowed,
)
from headrace.numbers.architecture.stack import stack_part
from headrace.numbers.architecture.tree import Cost, Part, add, total
from headrace.numbers.architecture.windowed import windowed


@frozen(kw_only=True)
class Forward:
    """What a pass costs: the tree, its ``total``, the rules as lines, and what is not counted."""

    model: str
    run: Pass
    tree: Part
    total: Cost
    rules: tuple[str, ...]
    weights: str
    uncounted: tuple[str, ...] = ()


def forward(model: Model, run: Pass, rules: Conventions | None = None) -> Forward:
    """The cost of ``run`` through ``model`` by ``rules``."""
    rules = rules or Conventions()
    count = Count(run=run, rules=rules, weights=model.weights)
    tree = _part(count, model.shape, model.name)
    return Forward(
        model=model.name,
        run=run,
        tree=tree,
        total=total(tree),
        rules=describe(rules),
        weights=model.weights.what,
        uncounted=(*model.weights.unknown, *model.uncounted),
    )


def _part(count: Count, shape: Shape, name: str) -> Part:
    count_of: Callable[[Count, Any, str], Part] = _COUNTS[type(shape)]
    return count_of(count, shape, name)


def _text(count: Count, shape: Text, name: str) -> Part:
    run = count.run
    rows = run.batch * run.tokens
    width, inner = shape.stack.width, shape.table_width or shape.stack.width
    parts = [table(count, "embedding", "embedding", shape.vocabulary, inner, rows)]
    if shape.positions:
        parts.append(table(count, "positions", "positions", shape.positions, width, rows))
    if inner != width:
        parts.append(linear(count, "project in", "projection", inner, width, rows))
    parts.append(stack_part(count, "stack", shape.stack))
    asked = _asked(count)
    if inner != width:
        parts.append(linear(count, "project out", "projection", width, inner, asked))
    if shape.head:
        parts.append(
            _head(count, inner, shape.vocabulary, asked, tied=shape.tied, bias=shape.head_bias)
        )
    return Part(name=name, parts=tuple(parts))


def _asked(count: Count) -> int:
    return count.run.batch * (count.run.tokens if count.rules.logits == "all" else 1)


def _head(
    count: Count, width: int, vocabulary: int, rows: int, *, tied: bool, bias: bool = False
) -> Part:
    """Logits: rows x width x vocabulary. A tied head reads the whole embedding table."""
    return linear(
        count,
        "head (tied)" if tied else "head",
        "embedding" if tied else "head",
        width,
        vocabulary,
        rows,
        bias=bias,
        owned=not tied,
    )


def _text_encoder(count: Count, shape: TextEncoder, name: str) -> Part:
    """BERT: the whole text at once; ``past`` plays no part."""
    run = count.run
    rows, width = run.batch * run.tokens, shape.stack.width
    parts = [
        table(count, "embedding", "embedding", shape.vocabulary, width, rows),
        table(count, "positions", "positions", shape.positions, width, rows),
    ]
    if shape.types:
        parts.append(table(count, "types", "positions", shape.types, width, rows))
    parts.append(stack_part(count, "stack", shape.stack, keeps=False))
    if shape.head in {"pooler", "classes"}:
        parts.append(linear(count, "pooler", "pooler", width, width, run.batch, bias=True))
    if shape.head == "classes":
        parts.append(
            linear(count, "classifier", "head", width, shape.classes, run.batch, bias=True)
        )
    if shape.head == "tokens":
        asked = _asked(count)
        parts += [
            linear(count, "transform", "pooler", width, width, asked, bias=True),
            norm(count, "norm", width, asked, bias=True),
            _head(count, width, shape.vocabulary, asked, tied=True, bias=True),
        ]
    return Part(name=name, parts=tuple(parts))


def _picture(count: Count, shape: Picture, name: str) -> Part:
    batch, width = count.run.batch, shape.stack.width
    side = (count.run.image_px or shape.image) // shape.patch
    tokens = side * side + shape.extra
    own_side = shape.image // shape.patch
    parts = []
    if shape.patches:
        parts.append(
            convolution(
                count,
                "patches",
                shape.channels,
                width,
                shape.patch * shape.patch,
                batch * side * side,
                bias=shape.patch_bias,
            )
        )
    inner = evolve(count, run=Pass(tokens=tokens, batch=batch))
    positions = own_side * own_side + shape.extra
    parts += [
        table(inner, "positions", "positions", positions, width, batch * tokens),
        stack_part(inner, "stack", shape.stack, keeps=False),
    ]
    if shape.extra:
        parts.append(Part(name="class token", own=vectors(count, width * shape.extra, 0)))
    if shape.head == "pooler":
        parts.append(linear(count, "pooler", "pooler", width, width, batch, bias=True))
    if shape.head == "classes":
        parts.append(linear(count, "classifier", "head", width, shape.classes, batch, bias=True))
    if shape.projection:
        parts.append(linear(count, "projection", "projection", width, shape.projection, batch))
    return Part(name=name, parts=tuple(parts))


def _projector(count: Count, shape: Projector, name: str) -> Part:
    side = (count.run.image_px or shape.image) // shape.cell
    rows = count.run.batch * side * side
    return Part(
        name=name,
        parts=tuple(
            linear(count, f"linear {i}", "projector", n_in, n_out, rows, bias=shape.bias)
            for i, (n_in, n_out) in enumerate(zip(shape.sizes, shape.sizes[1:], strict=False))
        ),
    )


def _sound(count: Count, shape: Sound, name: str) -> Part:
    """The encoder belongs to the first pass; later ones read what it left in the cache."""
    run = count.run
    frames = run.source or shape.frames
    heard = (frames + 1) // 2
    width = shape.encoder.width
    parts: list[Part] = []
    if run.past == 0:
        inner = evolve(count, run=Pass(tokens=heard, batch=run.batch))
        convolutions = (
            convolution(count, "convolution 1", shape.bands, width, 3, run.batch * frames),
            convolution(count, "convolution 2", width, width, 3, run.batch * heard),
        )
        positions = table(
            count, "positions", "positions", (shape.frames + 1) // 2, width, run.batch * heard
        )
        stack = stack_part(inner, "stack", shape.encoder, keeps=False)
        parts.append(Part(name="encoder", parts=(*convolutions, positions, stack)))
    text = Text(
        vocabulary=shape.vocabulary,
        stack=shape.decoder,
        tied=shape.tied,
        positions=shape.positions,
    )
    parts.append(_crossing(count, text, heard))
    return Part(name=name, parts=tuple(parts))


def _rewriter(count: Count, shape: Rewriter, name: str) -> Part:
    """T5: ``source`` is the length of the text that is read; nothing says what is usual."""
    run = count.run
    if run.source is None:
        raise LLMInvalidRequestError(
            "source is missing; a model that rewrites texts needs the length of what it reads",
            param="source",
        )
    source = run.source
    parts: list[Part] = []
    if run.past == 0:
        inner = evolve(count, run=Pass(tokens=source, batch=run.batch))
        width, rows = shape.encoder.width, run.batch * source
        parts.append(
            Part(
                name="encoder",
                parts=(
                    # The table is the decoder's: its rows are read here, and it is counted there.
                    Part(
                        name="embedding",
                        own=_read_alone(
                            table(count, "", "embedding", shape.vocabulary, width, rows).own
                        ),
                    ),
                    stack_part(inner, "stack", shape.encoder, keeps=False),
                ),
            )
        )
    text = Text(vocabulary=shape.vocabulary, stack=shape.decoder, tied=shape.tied)
    parts.append(_crossing(count, text, source))
    return Part(name=name, parts=tuple(parts))


def _read_alone(cost: Cost) -> Cost:
    return evolve(cost, parameters=0, stored_bytes=0)


def _crossing(count: Count, text: Text, source: int) -> Part:
    rows = count.run.batch * count.run.tokens
    width = text.stack.width
    parts = [table(count, "embedding", "embedding", text.vocabulary, width, rows)]
    if text.positions:
        parts.append(table(count, "positions", "positions", text.positions, width, rows))
    parts += [
        stack_part(count, "stack", text.stack, source=source),
        _head(count, width, text.vocabulary, _asked(count), tied=text.tied),
    ]
    return Part(name="decoder", parts=tuple(parts))


def _both(count: Count, shape: Both, name: str) -> Part:
    """Pictures are read in the first pass; their places are among the prompt's tokens."""
    run = count.run
    front: list[Part] = []
    if run.past == 0:
        front = [_part(count, each, label) for label, each in shape.front]
    return Part(name=name, parts=(*front, _text(count, shape.text, "language model")))


def generates(model: Model) -> bool:
    """Whether ``model`` makes tokens, so that a pass may follow another; an encoder does not."""
    return isinstance(model.shape, (Text, Sound, Rewriter, Both))


def size(model: Model) -> Cost:
    """Parameters and stored bytes of all of ``model``; what a pass costs is not in it."""
    cost = total(
        _part(
            Count(run=Pass(tokens=1, source=1), rules=Conventions(), weights=model.weights),
            model.shape,
            model.name,
        )
    )
    return Cost(parameters=cost.parameters, stored_bytes=cost.stored_bytes)


def kv_bytes_per_token(model: Model, rules: Conventions | None = None) -> float | None:
    """Bytes that one token of one sequence adds to the cache, before any sliding window is full."""
    run = Pass(tokens=1, past=1, source=1)
    count = Count(run=run, rules=rules or Conventions(), weights=model.weights)
    return add([total(_part(count, model.shape, model.name))]).kv_write_bytes


_COUNTS: Mapping[type, Callable[[Count, Any, str], Part]] = {
    Text: _text,
    TextEncoder: _text_encoder,
    Picture: _picture,
    Windowed: windowed,
    Projector: _projector,
    Sound: _sound,
    Rewriter: _rewriter,
    Both: _both,
}
