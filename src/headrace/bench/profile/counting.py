"""FLOPs and bytes of every operator of a pass, counted while it runs; its time then means nothing.

FLOPs by torch's formulas and ours (``formulas``), so their sum is FlopCounterMode's. Bytes are what
an operator must read and write once: its tensors, but for views, and for lookups only the rows that
are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define

from headrace.bench.profile import needs
from headrace.bench.profile.formulas import formulas

_LOOKUPS = frozenset({"embedding", "index", "index_select", "gather", "take"})
_EMPTY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})


@define
class Counted:
    """An operator in a stage: how often, and what all calls needed; ``known`` says it has a formula."""

    calls: int = 0
    flops: int = 0
    bytes: int = 0
    known: bool = False


def counter(stage: Callable[[], str]) -> Any:
    """A context in which every operator is counted under ``stage()``; see its ``found``."""
    torch = needs.torch()
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Counter(TorchDispatchMode):  # type: ignore[misc]
        """By stage and operator."""

        def __init__(self) -> None:
            super().__init__()
            self.found: dict[tuple[str, str], Counted] = {}
            # Its table has torch's formulas and ours, each made to take tensors.
            self._formulas = FlopCounterMode(display=False, custom_mapping=formulas()).flop_registry

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            packet = func._overloadpacket
            if packet not in self._formulas:
                with self:
                    made = func.decompose(*args, **kwargs)
                if made is not NotImplemented:
                    return made
            out = func(*args, **kwargs)
            name = f"{func.namespace}::{packet.__name__}"
            entry = self.found.setdefault((stage(), name), Counted())
            entry.calls += 1
            formula = self._formulas.get(packet)
            if formula is not None:
                entry.known = True
                entry.flops += int(formula(*args, **kwargs, out_val=out))
            entry.bytes += _moved(torch, packet.__name__, args, kwargs, out)
            return out

    return Counter()


def _moved(torch: Any, name: str, args: Any, kwargs: Any, out: Any) -> int:
    from torch.utils._pytree import tree_leaves

    tensor = torch.Tensor
    into = [each for each in tree_leaves((args, kwargs)) if isinstance(each, tensor)]
    made = [each for each in tree_leaves(out) if isinstance(each, tensor)]
    if name in _EMPTY:
        return 0
    places = {each.untyped_storage().data_ptr() for each in into}
    written = sum(_bytes(each) for each in made)
    in_place = name.endswith("_") and not name.endswith("__")
    if made and not in_place and all(each.untyped_storage().data_ptr() in places for each in made):
        return 0  # a view
    if name in _LOOKUPS:
        return 2 * written + sum(_bytes(each) for each in into[1:])
    if name in {"copy_", "fill_", "zero_"}:
        return written + sum(_bytes(each) for each in into[1:])
    return written + sum(_bytes(each) for each in into)


def _bytes(tensor: Any) -> int:
    """What of it lies in memory: an expanded tensor is no larger than its storage."""
    return int(min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()))
