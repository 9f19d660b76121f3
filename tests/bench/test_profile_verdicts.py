"""Noise, verdicts and recommendations, from figures alone; no torch is needed."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from headrace.bench.profile.noise import Reading, Spread, noise_of
from headrace.bench.profile.verdict import Findings, notes_of, recommendations_of, verdict_of
from headrace.contracts.profile_report import Noise, StageFigures
from headrace.contracts.profiling import OperatorSummary, Stats
from headrace.numbers.roofline import Roof

START = Reading(wall_s=0, cpu_s=0, waited_s=0, ticks=(0, 0))
END = Reading(wall_s=10, cpu_s=20, waited_s=0.2, ticks=(10, 2000))


def apart(*variations: float, half_width: float = 0.01) -> list[Spread]:
    return [Spread(stage="decode", variation=each, half_width=half_width) for each in variations]


def test_a_quiet_machine_is_told_as_clean_with_the_figures() -> None:
    noise = noise_of(START, END, apart(0.01, 0.02), threads=2)
    assert (noise.verdict, noise.variation, noise.stolen_share) == ("clean", 0.02, 0.005)
    assert noise.cpu_share == pytest.approx(20 / 20.2)
    assert "2.0%" in noise.text
    assert "99%" in noise.text


@pytest.mark.parametrize(
    ("end", "spreads", "said"),
    [
        (END, apart(0.01, 0.2), "repeats of decode differ by 20.0%"),
        (END, apart(0.04, half_width=0.1), "mean of decode is known within 10.0% only"),
        (evolve(END, waited_s=20), apart(0.01), "other programs took 50%"),
        (evolve(END, ticks=(200, 2000)), apart(0.01), "10.0% of the machine's time was stolen"),
    ],
)
def test_what_disturbed_the_times_is_named(end: Reading, spreads: list[Spread], said: str) -> None:
    noise = noise_of(START, end, spreads, threads=2)
    assert noise.verdict == "noisy"
    assert said in noise.text


def test_one_repeat_tells_nothing_of_the_spread() -> None:
    assert noise_of(START, END, [], threads=2).verdict == "unknown"


def test_a_system_that_tells_little_is_judged_by_the_spread() -> None:
    start, end = evolve(START, waited_s=None, ticks=None), evolve(END, waited_s=None, ticks=None)
    noise = noise_of(start, end, apart(0.01), threads=2)
    assert (noise.verdict, noise.cpu_share, noise.stolen_share) == ("clean", None, None)


def stage(name: Any, share: float, **more: Any) -> StageFigures:
    return StageFigures(stage=name, time_ms=Stats(mean=share * 100, std=0), share=share, **more)


MEMORY: dict[str, Any] = {"bound": "memory", "intensity": 1.0}
COMPUTE: dict[str, Any] = {"bound": "compute", "intensity": 500.0}
CLEAN = Noise(verdict="clean", text="Clean.")


def found(*stages: StageFigures, **more: Any) -> Findings:
    usual: dict[str, Any] = {
        "operators": (),
        "roof": Roof(flops_per_s=1e12, bytes_per_s=1e10),
        "dtype": "bf16",
        "attention": "sdpa",
        "compiled": False,
        "on_cuda": False,
        "noise": CLEAN,
        "overhead": None,
        "reason": None,
    }
    return Findings(stages={each.stage: each for each in stages}, **{**usual, **more})


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (stage("decode", 0.8, mbu=0.41, mfu=0.03, **MEMORY), "41% of memory bandwidth and 3.0%"),
        (stage("decode", 0.8, mbu=0.41, mfu=0.03, **MEMORY), "batch more, or quantise"),
        (stage("decode", 0.8, mbu=0.9, mfu=0.03, **MEMORY), "as fast as memory lets it be"),
        (stage("decode", 0.8, mbu=0.02, mfu=0.01, **MEMORY), "neither arithmetic nor memory"),
        (stage("decode", 0.8, mbu=1.6, mfu=0.01, **MEMORY), "more than the limits"),
        (stage("prefill", 0.8, mbu=0.1, mfu=0.8, **COMPUTE), "as fast as the device computes"),
        (stage("prefill", 0.8, mbu=0.1, mfu=0.4, **COMPUTE), "smaller dtype or faster kernels"),
        (stage("preprocess", 0.8), "before the model sees anything"),
    ],
)
def test_the_verdict_is_of_the_stage_that_takes_most(main: StageFigures, said: str) -> None:
    other = stage("decode" if main.stage == "prefill" else "prefill", 0.2, mbu=0.1, mfu=0.1)
    verdict = verdict_of(found(main, other))
    assert verdict.startswith(f"{main.stage.capitalize()} takes 80% of the time")
    assert said in verdict


def test_without_a_peak_the_verdict_says_why() -> None:
    verdict = verdict_of(found(stage("decode", 0.8), reason="no datasheet of 'X' is known"))
    assert "not known (no datasheet of 'X' is known)" in verdict


def test_vision_is_not_weighed_beside_the_prefill_that_holds_it() -> None:
    vision = stage("vision", 0.7, inside="prefill")
    assert verdict_of(found(vision, stage("prefill", 0.8), stage("decode", 0.2))).startswith(
        "Prefill takes 80%"
    )


def test_each_recommendation_has_its_number_and_the_largest_gain_is_first() -> None:
    slow = OperatorSummary(
        op_name="aten::mm",
        total_time_ms=50,
        cuda_time_ms=0,
        calls=4,
        stage="decode",
        share_of_roof=0.2,
    )
    made = recommendations_of(
        found(
            stage("preprocess", 0.2),
            stage("vision", 0.2, inside="prefill"),
            stage("prefill", 0.3, mbu=0.1, mfu=0.3, of_floor=0.3, **COMPUTE),
            stage("decode", 0.5, mbu=0.3, mfu=0.01, of_floor=0.3, **MEMORY),
            operators=(slow,),
            attention="eager",
            noise=Noise(verdict="noisy", text="Noisy: repeats differ by 9.0%; it kept 2 cores."),
        )
    )
    gains = [each.gain or 0 for each in made]
    assert gains == sorted(gains, reverse=True)
    assert all(any(c.isdigit() for c in each.because) for each in made)
    texts = " ".join(each.text for each in made)
    for word in ("together", "Quantise", "Compile", "fused", "pictures", "Prepare", "aten::mm"):
        assert word in texts
    assert made[-1].because == "repeats differ by 9.0%."


def test_a_decode_that_is_all_it_can_be_is_not_to_be_compiled() -> None:
    made = recommendations_of(
        found(stage("decode", 0.9, mbu=0.9, mfu=0.01, of_floor=0.9, **MEMORY))
    )
    assert not any("Compile" in each.text for each in made)


def test_notes_are_sentences_with_the_times_and_the_noise() -> None:
    figures = found(stage("decode", 0.8), reason="no peak")
    assert notes_of(figures, "A verdict.", 812.4, 25.0) == (
        "A verdict. The first token comes after 812 ms. Each one after it takes 25.0 ms (40 a "
        "second). Clean. Not known: no peak"
    )
