"""What models are made of, each with its formula: products, tables, convolutions, attention, norms."""

from __future__ import annotations

from attrs import frozen

from headrace.numbers.architecture.conventions import Conventions, Pass
from headrace.numbers.architecture.tree import Cost, Part, add
from headrace.numbers.architecture.weights import Weights


@frozen(kw_only=True)
class Count:
    """What every piece needs to know: the pass, the rules, the bytes."""

    run: Pass
    rules: Conventions
    weights: Weights


def linear(
    count: Count,
    name: str,
    kind: str,
    n_in: int,
    n_out: int,
    rows: float,
    *,
    bias: bool = False,
    stored: int = 1,
    read: float | None = None,
    owned: bool = True,
) -> Part:
    """A matrix product: rows x n_in x n_out multiply-adds.

    ``stored`` is how many such matrices there are (experts), ``read`` how many of them a pass
    touches; the weights are read once, however many rows there are. A matrix that is not ``owned``
    belongs to another part (a tied head) and is counted there.
    """
    touched = float(stored) if read is None else read
    if rows == 0:
        touched = 0.0
    matrix = n_in * n_out
    product = Cost(
        flops=rows * matrix * count.rules.flops_per_multiply_add,
        weight_bytes=_bytes(matrix * touched, _size(count, kind)),
        activation_bytes=_bytes(rows * (n_in + n_out), count.weights.activations),
        parameters=matrix * stored if owned else 0,
        stored_bytes=_bytes(matrix * stored if owned else 0, _size(count, kind)),
    )
    beside = vectors(count, n_out, rows, read=touched, stored=stored) if bias else Cost()
    return Part(name=name, own=add([product, beside]))


def vectors(
    count: Count,
    size: int,
    rows: float,
    *,
    each: int = 1,
    read: float = 1,
    stored: int = 1,
) -> Cost:
    """Elementwise work with a vector of ``size`` weights: ``each`` operations an element.

    Nothing but parameters where the rules leave elementwise work out.
    """
    weight = count.weights.vectors
    counted = count.rules.elementwise
    return Cost(
        flops=rows * size * each if counted else 0,
        weight_bytes=_bytes(size * (read if rows else 0), weight) if counted else 0,
        parameters=size * stored,
        stored_bytes=_bytes(size * stored, weight),
    )


def work(count: Count, elements: float, each: int = 1) -> Cost:
    """Elementwise work without weights: ``each`` operations for each of ``elements``."""
    return Cost(flops=elements * each if count.rules.elementwise else 0)


def norm(count: Count, name: str, size: int, rows: float, *, bias: bool = False) -> Part:
    """Root mean square (4 an element) or, with ``bias``, layer normalisation (7 an element)."""
    parts = [vectors(count, size, rows, each=6 if bias else 4)]
    if bias:
        parts.append(vectors(count, size, rows))
    return Part(name=name, own=add(parts))


def table(count: Count, name: str, kind: str, entries: int, width: int, rows: float) -> Part:
    """An embedding: ``rows`` of it are read, no product is made."""
    return Part(
        name=name,
        own=Cost(
            weight_bytes=_bytes(rows * width, _size(count, kind)),
            activation_bytes=_bytes(rows * width, count.weights.activations),
            parameters=entries * width,
            stored_bytes=_bytes(entries * width, _size(count, kind)),
        ),
    )


def convolution(
    count: Count,
    name: str,
    n_in: int,
    n_out: int,
    window: int,
    positions: float,
    *,
    bias: bool = True,
) -> Part:
    """positions x (n_in x window) x n_out multiply-adds; ``window`` is the kernel's area."""
    made = linear(count, name, "convolution", n_in * window, n_out, positions, bias=bias)
    return made


def products(
    count: Count,
    name: str,
    *,
    heads: int,
    pairs: float,
    key_size: int,
    value_size: int,
    rows: float,
    softcap: bool = False,
) -> Part:
    """Attention itself: heads x pairs x (key_size + value_size) multiply-adds.

    ``pairs`` are queries with keys, of all sequences together. Softmax is 5 operations a pair and
    the scale 1; a soft cap is 2 more.
    """
    return Part(
        name=name,
        own=add(
            [
                Cost(
                    flops=heads
                    * pairs
                    * (key_size + value_size)
                    * count.rules.flops_per_multiply_add,
                    activation_bytes=_bytes(
                        rows * heads * (key_size + value_size), count.weights.activations
                    ),
                ),
                work(count, heads * pairs, 8 if softcap else 6),
            ]
        ),
    )


def cached(count: Count, *, read: float, written: float, width: int) -> Cost:
    """Cache traffic of ``read`` and ``written`` tokens of all sequences, ``width`` numbers each."""
    return Cost(
        kv_read_bytes=_bytes(read * width, count.weights.cache),
        kv_write_bytes=_bytes(written * width, count.weights.cache),
    )


def visible(count: Count, *, window: int | None, causal: bool) -> tuple[float, int, int]:
    """Pairs of all sequences, cached tokens read a sequence, keys a sequence.

    Dense: tokens x (past that is kept + tokens). Causal: the sum over the new tokens i of
    min(past + i, window). A sliding window keeps window - 1 tokens of the past, beside the new one.
    """
    run = count.run
    kept = run.past if window is None else min(run.past, window - 1)
    keys = kept + run.tokens
    if not causal or count.rules.attention == "dense":
        pairs = run.tokens * keys
    else:
        pairs = seen(run.past, run.tokens, window)
    return run.batch * pairs, kept, keys


def seen(past: int, tokens: int, window: int | None) -> int:
    """The sum of min(past + i, window) for i from 1 to ``tokens``."""
    whole = tokens if window is None else max(0, min(tokens, window - past))
    grown = whole * past + whole * (whole + 1) // 2
    return grown + (tokens - whole) * (window or 0)


def _size(count: Count, kind: str) -> float | None:
    return count.weights.kinds.get(kind, count.weights.usual)


def _bytes(numbers: float, size: float | None) -> float | None:
    return 0 if numbers == 0 else None if size is None else numbers * size
