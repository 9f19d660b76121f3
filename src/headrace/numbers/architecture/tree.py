"""What a pass costs, as a tree of the model's parts: each has its own cost and those below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen


@frozen(kw_only=True)
class Cost:
    """Work and traffic of a part in one pass; ``None`` is unknown, and makes its sum unknown.

    ``flops``: floating point operations, by the conventions. ``weight_bytes``: weights that must be
    read. ``kv_read_bytes`` and ``kv_write_bytes``: the cache of keys and values. ``activation_bytes``:
    each product's input and output, once; attention's scores are not among them, since fused kernels
    keep them on the chip, and what a fused kernel keeps besides is counted all the same.
    ``parameters``: all of the part, read in this pass or not; ``stored_bytes`` is their size.
    """

    flops: float = 0
    weight_bytes: float | None = 0
    kv_read_bytes: float | None = 0
    kv_write_bytes: float | None = 0
    activation_bytes: float | None = 0
    parameters: int = 0
    stored_bytes: float | None = 0


NOTHING = Cost()


@frozen(kw_only=True)
class Part:
    """A module of the model. ``own`` is the cost of one of it without ``parts``; there are ``times``."""

    name: str
    own: Cost = NOTHING
    parts: tuple[Part, ...] = ()
    times: int = 1


def total(part: Part) -> Cost:
    """The cost of ``part`` with all that is below it, all ``times`` of it together."""
    inner = add([part.own, *(total(each) for each in part.parts)])
    return scaled(inner, part.times)


def add(costs: Iterable[Cost]) -> Cost:
    """The sum of ``costs``."""
    flops: float = 0
    parameters = 0
    sums: list[float | None] = [0, 0, 0, 0, 0]
    for cost in costs:
        flops += cost.flops
        parameters += cost.parameters
        for i, value in enumerate(
            (
                cost.weight_bytes,
                cost.kv_read_bytes,
                cost.kv_write_bytes,
                cost.activation_bytes,
                cost.stored_bytes,
            )
        ):
            before = sums[i]
            sums[i] = None if before is None or value is None else before + value
    return Cost(
        flops=flops,
        parameters=parameters,
        weight_bytes=_whole(sums[0]),
        kv_read_bytes=_whole(sums[1]),
        kv_write_bytes=_whole(sums[2]),
        activation_bytes=_whole(sums[3]),
        stored_bytes=_whole(sums[4]),
    )


def scaled(cost: Cost, times: int) -> Cost:
    """``cost`` so many times."""

    def by(value: float | None) -> float | None:
        return None if value is None else value * times

    if times == 1:
        return cost
    return Cost(
        flops=cost.flops * times,
        parameters=cost.parameters * times,
        weight_bytes=by(cost.weight_bytes),
        kv_read_bytes=by(cost.kv_read_bytes),
        kv_write_bytes=by(cost.kv_write_bytes),
        activation_bytes=by(cost.activation_bytes),
        stored_bytes=by(cost.stored_bytes),
    )


def memory_bytes(cost: Cost) -> float | None:
    """Bytes that must cross the memory bus at least: weights + cache read + cache written.

    Activations are left out: a kernel may keep them on the chip.
    """
    if cost.weight_bytes is None or cost.kv_read_bytes is None or cost.kv_write_bytes is None:
        return None
    return cost.weight_bytes + cost.kv_read_bytes + cost.kv_write_bytes


def walk(part: Part, depth: int = 0) -> Iterator[tuple[int, Part]]:
    """``part`` and all below it, from the top, each with its depth."""
    yield depth, part
    for each in part.parts:
        yield from walk(each, depth + 1)


def _whole(value: float | None) -> float | None:
    return int(value) if value is not None and value == int(value) else value
