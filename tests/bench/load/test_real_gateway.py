"""A load test of the real gateway with the model in the box: two who count the same say the same."""

from __future__ import annotations

import pytest

from headrace.bench.load.run import load
from headrace.contracts.load import Closed, Constant, LoadPlan, Scenarios

COUNTED = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:e2e_request_latency_seconds_sum",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
)


def told(gateway):
    """What the gateway has counted so far, over all its models."""
    sums = dict.fromkeys(COUNTED, 0.0)
    for sample in gateway.samples():
        if sample.name in sums:
            sums[sample.name] += sample.value
    return sums


@pytest.mark.real_model
@pytest.mark.parametrize(
    "arrivals", [Closed(concurrency=4), Constant(rate=3.0)], ids=["closed loop", "open loop"]
)
def test_the_figures_are_those_that_the_gateway_tells_of_itself(gateway, arrivals):
    before = told(gateway)
    report = load(
        LoadPlan(
            url=gateway.url,
            arrivals=arrivals,
            requests=24,
            workload=Scenarios(name="mixed"),
            drain_s=120.0,
        )
    )
    counted = {name: value - before[name] for name, value in told(gateway).items()}
    figures = report.figures
    assert (figures.counts.ok, figures.counts.failed) == (24, 0), report.errors
    assert {name for name, _ in report.scenarios.items()} == {"short", "medium", "long"}

    def mean_ms(name):
        assert counted[f"{name}_count"] == 24
        return counted[f"{name}_sum"] / 24 * 1000

    assert counted["vllm:prompt_tokens_total"] == sum(report.requests.input_tokens)
    assert counted["vllm:generation_tokens_total"] == sum(report.requests.output_tokens)
    # Between the two lies the way of the bytes, and a turn of each loop: that is not 2% of anything.
    assert figures.service.mean == pytest.approx(
        mean_ms("vllm:e2e_request_latency_seconds"), rel=0.02, abs=2.0
    )
    assert figures.service_ttft.mean == pytest.approx(
        mean_ms("vllm:time_to_first_token_seconds"), rel=0.02, abs=2.0
    )
