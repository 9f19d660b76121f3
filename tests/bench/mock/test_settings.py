"""How settings are written, and what is said of wrong ones."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.mock.amounts import (
    draw,
    draw_count,
    read_counts,
    read_duration,
    read_durations,
)
from headrace.bench.mock.plan import gap_s, make_plan, read_rules
from headrace.bench.mock.settings import (
    Fault,
    MockSettings,
    SlowStart,
    override,
    read_fault,
    read_settings,
)
from headrace.contracts.errors import LLMInvalidRequestError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("1.5s", 1.5), ("250us", 0.00025), ("2m", 120), ("0", 0), (" 5 ms ", 0.005)],
)
def test_a_duration_has_a_unit(text, seconds):
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["50", "ms", "-5ms", "5 minutes", "", "1e3s"])
def test_what_is_no_duration_is_refused_with_one_that_is(text):
    with pytest.raises(ValueError, match="such as 50ms"):
        read_durations(text)


@pytest.mark.parametrize(
    ("text", "mean", "spread"),
    [
        ("50ms", 0.05, 0),
        ("normal:50ms,10ms", 0.05, 0.01),
        ("lognormal:50ms,0.5", 0.05, 0.05 * (2.718281828459045**0.25 - 1) ** 0.5),
        ("uniform:20ms..80ms", 0.05, 0.06 / 12**0.5),
        ("exponential:50ms", 0.05, 0.05),
    ],
)
def test_a_distribution_has_the_mean_and_spread_it_says(text, mean, spread):
    amount, random = read_durations(text), Random(1)
    drawn = [draw(amount, random) for _ in range(20_000)]
    found = sum(drawn) / len(drawn)
    # Five standard errors of a mean of 20,000.
    assert found == pytest.approx(mean, abs=5 * spread / 20_000**0.5 + 1e-12)
    deviation = (sum((d - found) ** 2 for d in drawn) / len(drawn)) ** 0.5
    assert deviation == pytest.approx(spread, rel=0.1, abs=1e-12)


@given(
    text=st.sampled_from(["normal:5,50", "uniform:1..3", "lognormal:2,1.5", "exponential:1", "7"]),
    seed=st.integers(),
)
def test_an_answer_has_one_token_at_least(text, seed):
    assert draw_count(read_counts(text), Random(seed)) >= 1


@pytest.mark.parametrize(
    "text", ["0", "2.5", "uniform:5..2", "uniform:5", "normal:5", "pareto:5,2", "lognormal:0,1"]
)
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match="a number of tokens"):
        read_counts(text)


def test_a_file_says_all_that_flags_say_and_flags_go_before_it(tmp_path):
    path = tmp_path / "mock.yaml"
    path.write_text(
        "ttft: normal:50ms,10ms\nitl: 10ms\ntokens: 100\nmodel: [a, b]\nseed: 7\nslots: 4\n"
        "faults:\n  - {kind: error, share: 0.05, status: 429, retry_after_s: 1}\n"
        "  - {kind: stall, share: 0.1, lasts: 2s, after: 10}\n"
        "slow_start: {factor: 3, lasts: 20s}\nfreeze: {lasts: 1s, every: 5s}\n"
    )
    settings = read_settings(path, {"tokens": "uniform:1..5"})
    assert settings.ttft == "normal:50ms,10ms"
    assert settings.tokens == "uniform:1..5"
    assert settings.model == ("a", "b")
    assert settings.faults[1] == Fault(kind="stall", share=0.1, lasts="2s", after=10)
    assert settings.slow_start == SlowStart(factor=3, lasts="20s")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ttft: soon", "$.ttft"),
        ("ttft: 50", "$.ttft"),
        ("tokens: 0", "$.tokens"),
        ("tokens: [1]", "$.tokens"),
        ("slots: 0", "$.slots"),
        ("tfft: 50ms", "nearest: 'ttft'"),
        ("faults: [{kind: boom}]", "$.faults[0].kind"),
        ("faults: [{kind: error, share: 2}]", "$.faults[0].share"),
        ("faults: [{kind: error, status: 200}]", "$.faults[0].status"),
        ("faults: [{kind: stall, lasts: long}]", "$.faults[0].lasts"),
        ("faults: [{kind: stall, share: 0.6}, {kind: cut, share: 0.6}]", "$.faults"),
        ("freeze: {lasts: 5s, every: 1s}", "$.freeze"),
        ("slow_start: {factor: 0.5}", "$.slow_start.factor"),
        ("rate_limit: 0", "$.rate_limit"),
        ("ttft: 50ms\nttft: 60ms", "given twice"),
        ("[]", "expected an object"),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_the_field(tmp_path, text, named):
    path = tmp_path / "mock.yaml"
    path.write_text(text)
    with pytest.raises(LLMInvalidRequestError) as caught:
        read_settings(path, {})
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wrong_setting_is_told_with_its_name():
    with pytest.raises(LLMInvalidRequestError, match=r"\$\.itl"):
        override(MockSettings(), {"itl": "fast"})


def test_a_fault_is_written_in_one_line():
    assert read_fault("stall:5%,lasts=2s,after=3") == Fault(
        kind="stall", share=0.05, lasts="2s", after=3
    )
    assert read_fault("cut:0.25") == Fault(kind="cut", share=0.25)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("boom:1%", "known: error, stall"),
        ("error:many", "share"),
        ("error:1,state=4", "known: status"),
        ("error:1,status=x", "status"),
        ("error:1,status=100", "status"),
        ("error:150%", "share"),
    ],
)
def test_a_wrong_fault_is_told_what_is_wrong(text, named):
    with pytest.raises(LLMInvalidRequestError, match=named):
        read_fault(text)


def test_a_requests_fate_hangs_on_the_seed_and_its_number_alone():
    settings = MockSettings(
        ttft="normal:50ms,10ms", itl="exponential:10ms", tokens="uniform:1..500", seed=3
    )

    def fates(settings, numbers):
        rules, found = read_rules(settings), {}
        for number in numbers:
            plan = make_plan(rules, number=number, age_s=1.0)
            found[number] = (plan.ttft_s, plan.tokens, [gap_s(plan) for _ in range(5)])
        return found

    assert fates(settings, range(50)) == fates(settings, reversed(range(50)))
    assert fates(settings, range(50)) != fates(override(settings, {"seed": 4}), range(50))


def test_a_requests_limit_ends_it_by_length():
    rules = read_rules(MockSettings(tokens=10))
    assert make_plan(rules, number=0, age_s=0, most=5).reason == "length"
    plan = make_plan(rules, number=0, age_s=0, most=11)
    assert (plan.tokens, plan.reason) == (10, "stop")
