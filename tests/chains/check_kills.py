"""The whole of it: runs of 2,000 rows, killed at 20 random points each, and what that costs.

Too long for every run of the tests: ``make test-chains``.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .counting import counting
from .ending import ASKED_A_ROW, Ended

ROWS = 2000
TRIALS = 20
MOST_SHARE_TWICE = 0.05


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_points_the_output_is_the_same_and_little_is_asked_twice(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, requests = random.Random(seed), ASKED_A_ROW * ROWS
    with counting(0.02) as server:
        whole = Ended(tmp_path / "whole", server, ROWS)
        whole.ran()
        assert whole.asked_twice == 0
        shares = []
        for trial in range(TRIALS):
            server.forget()
            ended = Ended(tmp_path / str(trial), server, ROWS)
            ended.killed_after(chance.randrange(1, requests))
            ended.ran()
            assert ended.output == whole.output
            shares.append(ended.asked_twice / requests)
    with capsys.disabled():
        mean = sum(shares) / TRIALS
        print(f"\nasked twice: {mean:.2%} on average, {max(shares):.2%} at most")
    assert max(shares) <= MOST_SHARE_TWICE


def test_one_run_that_is_killed_again_and_again_ends_with_the_same_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(2)
    with counting(0.02) as server:
        whole = Ended(tmp_path / "whole", server, ROWS)
        whole.ran()
        server.forget()
        ended = Ended(tmp_path / "killed", server, ROWS)
        for _ in range(TRIALS):
            ended.killed_after(chance.randrange(1, 2 * ASKED_A_ROW * ROWS // TRIALS))
        ended.ran()
        assert ended.output == whole.output
        twice = ended.asked_twice
    with capsys.disabled():
        print(f"\nasked twice: {twice} of {ASKED_A_ROW * ROWS} in {TRIALS} kills")
    assert twice / TRIALS <= MOST_SHARE_TWICE * ASKED_A_ROW * ROWS
