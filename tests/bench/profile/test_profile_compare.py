"""Two profiles side by side."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from attrs import evolve

from bench.profile.reports import HOSTILE, a_report, stage
from headrace.bench.profile.compare import compare
from headrace.bench.profile.report.files import write_all
from headrace.bench.profile.report.saved import read_file
from headrace.bench.report.comparison import comparison_markdown
from headrace.cli.profile_compare import compare_profiles
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load_find import Comparison, Difference
from headrace.numbers.welch import ratio_of_means


def of(found: Comparison, name: str) -> Difference:
    return next(d for d in found.differences if d.name == name)


def test_a_run_that_takes_a_fifth_longer_is_slower_in_each_stage_and_as_a_whole() -> None:
    found = compare(a_report(seed=1), a_report(seed=2, scale=1.2))
    assert found.judgement == "slower"
    for difference in found.differences:
        assert difference.judgement == "slower"
        assert difference.ratio == pytest.approx(1.2, abs=0.05)
        assert difference.low is not None
        assert difference.high is not None
        assert 1 < difference.low < difference.ratio < difference.high
    assert compare(a_report(seed=2, scale=1.2), a_report(seed=1)).judgement == "faster"


def test_a_run_beside_its_repetition_lies_within_noise() -> None:
    found = compare(a_report(seed=1), a_report(seed=3))
    assert found.judgement == "no difference seen"
    # One of five stages may well lie outside of its own 95%: the verdict is of the whole.
    assert of(found, "whole").text == "within noise"
    assert found.warnings == ()


def test_vision_lies_inside_prefill_and_is_not_added_to_the_whole() -> None:
    report = a_report()
    whole = of(compare(report, report), "whole").a
    parts = sum(s.time_ms.mean for s in report.stages if s.stage != "vision")
    assert whole == pytest.approx(parts)


def test_what_only_one_of_them_has_is_told() -> None:
    report = a_report()
    without = evolve(report, stages=tuple(s for s in report.stages if s.stage != "vision"))
    assert of(compare(report, without), "vision").text == "only A has it"
    assert of(compare(without, report), "vision").text == "only B has it"


def test_a_single_repeat_cannot_tell_a_difference() -> None:
    report = a_report()
    once = evolve(
        report,
        repeats=1,
        stages=tuple(evolve(s, values_ms=s.values_ms[:10]) for s in report.stages),
    )
    found = compare(report, once)
    assert found.judgement == "too little data"
    assert of(found, "decode").ratio is not None
    assert of(found, "decode").text == "two repeats of each are needed"
    assert any("B has 1 repeats" in warning for warning in found.warnings)


def test_what_makes_two_runs_unlike_is_said() -> None:
    report = a_report()
    other = evolve(
        a_report(verdict="noisy"),
        dtype="fp32",
        model_name="ears-1b",
        inputs=("x.png", *report.inputs[1:]),
        complete=False,
        ended="out of memory",
    )
    said = "\n".join(compare(report, other).warnings)
    for part in ("the model differs", "the numbers differs: bf16 in A, fp32 in B", "the inputs differ",
                 "B was noisy", "B ended early: out of memory"):  # fmt: skip
        assert part in said


def test_a_small_difference_that_is_surely_there_does_not_count() -> None:
    report = a_report()
    steady = [stage("decode", 100.0)]
    a = evolve(report, stages=(evolve(steady[0], values_ms=(100.0,) * 30),))
    b = evolve(report, stages=(evolve(steady[0], values_ms=(100.5,) * 30),))
    assert of(compare(a, b), "decode").judgement == "no difference seen"
    assert of(compare(a, b), "decode").text == "less than 1%"
    assert of(compare(a, b, least=0.001), "decode").judgement == "slower"


def test_intervals_hold_the_true_ratio_in_95_of_100_cases() -> None:
    draw = random.Random(7)
    held = 0
    for _ in range(4000):
        a = [draw.gauss(100, 2) for _ in range(3)]
        b = [draw.gauss(130, 4) for _ in range(4)]
        found = ratio_of_means(a, b)
        assert found is not None
        held += found[1] <= 1.3 <= found[2]
    # 0.95 with four standard errors to each side, and more where Welch errs on the safe side.
    assert 0.95 - 4 * math.sqrt(0.05 * 0.95 / 4000) < held / 4000 < 0.985


def test_nothing_is_told_of_too_few_or_of_no_time() -> None:
    assert ratio_of_means([1.0], [1.0, 2.0]) is None
    assert ratio_of_means([], []) is None
    assert ratio_of_means([0.0, 0.0], [1.0, 2.0]) is None
    assert ratio_of_means([2.0, 2.0], [3.0, 3.0]) == (1.5, 1.5, 1.5)


def test_the_command_prints_saved_runs_as_table_markdown_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(a_report(), tmp_path / "a")
    write_all(a_report(seed=2, scale=1.2), tmp_path / "b")
    compare_profiles(tmp_path / "a", tmp_path / "b" / "report.json")
    shown = capsys.readouterr().out
    assert shown.startswith("B is slower (whole +")
    assert "decode (ms an input)" in shown
    assert "0 requests" not in shown
    compare_profiles(tmp_path / "a", tmp_path / "b", markdown=True)
    assert "| prefill (ms an input) |" in capsys.readouterr().out
    compare_profiles(tmp_path / "a", tmp_path / "b", as_json=True)
    assert '"format": "headrace.profile-comparison/1"' in capsys.readouterr().out
    with pytest.raises(LLMInvalidRequestError, match=r"report\.json of a profile"):
        read_file(tmp_path)


def test_hostile_names_stay_words_in_markdown() -> None:
    hostile = evolve(a_report(), model_name=HOSTILE)
    assert "<script" not in comparison_markdown(compare(hostile, a_report()))
