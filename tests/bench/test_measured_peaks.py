"""Limits measured here: what is told of them, and what cannot be measured."""

from __future__ import annotations

import pytest

from headrace.bench.profile.measure import Measured, measure, peaks_of, usable_cpus
from headrace.contracts.errors import LLMCapabilityError
from headrace.numbers.peaks import roof


def test_a_processor_is_measured_with_how_far_to_trust_it() -> None:
    products, copies = measure(size=128, buffer_mb=8, runs=3)
    assert (products.quantity, copies.quantity) == ("flops_per_s", "bytes_per_s")
    for each in (products, copies):
        assert 0 < each.mean <= each.best
        assert each.spread is not None
        assert each.spread >= 0
        assert each.cpu_share is not None
        assert each.cpu_share > 0
        assert (each.runs, each.threads) == (3, usable_cpus())


def test_the_best_of_each_dtype_is_the_limit() -> None:
    def made(quantity: str, dtype: str, threads: int, best: float) -> Measured:
        return Measured(
            quantity=quantity,  # type: ignore[arg-type]
            dtype=dtype,
            threads=threads,
            best=best,
            mean=best / 2,
            spread=0.25,
            runs=3,
            cpu_share=0.5,
            method="torch",
        )

    peaks = peaks_of(
        "a processor",
        [
            made("flops_per_s", "fp32", 1, 10.0),
            made("flops_per_s", "fp32", 2, 30.0),
            made("flops_per_s", "bf16", 2, 70.0),
            made("bytes_per_s", "fp32", 1, 4.0),
            made("bytes_per_s", "fp32", 2, 3.0),
        ],
    )
    assert peaks.flops_per_s == {"fp32": 30.0, "bf16": 70.0}
    assert peaks.bytes_per_s == 4.0
    assert (peaks.kind, peaks.source) == ("measured", "measured here by torch")
    assert peaks.note == "spread up to 25.0%, 50% of the processor at worst"
    assert roof(peaks, "bf16").flops_per_s == 70.0


def test_a_dtype_that_is_not_measured_is_refused() -> None:
    with pytest.raises(LLMCapabilityError, match="dtype 'int3' is not measured; known: fp32"):
        measure(dtypes=["int3"])
    with pytest.raises(ValueError, match="size is 1"):
        measure(size=1)


def test_what_needs_torch_says_so_where_it_is_not_installed() -> None:
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(
            LLMCapabilityError, match=r"needs torch: pip install 'headrace\[torch\]'"
        ):
            measure(dtypes=["bf16"])
    else:
        products, _ = measure(dtypes=["bf16"], size=64, buffer_mb=1, runs=2)
        assert products.dtype == "bf16"


def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(LLMCapabilityError, match="cuda:7"):
        measure(device="cuda:7")
