"""The roofline: least times, shares of the limit, and nothing where something is missing."""

from __future__ import annotations

import pytest

from headrace.numbers.peaks import Peaks, Unknown, find_peaks, known_devices, roof, why_no_roof
from headrace.numbers.roofline import (
    Roof,
    attainable,
    compute_time,
    floor,
    intensity,
    mbu,
    memory_time,
    mfu,
    ridge,
    share_of_limit,
)

ROOF = Roof(flops_per_s=1000.0, bytes_per_s=10.0)


def test_the_least_time_is_the_longer_of_arithmetic_and_traffic() -> None:
    assert floor(2000, 10, ROOF) is not None
    most, least = floor(2000, 10, ROOF), floor(500, 10, ROOF)
    assert most is not None
    assert (most.seconds, most.bound) == (2.0, "compute")
    assert least is not None
    assert (least.seconds, least.bound) == (1.0, "memory")


def test_shares_are_of_what_the_device_could_have_done() -> None:
    assert mfu(500, 2, ROOF) == 0.25
    assert mbu(5, 2, ROOF) == 0.25
    assert share_of_limit(500, 10, 4, ROOF) == 0.25
    assert intensity(500, 10) == 50
    assert ridge(ROOF) == 100
    assert attainable(50, ROOF) == 500
    assert attainable(5000, ROOF) == 1000


@pytest.mark.parametrize("missing", [Roof(), Roof(flops_per_s=1.0), Roof(bytes_per_s=1.0)])
def test_a_missing_peak_gives_no_figure(missing: Roof) -> None:
    assert floor(1, 1, missing) is None
    assert share_of_limit(1, 1, 1, missing) is None
    assert ridge(missing) is None
    assert attainable(1, missing) is None
    if missing.flops_per_s is None:
        assert compute_time(1, missing) is None
        assert mfu(1, 1, missing) is None
    if missing.bytes_per_s is None:
        assert memory_time(1, missing) is None
        assert mbu(1, 1, missing) is None


def test_a_missing_count_or_time_gives_no_figure() -> None:
    assert mfu(None, 1, ROOF) is None
    assert mfu(1, None, ROOF) is None
    assert mfu(1, 0, ROOF) is None
    assert intensity(1, 0) is None


@pytest.mark.parametrize(
    ("driver", "bf16", "gigabytes"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 3350),
        ("NVIDIA H100 PCIe", 756, 2039),
        ("NVIDIA H100 NVL", 835.5, 3900),
        ("NVIDIA H200", 989.5, 4800),
        ("NVIDIA B200", 2250, 8000),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA L4", 121, 300),
        ("NVIDIA L40S", 362.05, 864),
        ("NVIDIA A10", 125, 600),
        ("NVIDIA GeForce RTX 4090", 165.2, 1008),
        ("AMD Instinct MI300X", 1307.4, 5300),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_gives(
    driver: str, bf16: float, gigabytes: float
) -> None:
    peaks = find_peaks(driver)
    assert isinstance(peaks, Peaks)
    assert roof(peaks, "bf16").flops_per_s == pytest.approx(bf16 * 1e12)
    assert peaks.bytes_per_s == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize(
    "stranger",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A10G",
        "NVIDIA L40",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100X",
        "Intel(R) Xeon(R) Processor",
        "",
    ],
)
def test_a_device_that_only_resembles_one_has_no_peaks_and_says_why(stranger: str) -> None:
    found = find_peaks(stranger)
    assert isinstance(found, Unknown)
    assert repr(stranger) in found.reason
    assert roof(found, "bf16") == Roof()
    assert why_no_roof(found, "bf16") == found.reason


def test_a_dtype_that_a_device_has_no_figure_for_has_no_roof_but_memory() -> None:
    peaks = find_peaks("Tesla T4")
    assert isinstance(peaks, Peaks)
    assert roof(peaks, "bf16") == Roof(bytes_per_s=320e9)
    assert why_no_roof(peaks, "bf16") == (
        "no bf16 figure of NVIDIA T4 is published; published: fp32, fp16, int8"
    )
    assert why_no_roof(peaks, "fp16") is None


@pytest.mark.parametrize("device", known_devices())
def test_every_row_names_its_source_and_holds_dense_figures(device: str) -> None:
    peaks = find_peaks(device)
    assert isinstance(peaks, Peaks)
    assert peaks.device == device
    assert peaks.source.startswith("https://")
    assert len(peaks.checked) == len("2026-11-28")
    figures = peaks.flops_per_s
    # In all of them 8 bits are twice as fast as 16, and 16 than TF32: with sparsity in one figure and
    # not in the other, that would be off by two.
    if "bf16" in figures and "fp8" in figures:
        assert figures["fp8"] == pytest.approx(2 * figures["bf16"], rel=0.02)
    if "bf16" in figures:
        assert figures["fp16"] == figures["bf16"]
        if "tf32" in figures:  # (but for cards on which TF32 is FP32)
            assert 1.9 < figures["bf16"] / figures["tf32"] < 2.1
