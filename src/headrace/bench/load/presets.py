"""Promises by name: those of MLPerf's serving scenarios, and of an ordinary chat service."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Promise
from headrace.numbers.promises import parse


def _limits(ttft_ms: int, tpot_ms: int) -> tuple[str, ...]:
    return (f"ttft:p99<{ttft_ms}ms", f"tpot:p99<{tpot_ms}ms")


# MLPerf Inference v5.1 and v6.0, server and interactive scenarios: latency limits at p99 of TTFT and
# TPOT, arrivals Poisson (https://github.com/mlcommons/inference_policies, "Scenarios").
PRESETS: Mapping[str, tuple[str, ...]] = {
    "serving": ("latency:p50<500ms", "latency:p95<1000ms", "latency:p99<1500ms", "errors<0.1%"),
    "mlperf-llama3.1-8b-server": _limits(2000, 100),
    "mlperf-llama3.1-8b-interactive": _limits(500, 30),
    "mlperf-llama2-70b-server": _limits(2000, 200),
    "mlperf-llama2-70b-interactive": _limits(450, 40),
    "mlperf-llama3.1-405b-server": _limits(6000, 175),
    "mlperf-llama3.1-405b-interactive": _limits(4500, 80),
    "mlperf-deepseek-r1-server": _limits(2000, 80),
    "mlperf-deepseek-r1-interactive": _limits(1500, 15),
    "mlperf-gpt-oss-120b-server": _limits(3000, 80),
    "mlperf-gpt-oss-120b-interactive": _limits(2000, 20),
}


def preset(name: str) -> tuple[Promise, ...]:
    """The promises of preset ``name``; LLMInvalidRequestError lists the known ones."""
    texts = PRESETS.get(name)
    if texts is None:
        raise LLMInvalidRequestError(
            f"unknown preset {name!r}; known: {', '.join(PRESETS)}", param="preset"
        )
    return tuple(parse(text) for text in texts)
