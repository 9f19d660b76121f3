"""A device's limits, measured here: matrix products a second by dtype, and memory bandwidth.

Where no datasheet says what a processor can do, this does. numpy measures the processor in FP32;
torch (``headrace[torch]``) measures whatever it runs on, in the dtypes that the device has. A limit
is the best of several runs, since a run can only be slowed by what else the machine does; the spread
of all, and the share of the processor that we got, tell how far to trust it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any, Literal

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError
from headrace.numbers.peaks import Peaks
from headrace.numbers.stats import mean, sample_std

Quantity = Literal["flops_per_s", "bytes_per_s"]

_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# Large enough that a run takes milliseconds and data comes from memory, not from a cache.
_LEAST_SIZE = 64
_BATCH_S = 0.02


@frozen(kw_only=True)
class Measured:
    """One limit. ``best`` is the limit; ``spread`` is the standard deviation over the mean.

    ``cpu_share`` is CPU time of this process over threads x wall time: what is missing of 1 was the
    machine's, or the method's waiting. None on a GPU, which no such clock counts.
    """

    quantity: Quantity
    dtype: str
    threads: int | None
    best: float
    mean: float
    spread: float | None
    runs: int
    cpu_share: float | None
    method: str


def measure(
    *,
    device: str = "cpu",
    dtypes: Sequence[str] = ("fp32",),
    threads: Sequence[int] | None = None,
    size: int = 1024,
    buffer_mb: int = 256,
    runs: int = 7,
) -> tuple[Measured, ...]:
    """Products of ``size`` squared matrices in each dtype, and a copy of ``buffer_mb`` megabytes.

    A product counts 2 x size^3 FLOPs, a copy the bytes that it reads and those that it writes.

    On a CPU each is done with each number of ``threads`` (else with all that this process may use).
    Raises LLMCapabilityError for what is not installed, or a dtype that is not measured here.
    """
    if size < _LEAST_SIZE or buffer_mb < 1 or runs < 1:
        raise ValueError(
            f"size is {size}, buffer_mb {buffer_mb}, runs {runs}; at least {_LEAST_SIZE}, 1 and 1"
        )
    strange = [dtype for dtype in dtypes if dtype not in _TORCH]
    if strange:
        raise LLMCapabilityError(
            f"dtype {strange[0]!r} is not measured; known: {', '.join(_TORCH)}"
        )
    kit = _kit(device, dtypes)
    counts: Sequence[int | None] = [None]
    if device == "cpu":
        counts = threads or [usable_cpus()]
    found = []
    for count in counts:
        with kit.with_threads(count):
            for dtype in dtypes:
                work, flops = kit.product(dtype, size)
                found.append(_run(kit, "flops_per_s", dtype, count, work, flops, runs))
            work, moved = kit.copy(buffer_mb * 1_000_000)
            found.append(_run(kit, "bytes_per_s", "fp32", count, work, moved, runs))
    return tuple(found)


def peaks_of(device_name: str, measured: Sequence[Measured]) -> Peaks:
    """The limits as peaks: the best of each dtype, over all numbers of threads."""
    flops: dict[str, float] = {}
    moved: float | None = None
    for each in measured:
        if each.quantity == "bytes_per_s":
            moved = max(moved or 0.0, each.best)
        else:
            flops[each.dtype] = max(flops.get(each.dtype, 0.0), each.best)
    worst = max((each.spread or 0.0 for each in measured), default=0.0)
    shares = [each.cpu_share for each in measured if each.cpu_share is not None]
    words = f"spread up to {worst:.1%}"
    if shares:
        words += f", {min(shares):.0%} of the processor at worst"
    return Peaks(
        device=device_name,
        flops_per_s=flops,
        bytes_per_s=moved,
        source=f"measured here by {measured[0].method}" if measured else "nothing was measured",
        checked=datetime.now(timezone.utc).date().isoformat(),
        kind="measured",
        note=words,
    )


def usable_cpus() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Numpy:
    """Products in FP32 by the BLAS that numpy has; threads by threadpoolctl, where it is there."""

    name = "numpy"
    on_cpu = True

    def product(self, _dtype: str, size: int) -> tuple[Callable[[], object], float]:
        import numpy

        a = numpy.ones((size, size), numpy.float32)
        out = numpy.empty_like(a)
        return lambda: numpy.matmul(a, a, out=out), 2.0 * size**3

    def copy(self, size: int) -> tuple[Callable[[], object], float]:
        import numpy

        source = numpy.ones(size // 4, numpy.float32)
        out = numpy.zeros_like(source)
        return lambda: numpy.copyto(out, source), 2.0 * source.nbytes

    def finish(self) -> None:
        """Products are done when they return."""

    def with_threads(self, count: int | None) -> AbstractContextManager[object]:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            if count in (None, usable_cpus()):
                return nullcontext()
            raise LLMCapabilityError(
                f"numpy with {count} threads needs threadpoolctl; install it, or headrace[torch]"
            ) from None
        limits: AbstractContextManager[object] = threadpool_limits(limits=count)
        return limits


class _Torch:
    """Products in any of torch's dtypes on any of its devices."""

    name = "torch"

    def __init__(self, torch: Any, device: str) -> None:
        self._torch = torch
        self._device = device
        self.on_cpu = device == "cpu"

    def product(self, dtype: str, size: int) -> tuple[Callable[[], object], float]:
        torch = self._torch
        kind = getattr(torch, _TORCH[dtype])
        # Not ones: a GPU needs less power for those, and clocks higher than it does in real work.
        a = torch.randn((size, size), device=self._device).to(kind)
        out = torch.empty_like(a)
        return lambda: torch.mm(a, a, out=out), 2.0 * size**3

    def copy(self, size: int) -> tuple[Callable[[], object], float]:
        torch = self._torch
        source = torch.ones(size // 4, dtype=torch.float32, device=self._device)
        out = torch.zeros_like(source)
        return lambda: out.copy_(source), 2.0 * source.numel() * 4

    def finish(self) -> None:
        if not self.on_cpu:
            self._torch.cuda.synchronize(self._device)

    def with_threads(self, count: int | None) -> AbstractContextManager[object]:
        return nullcontext() if count is None else _torch_threads(self._torch, count)


@contextmanager
def _torch_threads(torch: Any, count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kit(device: str, dtypes: Sequence[str]) -> _Numpy | _Torch:
    try:
        import torch
    except ImportError:
        if device == "cpu" and set(dtypes) <= {"fp32"}:
            return _Numpy()
        raise LLMCapabilityError(
            f"measuring {', '.join(dtypes)} on {device} needs torch: pip install 'headrace[torch]'"
        ) from None
    if device != "cpu" and not torch.cuda.is_available():
        raise LLMCapabilityError(f"device {device!r} is not there: torch finds no CUDA; use cpu")
    return _Torch(torch, device)


def _run(
    kit: _Numpy | _Torch,
    quantity: Quantity,
    dtype: str,
    threads: int | None,
    work: Callable[[], object],
    amount: float,
    runs: int,
) -> Measured:
    """Time ``runs`` batches of ``work``, each so long that the clock's steps do not show."""
    work()
    kit.finish()
    began = time.perf_counter()
    work()
    kit.finish()
    batch = max(1, round(_BATCH_S / max(time.perf_counter() - began, 1e-7)))
    rates = []
    busy = time.process_time()
    whole = time.perf_counter()
    for _ in range(runs):
        began = time.perf_counter()
        for _ in range(batch):
            work()
        kit.finish()
        rates.append(amount * batch / (time.perf_counter() - began))
    wall = time.perf_counter() - whole
    share = (time.process_time() - busy) / (wall * (threads or 1)) if kit.on_cpu else None
    middle, std = mean(rates), sample_std(rates)
    assert middle is not None
    return Measured(
        quantity=quantity,
        dtype=dtype,
        threads=threads,
        best=max(rates),
        mean=middle,
        spread=None if std is None else std / middle,
        runs=runs,
        cpu_share=share,
        method=kit.name,
    )
