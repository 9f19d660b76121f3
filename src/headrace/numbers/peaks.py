"""What devices can do, from their makers' datasheets: dense arithmetic by dtype, and memory.

Datasheets print figures with structured sparsity, which no ordinary matrix product reaches; here are
the dense ones (half of those, where the sheet prints no other). Tensor cores are taken with 32-bit
accumulation, as PyTorch runs them: on GeForce cards that is half of what is advertised.

A device is matched on the whole name that its driver gives, so that a laptop's chip or a slice of a
card is not taken for the card. One that is not here has no peak, and so no MFU: a default would be
wrong by whatever the device differs from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import frozen

from headrace.numbers.roofline import Roof

Dtype: TypeAlias = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]

CHECKED = "2026-11-28"
"""The day on which the rows were last gone through; docs/flops.md says against what."""

_T, _G = 1e12, 1e9
_H100 = "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper"
_H100_SHEET = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_H200 = "https://resources.nvidia.com/en-us-data-center-overview-mc/en-us-data-center-overview/hpc-datasheet-sc23-h200"
_BLACKWELL = "https://resources.nvidia.com/en-us-blackwell-architecture"
_A100 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
_L4 = "https://resources.nvidia.com/en-us-data-center-overview/l4-gpu-datasheet"
_L40S = "https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413"
_A10 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/a10-datasheet.pdf"
_T4 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf"
_AMPERE = (
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
)
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_RTX_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
_MI250X = "https://www.amd.com/en/products/accelerators/instinct/mi200/mi250x.html"
_MI300X = "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html"
_MI325X = "https://www.amd.com/en/products/accelerators/instinct/mi300/mi325x.html"
_APPLE = "https://www.apple.com/newsroom/"


@frozen(kw_only=True)
class Peaks:
    """A device's limits. ``flops_per_s`` by dtype (int8 counts operations), dense figures only.

    A dtype that the device has no units for, or whose figure nobody published, is not in it.
    ``source`` is the document that publishes them, ``checked`` the day on which the row was gone
    through or measured, ``kind`` whether it is a datasheet's or was measured here; ``note`` is what one has to know of them.
    """

    device: str
    flops_per_s: Mapping[str, float]
    bytes_per_s: float | None
    source: str
    checked: str
    kind: Literal["datasheet", "measured"] = "datasheet"
    note: str = ""


@frozen(kw_only=True)
class Unknown:
    """No peaks, and why."""

    device: str
    reason: str


def find_peaks(device: str) -> Peaks | Unknown:
    """The datasheet's peaks of the device whose driver calls it ``device``."""
    name = " ".join(device.split())
    if re.search(r"\bMIG\b", name, re.IGNORECASE):
        return Unknown(
            device=device,
            reason=f"{device!r} is a slice of a card, and the datasheet tells of the whole one",
        )
    for pattern, peaks in _ROWS:
        if pattern.fullmatch(name):
            return peaks
    return Unknown(
        device=device,
        reason=f"no datasheet of {device!r} is known here; known: {', '.join(known_devices())}",
    )


def known_devices() -> list[str]:
    """The names of the devices in the table."""
    return [peaks.device for _, peaks in _ROWS]


def roof(peaks: Peaks | Unknown, dtype: str) -> Roof:
    """The limits for ``dtype``; empty where they are not known."""
    if isinstance(peaks, Unknown):
        return Roof()
    return Roof(flops_per_s=peaks.flops_per_s.get(dtype), bytes_per_s=peaks.bytes_per_s)


def why_no_roof(peaks: Peaks | Unknown, dtype: str) -> str | None:
    """Why ``roof`` has no arithmetic; None where it has."""
    if isinstance(peaks, Unknown):
        return peaks.reason
    if dtype in peaks.flops_per_s:
        return None
    listed = ", ".join(peaks.flops_per_s) or "none"
    return f"no {dtype} figure of {peaks.device} is published; published: {listed}"


def _row(
    pattern: str,
    device: str,
    source: str,
    gb_per_s: float,
    *,
    note: str = "",
    **tera: float,
) -> tuple[re.Pattern[str], Peaks]:
    peaks = Peaks(
        device=device,
        flops_per_s={dtype: value * _T for dtype, value in tera.items()},
        bytes_per_s=gb_per_s * _G,
        source=source,
        checked=CHECKED,
        note=note,
    )
    return re.compile(pattern, re.IGNORECASE), peaks


def _apple(
    name: str, gb_per_s: float, fp32: float | None, note: str = ""
) -> tuple[re.Pattern[str], Peaks]:
    tera = {} if fp32 is None else {"fp32": fp32}
    missing = "" if fp32 is not None else "Apple published no FLOPS of it"
    words = "; ".join(text for text in (note, missing) if text)
    return _row(f"Apple {name}", f"Apple {name}", _APPLE, gb_per_s, note=words, **tera)


_HALVED = "half of the sheet's figures, which are with sparsity"
_FULL = "the largest configuration; the name does not tell a smaller one apart"
_NVIDIA = r"(?:NVIDIA )?"

_ROWS = (
    _row(
        _NVIDIA + r"H100 (?:80GB HBM3|SXM5?(?: 80GB)?)",
        "NVIDIA H100 SXM",
        _H100,
        3350,
        fp32=66.9,
        tf32=494.7,
        bf16=989.4,
        fp16=989.4,
        fp8=1978.9,
        int8=1978.9,
    ),
    _row(
        _NVIDIA + r"H100 PCIe",
        "NVIDIA H100 PCIe",
        _H100,
        2039,
        fp32=51.2,
        tf32=378,
        bf16=756,
        fp16=756,
        fp8=1513,
        int8=1513,
    ),
    _row(
        _NVIDIA + r"H100 NVL",
        "NVIDIA H100 NVL",
        _H100_SHEET,
        3900,
        note=_HALVED,
        fp32=60,
        tf32=417.5,
        bf16=835.5,
        fp16=835.5,
        fp8=1670.5,
        int8=1670.5,
    ),
    _row(
        _NVIDIA + r"H200(?: SXM)?(?: 141GB HBM3e)?",
        "NVIDIA H200",
        _H200,
        4800,
        note=_HALVED,
        fp32=67,
        tf32=494.5,
        bf16=989.5,
        fp16=989.5,
        fp8=1979,
        int8=1979,
    ),
    _row(
        _NVIDIA + r"H200 NVL",
        "NVIDIA H200 NVL",
        _H200,
        4800,
        note=_HALVED,
        fp32=60,
        tf32=417.5,
        bf16=835.5,
        fp16=835.5,
        fp8=1670.5,
        int8=1670.5,
    ),
    _row(
        _NVIDIA + r"B200(?: SXM)?(?: 18\dGB| 192GB)?",
        "NVIDIA B200",
        _BLACKWELL,
        8000,
        note="HGX at 1000 W",
        fp32=80,
        tf32=1100,
        bf16=2250,
        fp16=2250,
        fp8=4500,
        int8=4500,
    ),
    _row(
        _NVIDIA + r"GB200(?: NVL72)?",
        "NVIDIA GB200",
        _BLACKWELL,
        8000,
        note="each of the superchip's two GPUs, at 1200 W",
        fp32=90,
        tf32=1250,
        bf16=2500,
        fp16=2500,
        fp8=5000,
        int8=5000,
    ),
    *(
        _row(
            _NVIDIA + pattern,
            device,
            _A100,
            bandwidth,
            fp32=19.5,
            tf32=156,
            bf16=312,
            fp16=312,
            int8=624,
        )
        for pattern, device, bandwidth in (
            (r"A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB", 1555),
            (r"A100-SXM(?:4)?-80GB", "NVIDIA A100-SXM4-80GB", 2039),
            (r"A100-PCIE-40GB", "NVIDIA A100-PCIE-40GB", 1555),
            (r"A100 80GB PCIe", "NVIDIA A100 80GB PCIe", 1935),
        )
    ),
    _row(
        _NVIDIA + r"L4",
        "NVIDIA L4",
        _L4,
        300,
        note=_HALVED,
        fp32=30.3,
        tf32=60,
        bf16=121,
        fp16=121,
        fp8=242.5,
        int8=242.5,
    ),
    _row(
        _NVIDIA + r"L40S",
        "NVIDIA L40S",
        _L40S,
        864,
        fp32=91.6,
        tf32=183,
        bf16=362.05,
        fp16=362.05,
        fp8=733,
        int8=733,
    ),
    _row(
        _NVIDIA + r"A10",
        "NVIDIA A10",
        _A10,
        600,
        fp32=31.2,
        tf32=62.5,
        bf16=125,
        fp16=125,
        int8=250,
    ),
    _row(r"(?:NVIDIA |Tesla |NVIDIA Tesla )T4", "NVIDIA T4", _T4, 320, fp32=8.1, fp16=65, int8=130),
    _row(
        _NVIDIA + r"GeForce RTX 3090",
        "NVIDIA GeForce RTX 3090",
        _AMPERE,
        936,
        fp32=35.6,
        tf32=35.6,
        bf16=71,
        fp16=71,
        int8=284,
    ),
    _row(
        _NVIDIA + r"GeForce RTX 4090",
        "NVIDIA GeForce RTX 4090",
        _ADA,
        1008,
        fp32=82.6,
        tf32=82.6,
        bf16=165.2,
        fp16=165.2,
        fp8=330.3,
        int8=660.6,
    ),
    _row(
        _NVIDIA + r"GeForce RTX 5090",
        "NVIDIA GeForce RTX 5090",
        _RTX_BLACKWELL,
        1792,
        fp32=104.8,
        tf32=104.8,
        bf16=209.5,
        fp16=209.5,
        fp8=419,
        int8=838,
    ),
    _row(
        r"(?:AMD )?(?:Instinct )?MI250X",
        "AMD Instinct MI250X",
        _MI250X,
        1638.4,
        note="one of its two dies, each of which is a device to the driver",
        fp32=47.85,
        bf16=191.5,
        fp16=191.5,
        int8=191.5,
    ),
    *(
        _row(
            rf"(?:AMD )?(?:Instinct )?{name}(?: OAM)?",
            f"AMD Instinct {name}",
            source,
            bandwidth,
            fp32=163.4,
            tf32=653.7,
            bf16=1307.4,
            fp16=1307.4,
            fp8=2614.9,
            int8=2614.9,
        )
        for name, source, bandwidth in (("MI300X", _MI300X, 5300), ("MI325X", _MI325X, 6000))
    ),
    _apple("M1", 68.25, 2.6, "with 8 GPU cores"),
    _apple("M1 Pro", 200, 5.2, _FULL),
    _apple("M1 Max", 400, 10.4, _FULL),
    _apple("M1 Ultra", 800, 21, _FULL),
    _apple("M2", 100, 3.6, _FULL),
    _apple("M2 Pro", 200, 6.8, _FULL),
    _apple("M2 Max", 400, 13.6, _FULL),
    _apple("M2 Ultra", 800, 27.2, _FULL),
    _apple("M3", 100, None),
    _apple("M3 Pro", 150, None),
    _apple("M3 Max", 400, None, _FULL),
    _apple("M3 Ultra", 819, None),
    _apple("M4", 120, None),
    _apple("M4 Pro", 273, None),
    _apple("M4 Max", 546, None, _FULL),
)
