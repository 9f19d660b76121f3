"""No room for the journal or the output, or no right to write: a run stops, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .counting import counting
from .ending import Ended

ROWS = 400
MOST_LOST = 3 * 64 + 8
"""As much as may wait to be written, and what is under way then."""
RUN = [sys.executable, "-m", "headrace", "run", "chain.yaml", "in.jsonl", "--no-progress"]


def run_within(folder: Path, most_bytes: int, *more: str) -> subprocess.CompletedProcess[str]:
    """A run whose files cannot grow any further than that."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.run(
        [*RUN, *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=bound,
    )


@pytest.fixture(scope="session")
def own_mounts() -> None:
    """Skips where no file system can be mounted for one process alone."""
    try:
        done = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def run_mounted(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A script whose mounts are its own; ``$RUN`` is the command."""
    return subprocess.run(
        ["unshare", "-rm", "bash", "-euc", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "RUN": shlex.join(RUN)},
    )


def test_a_journal_that_cannot_grow_stops_the_run_and_the_same_command_goes_on(tmp_path: Path):
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, ROWS)
        done = run_within(tmp_path, 100_000, "-o", "out.jsonl", "--concurrency", "8")
        assert done.returncode == 1, done.stderr
        assert "the same command goes on from there" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out.jsonl").exists()
        kept = server.total
        assert kept < 2 * ROWS
        ended.ran()
        assert len(ended.output.splitlines()) == ROWS
        # What could not be written is asked again, and nobody was asked once that was known.
        assert 0 <= ended.asked_twice <= MOST_LOST


def test_an_output_that_cannot_grow_stops_the_run_and_what_was_done_is_kept(tmp_path: Path):
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, ROWS)
        text = (tmp_path / "in.jsonl").read_text()
        (tmp_path / "in.jsonl").write_text(text.replace('"row', f'"{"long " * 800}row'))
        done = run_within(tmp_path, 700_000, "-o", "out.jsonl")
        assert done.returncode == 1, done.stderr
        assert "output 'out.jsonl' cannot be written (File too large)" in done.stderr
        assert "the same command goes on from there" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out.jsonl").exists()
        ended.ran()
        assert len(ended.output.splitlines()) == ROWS
        assert ended.asked_twice <= 64


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_standard_output_that_takes_nothing_more_is_one_line_and_costs_nothing(tmp_path: Path):
    with counting(0.0) as server:
        Ended(tmp_path, server, ROWS)
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                RUN, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "output '-' cannot be written (No space left on device)" in done.stderr
        again = subprocess.run(RUN, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        assert len(again.stdout.splitlines()) == ROWS


@pytest.mark.usefixtures("own_mounts")
def test_a_full_disk_under_the_journal_loses_nothing_that_was_written(tmp_path: Path):
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, ROWS)
        done = run_mounted(
            tmp_path,
            """
            mkdir run
            mount -t tmpfs -o size=160k none run
            $RUN -o out.jsonl --run-dir run --concurrency 8 && exit 9
            test ! -e out.jsonl
            mount -o remount,size=16m run
            $RUN -o out.jsonl --run-dir run --concurrency 8
            """,
        )
        assert done.returncode == 0, done.stderr
        assert "the journal in 'run' cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(ended.output.splitlines()) == ROWS
        assert ended.asked_twice <= MOST_LOST


@pytest.mark.usefixtures("own_mounts")
@pytest.mark.parametrize("size", ["4k", "24k"])
def test_a_disk_too_full_to_begin_on_is_told_before_anybody_is_asked(tmp_path: Path, size: str):
    with counting(0.0) as server:
        Ended(tmp_path, server, ROWS)
        done = run_mounted(
            tmp_path,
            f"""
            mkdir run
            mount -t tmpfs -o size={size} none run
            head -c 100000 /dev/zero > run/full || true
            $RUN -o out.jsonl --run-dir run
            """,
        )
        assert done.returncode == 1
        assert "'run' cannot be written (database or disk is full)" in done.stderr
        assert "Traceback" not in done.stderr
        assert server.total == 0


@pytest.mark.usefixtures("own_mounts")
def test_a_folder_that_became_read_only_is_told_before_anybody_is_asked(tmp_path: Path):
    with counting(0.0) as server:
        ended = Ended(tmp_path, server, ROWS)
        done = run_mounted(
            tmp_path,
            """
            mkdir run
            mount -t tmpfs none run
            $RUN -o out.jsonl --run-dir run --limit 100
            mount -o remount,ro run
            $RUN -o out.jsonl --run-dir run && exit 9
            mount -o remount,rw run
            $RUN -o out.jsonl --run-dir run
            """,
        )
        assert done.returncode == 0, done.stderr
        assert "Read-only file system; make its folder writable" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(ended.output.splitlines()) == ROWS
        assert ended.asked_twice == 0
