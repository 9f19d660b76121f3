"""The cost of a stack of layers: attention of each kind, MLPs, experts."""

from __future__ import annotations

from itertools import groupby

from headrace.numbers.architecture.pieces import (
    Count,
    cached,
    linear,
    norm,
    products,
    vectors,
    visible,
    work,
)
from headrace.numbers.architecture.shapes import (
    Attention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    Stack,
)
from headrace.numbers.architecture.tree import Part, add


def stack_part(
    count: Count, name: str, stack: Stack, *, keeps: bool = True, source: int = 0
) -> Part:
    """All layers of ``stack``; equal ones that follow one another are one part.

    ``keeps``: whether keys and values are cached. ``source`` is how many tokens of an encoder each
    sequence crosses to.
    """
    rows = count.run.batch * count.run.tokens
    parts = []
    first = 0
    for layer, equal in groupby(stack.layers):
        times = len(list(equal))
        span = f"layer {first}" if times == 1 else f"layers {first}-{first + times - 1}"
        inner = _layer(count, layer, stack, keeps=keeps, source=source)
        parts.append(Part(name=span, parts=inner, times=times))
        first += times
    parts += [
        norm(count, "norm", stack.width, rows, bias=stack.norm_bias)
        for _ in range(stack.outer_norms)
    ]
    return Part(name=name, parts=tuple(parts))


def touched(experts: int, chosen: int, tokens: float) -> float:
    """How many distinct experts ``tokens`` tokens are expected to touch: E (1 - (1 - k / E)^n).

    Each token takes k of E, and the tokens are taken to choose evenly and independently. Real
    routers are less even, so this is an upper bound on what is read in expectation.
    """
    missed: float = (1.0 - chosen / experts) ** tokens
    return experts * (1.0 - missed)


def _layer(
    count: Count, layer: Layer, stack: Stack, *, keeps: bool, source: int
) -> tuple[Part, ...]:
    rows = count.run.batch * count.run.tokens
    if isinstance(layer.attention, LatentAttention):
        attention = _latent(count, layer.attention, stack.width)
    else:
        attention = _attention(
            count, layer.attention, stack.width, causal=stack.causal, keeps=keeps
        )
    parts = [attention]
    if layer.cross is not None:
        parts.append(_cross(count, layer.cross, stack.width, source))
    if isinstance(layer.feed, Experts):
        parts.append(_experts(count, layer.feed, stack.width))
    else:
        parts.append(mlp(count, "mlp", "mlp", layer.feed, stack.width, rows))
    norms = norm(count, "norm", stack.width, rows, bias=layer.norm_bias)
    parts += [norms] * layer.norms
    residual = work(count, rows * stack.width, 2 if layer.cross is None else 3)
    return (*parts, Part(name="residual", own=residual)) if residual.flops else tuple(parts)


def _attention(count: Count, a: Attention, width: int, *, causal: bool, keeps: bool) -> Part:
    rows = count.run.batch * count.run.tokens
    pairs, kept, _ = visible(count, window=a.window, causal=causal)
    own = []
    if keeps:
        written = count.run.tokens if a.window is None else min(count.run.tokens, a.window)
        own.append(
            cached(
                count,
                read=count.run.batch * kept,
                written=count.run.batch * written,
                width=2 * a.kv_heads * a.head_size,
            )
        )
    for size, heads in ((a.qk_norm[0], a.heads), (a.qk_norm[1], a.kv_heads)):
        if size:
            own.append(vectors(count, size, rows * heads * a.head_size / size, each=4))
    if a.rotary:
        own.append(work(count, rows * (a.heads + a.kv_heads) * a.head_size, 3))
    if a.sinks:
        own.append(vectors(count, a.heads, rows))
    if a.buckets:
        own.append(vectors(count, a.heads * a.buckets, pairs / a.buckets))
    return Part(
        name="attention",
        own=add(own),
        parts=(
            *_inputs(count, a, width, rows, rows),
            *_mixed(
                count,
                a.heads,
                (a.head_size, a.head_size),
                a.head_size,
                width,
                pairs,
                rows,
                bias=a.bias_out,
                softcap=a.softcap,
            ),
        ),
    )


def _inputs(
    count: Count, a: Attention, width: int, rows: float, other: float
) -> tuple[Part, Part, Part]:
    """Queries of ``rows`` tokens, keys and values of ``other``."""
    inner, shared = a.heads * a.head_size, a.kv_heads * a.head_size
    return (
        linear(count, "q", "attention.q", width, inner, rows, bias=a.bias_q),
        linear(count, "k", "attention.k", width, shared, other, bias=a.bias_k),
        linear(count, "v", "attention.v", width, shared, other, bias=a.bias_v),
    )


def _mixed(
    count: Count,
    heads: int,
    sizes: tuple[int, int],
    out_size: int,
    width: int,
    pairs: float,
    rows: float,
    *,
    bias: bool,
    softcap: bool = False,
) -> tuple[Part, Part]:
    """What every attention ends with: scores over keys, values by them, and all heads into one.

    ``sizes`` are those of a key and a value of one head, ``out_size`` what each head gives in the end.
    """
    return (
        products(
            count,
            "scores and values",
            heads=heads,
            pairs=pairs,
            key_size=sizes[0],
            value_size=sizes[1],
            rows=rows,
            softcap=softcap,
        ),
        linear(count, "out", "attention.out", heads * out_size, width, rows, bias=bias),
    )


def _cross(count: Count, a: Attention, width: int, source: int) -> Part:
    """Attention to an encoder's output: its keys and values are computed in the first pass alone."""
    run = count.run
    rows, first = run.batch * run.tokens, run.past == 0
    pairs = run.batch * run.tokens * source
    seen_tokens = run.batch * source
    return Part(
        name="cross attention",
        own=cached(
            count,
            read=0 if first else seen_tokens,
            written=seen_tokens if first else 0,
            width=2 * a.kv_heads * a.head_size,
        ),
        parts=(
            *_inputs(count, a, width, rows, seen_tokens if first else 0),
            *_mixed(
                count,
                a.heads,
                (a.head_size, a.head_size),
                a.head_size,
                width,
                pairs,
                rows,
                bias=a.bias_out,
                softcap=a.softcap,
            ),
        ),
    )


def _latent(count: Count, a: LatentAttention, width: int) -> Part:
    """Multi-head latent attention, in the way that the conventions name (see ``Conventions``)."""
    run, way = count.run, count.rules.latent
    rows = run.batch * run.tokens
    pairs, kept, keys = visible(count, window=None, causal=True)
    key_size = a.plain_size + a.rotary_size
    per_head = a.plain_size + a.value_size
    parts = []
    if a.query_rank is None:
        parts.append(linear(count, "q", "attention.q", width, a.heads * key_size, rows))
    else:
        rank = a.query_rank
        parts += [
            linear(count, "q down", "attention.q_a", width, rank, rows, bias=a.bias),
            norm(count, "q norm", rank, rows),
            linear(count, "q up", "attention.q_b", rank, a.heads * key_size, rows),
        ]
    down = a.latent + a.rotary_size
    parts += [
        linear(count, "kv down", "attention.kv_a", width, down, rows, bias=a.bias),
        norm(count, "kv norm", a.latent, rows),
    ]
    width_cached = down
    sizes = (key_size, a.value_size)
    up = ("attention.kv_b", a.latent)
    if way == "absorbed":
        # Each head's own matrices: plain_size x latent before, latent x value_size after.
        parts += [
            linear(count, "k up, absorbed", up[0], a.latent, a.heads * a.plain_size, rows),
            linear(count, "v up, absorbed", up[0], a.latent, a.heads * a.value_size, rows),
        ]
        sizes = (a.latent + a.rotary_size, a.latent)
    elif way == "latent":
        parts.append(linear(count, "kv up", *up, a.heads * per_head, run.batch * keys))
    else:
        parts.append(linear(count, "kv up", *up, a.heads * per_head, rows))
        width_cached = a.heads * (key_size + a.value_size)
    return Part(
        name="latent attention",
        own=add(
            [
                cached(
                    count, read=run.batch * kept, written=run.batch * run.tokens, width=width_cached
                ),
                work(count, rows * (a.heads + 1) * a.rotary_size, 3),
            ]
        ),
        parts=(
            *parts,
            *_mixed(count, a.heads, sizes, a.value_size, width, pairs, rows, bias=a.bias),
        ),
    )


def mlp(
    count: Count,
    name: str,
    kind: str,
    shape: Mlp,
    width: int,
    rows: float,
    *,
    stored: int = 1,
    read: float | None = None,
) -> Part:
    """Up (and gate), activation, down; ``stored`` and ``read`` as of ``linear``."""

    def product(what: str, n_in: int, n_out: int) -> Part:
        place = f"{kind}.{what}"
        return linear(
            count, what, place, n_in, n_out, rows, bias=shape.bias, stored=stored, read=read
        )

    gate = (product("gate", width, shape.width),) if shape.gated else ()
    return Part(
        name=name,
        own=work(count, rows * shape.width, 5 if shape.gated else 4),
        parts=(*gate, product("up", width, shape.width), product("down", shape.width, width)),
    )


def _experts(count: Count, e: Experts, width: int) -> Part:
    rows = count.run.batch * count.run.tokens
    parts = [
        linear(count, "router", "router", width, e.count, rows, bias=e.router_bias),
        mlp(
            count,
            f"experts, {e.chosen} of {e.count}",
            "experts",
            Mlp(width=e.width, gated=e.gated, bias=e.bias),
            width,
            rows * e.chosen,
            stored=e.count,
            read=touched(e.count, e.chosen, rows),
        ),
    ]
    if e.shared:
        shape = Mlp(width=e.shared, gated=e.gated, bias=e.bias)
        parts.append(mlp(count, "shared experts", "shared", shape, width, rows))
    if e.shared_gate:
        parts.append(linear(count, "shared gate", "router", width, 1, rows))
    return Part(
        name="mixture of experts",
        own=work(count, rows * (5 * e.count + 2 * e.chosen * width)),
        parts=tuple(parts),
    )
