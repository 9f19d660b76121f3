"""Which token comes next: greedy, drawn, penalised, barred; and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.local.folders.frames import Sampling
from headrace.backends.local.folders.sampling import Sampler

SIZE = 1500
DRAWS = 1500


def scores_of(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def sampler(prompt=(), ends=(0,), place=0, **settings) -> Sampler:
    return Sampler(Sampling(**settings), prompt, ends, lambda token: b"%d" % token, place=place)


def left_by(scores, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> np.ndarray:
    """The probabilities that are left, worked out plainly: a sort, and sums."""
    scaled = scores.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max())
    odds /= odds.sum()
    order = np.argsort(-odds, kind="stable")
    if top_k:
        odds[order[top_k:]] = 0
        odds /= odds.sum()
    if top_p < 1:
        reached = np.cumsum(odds[order])
        odds[order[int(np.searchsorted(reached, top_p)) + 1 :]] = 0
        odds /= odds.sum()
    if min_p:
        odds[odds < min_p * odds.max()] = 0
    return odds / odds.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 5},
        {"top_p": 0.5},
        {"top_p": 0.9, "temperature": 1.5},
        {"top_k": 50, "top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
        {"top_p": 0.0},
        {"temperature": 3.0, "top_p": 0.999},
    ],
    ids=str,
)
def test_what_is_drawn_is_what_the_settings_leave_as_often_as_it_is_likely(settings):
    scores = scores_of(1)
    expected = left_by(scores, **settings)
    drawer = sampler(seed=7, **{"temperature": 1.0, **settings})
    drawn = np.bincount([drawer.choose(scores) for _ in range(DRAWS)], minlength=SIZE)
    assert not drawn[expected < 1e-7].any()
    # Of n draws one with probability p comes np times, give or take: six deviations never happen.
    deviation = np.sqrt(DRAWS * expected * (1 - expected))
    assert (np.abs(drawn - DRAWS * expected) <= 6 * deviation + 1).all()


def test_a_top_p_that_takes_more_than_the_likeliest_thousand_is_held_too():
    flat = np.zeros(8_000, dtype=np.float32)
    drawer = sampler(seed=1, temperature=1.0, top_p=0.5)
    assert len({drawer.choose(flat) for _ in range(600)}) > 500


@given(st.integers(0, 2**63), st.integers(0, 3))
def test_the_same_seed_draws_the_same_and_each_answer_its_own(seed, place):
    scores = scores_of(2, 200)

    def drawn(**more):
        drawer = sampler(seed=seed, temperature=1.0, **more)
        return [drawer.choose(scores) for _ in range(12)]

    assert drawn(place=place) == drawn(place=place)
    if place:
        assert drawn(place=place) != drawn()


def test_without_a_temperature_the_highest_score_is_taken_and_scores_stay_as_they_were():
    scores = scores_of(3)
    kept = scores.copy()
    plain = sampler(temperature=0.0)
    assert plain.is_plain
    assert plain.choose(scores) == scores.argmax()
    assert (scores == kept).all()


def test_penalties_and_biases_change_scores_as_they_are_defined():
    scores = np.array([-5, 4.0, 3.9, 1.0, -1.0], dtype=np.float32)
    repeated = sampler(prompt=[1], temperature=0.0, repetition_penalty=1.1)
    assert repeated.choose(scores) == 2  # 4.0 / 1.1
    lower = np.array([-9, -1.0, -1.05], dtype=np.float32)
    assert sampler(prompt=[1], temperature=0.0, repetition_penalty=1.1).choose(lower) == 2
    often = sampler(prompt=[1, 1, 1], temperature=0.0, frequency_penalty=0.04)
    assert often.choose(scores) == 1  # what stands in the prompt was not written
    often.take(1)
    often.take(1)
    often.take(1)
    assert often.choose(scores) == 2  # 4.0 - 3 * 0.04
    present = sampler(temperature=0.0, presence_penalty=0.2)
    present.take(1)
    assert present.choose(scores) == 2
    assert sampler(temperature=0.0, logit_bias={3: 10.0}).choose(scores) == 3
    assert sampler(ends=[1], temperature=0.0, ignore_eos=True).choose(scores) == 2


def test_log_probabilities_are_those_of_the_model_whatever_is_chosen_by():
    scores = scores_of(4)
    exact = scores.astype(np.float64)
    exact -= exact.max() + np.log(np.exp(exact - exact.max()).sum())
    told = sampler(alternatives=3, temperature=2.0, logit_bias={5: 50.0}).told(scores, 5)
    piece, logprob, top = told
    assert piece == b"5"
    assert logprob == pytest.approx(exact[5], abs=1e-4)
    best = np.argsort(-exact)[:3]
    assert [each for each, _ in top] == [b"%d" % token for token in best]
    assert [value for _, value in top] == pytest.approx(exact[best].tolist(), abs=1e-4)


@pytest.mark.parametrize("temperature", [1e-7, 1e-40, 1e-50, 5e-324])
def test_the_coldest_choose_the_likeliest(temperature):
    scores = scores_of(3)
    for settings in ({}, {"top_p": 0.9}, {"top_k": 4}, {"min_p": 0.1}):
        drawer = sampler(seed=1, temperature=temperature, **settings)
        assert drawer.choose(scores) == int(scores.argmax())
