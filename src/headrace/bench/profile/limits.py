"""The peaks that a run is held against: a GPU's by its datasheet, a processor's as measured here."""

from __future__ import annotations

import platform
from pathlib import Path

from attrs import frozen

from headrace.bench.profile import needs
from headrace.bench.profile.measure import Measured, measure
from headrace.contracts.errors import LLMError
from headrace.contracts.profile_report import Peak
from headrace.numbers.peaks import Peaks, Unknown, find_peaks, why_no_roof
from headrace.numbers.peaks import roof as roof_of
from headrace.numbers.roofline import Roof

_RUNS = 25


@frozen(kw_only=True)
class Limits:
    """What the device can do in the dtype that ran; ``reason`` is why a figure is missing."""

    device_name: str | None
    roof: Roof
    peaks: tuple[Peak, ...] = ()
    reason: str | None = None


def device_name(device: str) -> str | None:
    """The device's name by its driver, or the processor's by the system."""
    if device.startswith("cuda"):
        return str(needs.torch().cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def limits_of(device: str, dtype: str) -> Limits:
    """Measured for a processor; for a GPU the datasheet's, beside which the measured are shown."""
    name = device_name(device)
    on_cpu = device == "cpu"
    measured: tuple[Measured, ...] = ()
    why: str | None = None
    try:
        measured = measure(
            device=device,
            dtypes=(dtype,),
            threads=[needs.torch().get_num_threads()] if on_cpu else None,
            size=1024 if on_cpu else 8192,
            buffer_mb=256 if on_cpu else 1024,
            # A limit is the best that was seen, and other programs hide it for a while.
            runs=_RUNS,
        )
    except (LLMError, RuntimeError) as failed:
        # A figure that is missing is told; it must not cost the times that were taken.
        why = f"the device's limits could not be measured: {failed}"
    here = _measured(measured, dtype)
    if on_cpu:
        roof = (
            Roof()
            if here is None
            else Roof(flops_per_s=here.flops_per_s, bytes_per_s=here.bytes_per_s)
        )
        return Limits(
            device_name=name, roof=roof, peaks=() if here is None else (here,), reason=why
        )
    sheet = find_peaks(name or "")
    peaks = tuple(peak for peak in (_datasheet(sheet, dtype), here) if peak is not None)
    return Limits(
        device_name=name,
        roof=roof_of(sheet, dtype),
        peaks=peaks,
        reason="; ".join(each for each in (why_no_roof(sheet, dtype), why) if each) or None,
    )


def _measured(measured: tuple[Measured, ...], dtype: str) -> Peak | None:
    if not measured:
        return None
    rates = {each.quantity: each for each in measured}
    shares = [each.cpu_share for each in measured if each.cpu_share is not None]
    spreads = [each.spread for each in measured if each.spread is not None]
    threads = measured[0].threads
    with_threads = "" if threads is None else f" with {threads} threads"
    return Peak(
        source="measured",
        dtype=dtype,
        flops_per_s=rates["flops_per_s"].best,
        bytes_per_s=rates["bytes_per_s"].best,
        spread=max(spreads, default=None),
        cpu_share=min(shares, default=None),
        text=f"the best of {measured[0].runs} matrix products and of as many copies, by "
        f"{measured[0].method}{with_threads}",
    )


def _datasheet(sheet: Peaks | Unknown, dtype: str) -> Peak | None:
    if isinstance(sheet, Unknown):
        return None
    note = f" ({sheet.note})" if sheet.note else ""
    return Peak(
        source="datasheet",
        dtype=dtype,
        flops_per_s=sheet.flops_per_s.get(dtype),
        bytes_per_s=sheet.bytes_per_s,
        text=f"{sheet.device}{note}: {sheet.source}, looked up {sheet.checked}",
    )
