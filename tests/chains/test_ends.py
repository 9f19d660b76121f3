"""Whatever ends a run, the same command goes on from there: same output, little asked twice."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from .counting import counting
from .ending import CHAIN, Ended

ROWS = 400
CONCURRENCY = 16
# What is under way, and what is not written yet: more where the machine is busy (check_kills has the
# figure of a quiet one).
MOST_TWICE = 2 * CONCURRENCY + 4 * 64


def test_a_run_that_is_killed_at_any_point_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    chance = random.Random(3)
    with counting(0.01) as server:
        whole = Ended(tmp_path / "whole", server, ROWS)
        whole.ran()
        assert whole.asked_twice == 0
        for trial in range(5):
            server.forget()
            ended = Ended(tmp_path / str(trial), server, ROWS)
            ended.killed_after(
                chance.randrange(1, 2 * ROWS - 20), "--concurrency", f"{CONCURRENCY}"
            )
            assert not (ended.folder / "out.jsonl").exists()
            ended.ran("--concurrency", f"{CONCURRENCY}")
            assert ended.output == whole.output
            assert ended.asked_twice <= MOST_TWICE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_what_is_under_way_and_nothing_is_asked_twice(
    tmp_path: Path, number: signal.Signals
) -> None:
    with counting() as server:
        ended = Ended(tmp_path, server, ROWS)
        process = ended.started("--concurrency", "8")
        server.wait_for(50)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "the same command goes on from there" in said
        assert not (tmp_path / "out.jsonl").exists()
        ended.ran()
        assert ended.asked_twice == 0


def test_a_second_signal_stops_at_once_and_costs_what_was_under_way(tmp_path: Path) -> None:
    with counting(20.0) as server:
        ended = Ended(tmp_path, server, ROWS)
        process = ended.started("--concurrency", "8")
        server.wait_for(8)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "once more to stop at once" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)
        assert process.returncode == 130
        assert "the same command goes on from there" in said
        server.delay_s = 0.0
        ended.ran()
        assert ended.asked_twice == 8


def test_a_function_that_never_ends_does_not_outlive_the_third_signal(tmp_path: Path) -> None:
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, 3)
        ways = (tmp_path / "ways.py").read_text()
        (tmp_path / "ways.py").write_text(
            ways
            + "\n\ndef long(value):\n    open('stuck', 'w').close()\n    while True:\n        pass\n"
            "short = long\n"
        )
        process = ended.started()
        while not (tmp_path / "stuck").exists():
            assert process.poll() is None
        assert process.stderr is not None
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            process.stderr.readline()
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT


def test_a_changed_step_is_asked_again_with_what_follows_it_and_nothing_else(
    tmp_path: Path,
) -> None:
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, 50)
        ended.ran()
        first = ended.output
        server.forget()
        ended.ran()
        assert server.total == 0
        ended.write_chain(CHAIN.replace('"two ', '"then '))
        ended.ran()
        assert {prompt.split()[0] for prompt in server.asked} == {"then"}
        assert server.total == 50
        server.forget()
        ended.write_chain(CHAIN.replace('"one ', '"first '))
        ended.ran()
        assert server.total == 100
        server.forget()
        # What was asked by the chain as it was is still there.
        ended.write_chain(CHAIN)
        ended.ran()
        assert server.total == 0
        assert ended.output == first


def test_rows_that_came_anew_are_asked_for_and_the_others_are_not(tmp_path: Path) -> None:
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, 50)
        ended.ran()
        first = ended.output
        server.forget()
        ended.write_rows(range(60))
        ended.ran()
        assert server.total == 20
        assert ended.output.startswith(first)
        server.forget()
        ended.write_rows(reversed(range(60)))
        ended.ran()
        assert server.total == 0
        assert ended.output.splitlines()[:-10:-1] == first.splitlines()[:9]


def test_a_second_run_leaves_what_the_first_writes_alone(tmp_path: Path) -> None:
    with counting(0.1) as server:
        ended = Ended(tmp_path, server, ROWS)
        first = ended.started("--concurrency", "2")
        server.wait_for(10)
        assert "another process works on" in ended.ran(status=1)
        assert "another process works on" in ended.ran("--run-dir", "other", status=1)
        elsewhere = ended.started("--run-dir", "out.jsonl.run")
        assert "another process works on" in elsewhere.communicate(timeout=60)[1]
        assert first.poll() is None
        server.delay_s = 0.0
        _, said = first.communicate(timeout=60)
        assert first.returncode == 0, said
        assert ended.asked_twice == 0
        again = ended.output
        assert len(again.splitlines()) == ROWS
        ended.ran()
        assert ended.output == again
