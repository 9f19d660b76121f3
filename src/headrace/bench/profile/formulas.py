"""FLOP formulas for what torch's FlopCounterMode does not count, to hand to its ``custom_mapping``.

Without them attention on a CPU and the experts of a mixture count as nothing (Mixtral then reads an
eighth of the truth).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def formulas() -> dict[Any, Callable[..., int]]:
    """Operator to FLOPs of a call with its shapes; one multiply-add is two."""
    import torch

    aten = torch.ops.aten
    found: dict[Any, Callable[..., int]] = {}
    # Which of these exist depends on torch's version.
    for name, formula in (
        ("_scaled_dot_product_flash_attention_for_cpu", _attention),
        ("_scaled_dot_product_fused_attention_overrideable", _attention),
        ("_grouped_mm", _grouped),
        ("_scaled_grouped_mm", _grouped),
    ):
        if hasattr(aten, name):
            found[getattr(aten, name)] = formula
    return found


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """batch x heads x queries x keys x (key size + value size), dense as torch's own formulas."""
    batch, heads, queries, size = query
    return 2 * batch * heads * queries * key[-2] * (size + value[-1])


def _grouped(a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    """Rows in groups times a matrix each: rows x inner x columns, whatever the groups' sizes."""
    if len(a) == 2 and len(b) == 2:
        # Groups along the inner length: every group has a product of its own share.
        return 2 * a[0] * a[1] * b[1]
    if len(a) == 3 and len(b) == 3:
        return 2 * a[0] * a[1] * a[2] * b[2]
    rows = a if len(a) == 2 else (a[1], a[2])
    return 2 * rows[0] * rows[1] * b[-1]
