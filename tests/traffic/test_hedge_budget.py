"""When a first token is late, and how often it may be asked for twice."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from headrace.numbers import timeline
from headrace.traffic.hedge import HedgePolicy, Hedging
from traffic.play import PATIENT, Stage, answer, is_idle, play
from traffic.test_hedge import (
    QUICK,
    outcomes,
)


def test_none_is_made_before_enough_first_tokens_were_seen():
    async def main():
        stage = Stage()
        hedging = Hedging(HedgePolicy(min_samples=50, max_extra=1.0))
        first = stage.lane(lambda _: answer(after_s=1), "a", limits=PATIENT, total_s=None)
        second = stage.lane(lambda _: QUICK, "b", limits=PATIENT)
        for _ in range(49):
            await stage.text(first, second, hedging=hedging)
        assert hedging.after_s() is None
        await stage.text(first, second, hedging=hedging)
        assert hedging.after_s() == pytest.approx(1, rel=0.02)
        assert outcomes(stage) == [None] * 50

    play(main)


def test_the_estimate_follows_a_backend_that_has_become_slower():
    hedging = Hedging(HedgePolicy(min_samples=100))
    chance = Random(3)
    for mean in (1.0, 4.0):
        for _ in range(2000):
            hedging.took(chance.uniform(0, mean))
        assert hedging.after_s() == pytest.approx(0.95 * mean, rel=0.05)


def test_hardly_anybody_is_late_where_all_take_nearly_as_long():
    hedging, chance = Hedging(HedgePolicy(min_samples=100)), Random(4)
    late = 0
    for n in range(2000):
        took = chance.uniform(1.0, 1.01)
        late += n >= 200 and took > hedging.after_s()
        hedging.took(took)
    assert late <= 0.06 * 1800


def test_there_are_never_more_than_the_budget_allows():
    chance = Random(5)
    hedging = Hedging(HedgePolicy(max_extra=0.05))
    calls = hedges = 0
    for _ in range(20_000):
        hedging.began()
        calls += 1
        if chance.random() < (0.5 if calls % 2000 < 1000 else 0.01):
            hedges += hedging.spend()
        assert hedges <= 0.05 * calls + 1e-6
    assert hedges > 0.02 * calls


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_extra", 0.0), ("max_extra", 1.5), ("after_p", 95), ("after_s", 0), ("min_samples", 0)],
)
def test_a_policy_that_could_not_be_is_refused_by_its_field(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        HedgePolicy(**{name: value})


def simulated(hedging: Hedging | None, calls: int = 3000) -> tuple[list[float], int, Stage]:
    """First-token times of calls that follow one another, of which 3% meet a backend that stalls."""
    stage = Stage()
    chance = Random(11)

    def bimodal(_):
        slow = chance.random() < 0.03
        return answer(after_s=chance.uniform(8, 12) if slow else chance.uniform(0.2, 0.6))

    lanes = [stage.lane(bimodal, name, limits=PATIENT, total_s=None) for name in "ab"]

    async def main():
        for _ in range(calls):
            await stage.text(*lanes, hedging=hedging)
        assert all(map(is_idle, lanes))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    took = sorted(timeline.arrival_to_first_token(record.timeline) for record in stage.records)
    return took, stage.sent("a") + stage.sent("b"), stage


def test_hedging_lowers_the_p99_where_3_percent_stall_to_a_seventh_for_under_5_percent_more_requests():
    plain, asked, _ = simulated(None)
    hedged, asked_hedged, stage = simulated(Hedging(HedgePolicy()))
    p99 = [took[int(0.99 * len(took))] for took in (plain, hedged)]
    assert asked == len(plain)
    assert asked_hedged <= 1.05 * asked
    assert p99[0] > 8
    assert p99[1] < 1.25
    assert p99[0] / p99[1] > 7
    assert outcomes(stage).count("won") > 0.02 * len(plain)
