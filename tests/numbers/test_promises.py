"""Service level objectives: written, judged, counted."""

from __future__ import annotations

import random

import pytest

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Promise
from headrace.numbers.promises import judge, met, parse, wilson


@pytest.mark.parametrize(
    ("text", "metric", "p", "below"),
    [
        ("ttft:p99<500ms", "ttft", 0.99, 500.0),
        ("tpot:p99<30ms", "tpot", 0.99, 30.0),
        ("latency : p95 < 1s", "latency", 0.95, 1000.0),
        ("itl:p99.9<50ms", "itl", 0.999, 50.0),
        ("TTFT:p50<1.5s", "ttft", 0.5, 1500.0),
        ("errors<0.1%", "errors", None, 0.001),
        ("errors<0.02", "errors", None, 0.02),
    ],
)
def test_a_promise_is_read(text: str, metric: str, p: float | None, below: float) -> None:
    promise = parse(text)
    assert (promise.metric, promise.p) == (metric, pytest.approx(p) if p else None)
    assert promise.below == pytest.approx(below)
    assert promise.text == text


@pytest.mark.parametrize(
    "text", ["", "ttft", "ttft:p99", "ttft:p99<500", "ttft:99<5ms", "speed:p9<1s", "ttft:p0<1s",
             "errors<0", "errors<101%", "ttft:p99<0ms", "ttft:p99>5ms"],
)  # fmt: skip
def test_what_is_no_promise_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match="promise") as wrong:
        parse(text)
    assert wrong.value.param == "slo"
    assert repr(text) in str(wrong.value)


def test_a_promise_is_kept_where_even_the_upper_bound_is_below_the_limit() -> None:
    good = [10.0] * 400
    assert judge(parse("ttft:p99<500ms"), good, failed=0, total=400).kept is True


def test_a_promise_is_broken_where_even_the_lower_bound_is_not() -> None:
    bad = [10.0] * 350 + [900.0] * 50
    result = judge(parse("ttft:p99<500ms"), bad, failed=0, total=400)
    assert (result.kept, result.value) == (False, 900.0)


def test_a_sample_that_is_too_small_decides_nothing() -> None:
    result = judge(parse("ttft:p99<500ms"), [10.0] * 298, failed=0, total=298)
    assert result.kept is None
    assert "298" in result.text
    assert judge(parse("ttft:p99<500ms"), [10.0] * 299, failed=0, total=299).kept is True


def test_a_failed_request_has_missed_every_latency_promise() -> None:
    result = judge(parse("ttft:p50<500ms"), [10.0] * 100, failed=200, total=300)
    assert (result.kept, result.value) == (False, None)


def test_nothing_measured_decides_nothing() -> None:
    for text in ("ttft:p50<1s", "errors<1%"):
        assert judge(parse(text), [], failed=0, total=0).kept is None


def test_a_share_of_errors_needs_enough_requests_too() -> None:
    promise = parse("errors<0.1%")
    assert judge(promise, [], failed=0, total=100).kept is None
    assert judge(promise, [], failed=0, total=5000).kept is True
    assert judge(promise, [], failed=50, total=5000).kept is False


def test_wilsons_interval_is_that_of_the_books() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    assert wilson(81, 263, 1.959963984540054) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148, 1.959963984540054) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20, 1.959963984540054) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29, 1.959963984540054) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_a_request_meets_the_promises_below_all_limits() -> None:
    promises = (parse("ttft:p99<500ms"), parse("tpot:p99<30ms"), parse("errors<1%"))

    def is_met(**seen: float | None) -> bool:
        found = {"ttft_ms": 1.0, "tpot_ms": 1.0, "latency_ms": 1.0, "worst_gap_ms": 1.0, **seen}
        return met(promises, failed=False, **found)

    assert is_met()
    assert is_met(tpot_ms=None)
    assert is_met(latency_ms=1e9)
    assert not is_met(ttft_ms=500.0)
    assert not is_met(tpot_ms=30.0)
    assert not met(promises, ttft_ms=1, tpot_ms=1, latency_ms=1, worst_gap_ms=1, failed=True)


def test_a_true_promise_is_seldom_called_broken_and_a_false_one_seldom_kept() -> None:
    chance = random.Random(5)
    edge = Promise(metric="ttft", p=0.9, below=1.0, text="")  # p90 of U(0, 1/0.9) is just 1
    kept = broken = 0
    for _ in range(600):
        values = [chance.uniform(0, 1 / 0.9) for _ in range(120)]
        result = judge(edge, values, failed=0, total=120)
        kept += result.kept is True
        broken += result.kept is False
    # Each wrong with a probability of at most 5%, and three standard errors.
    assert kept <= 600 * 0.05 + 3 * (600 * 0.05 * 0.95) ** 0.5
    assert broken <= 600 * 0.05 + 3 * (600 * 0.05 * 0.95) ** 0.5
