"""Engines that a chain starts: each lazy one once a window, one at a time, and none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parents[1] / "backends" / "managed" / "stand_in.py"
ROWS = 12
ENGINE = """
  - name: {name}
    backend: command
    model: {name}-model
    lazy: {lazy}
    command:
      - sh
      - -c
      - "echo {name} >> starts.log; exec {python} {stand_in} {{model}} --host {{host}} --port {{port}} {flags}"
"""
STEPS = """
steps:
  - {id: first, engine: one, user: "1 {{ text }}"}
  - {id: second, engine: two, user: "2 {{ row.id }} {{ first }}"}
  - {id: third, engine: three, user: "3 {{ row.id }} {{ second }}"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def write_chain(folder: Path, *, lazy: str = "true", flags: str = "", steps: str = STEPS) -> None:
    engines = "".join(
        ENGINE.format(
            name=name,
            lazy=lazy if name == "two" else "true",
            python=sys.executable,
            stand_in=STAND_IN,
            flags=flags if name == "two" else "",
        )
        for name in ("one", "two", "three")
    )
    (folder / "chain.yaml").write_text(f"engines:{engines}{steps}")


def run(folder: Path, *more: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    if input is not None:
        words = ["run", "chain.yaml", "-", "--no-progress", *more]
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HEADRACE_STATE": str(folder / "state")},
        input=input,
    )


def starts(folder: Path) -> list[str]:
    return (folder / "starts.log").read_text().split()


def left_over() -> list[str]:
    """Stand-ins of ours that still run."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "-model --host" in line and "stand_in" in line]


def ids(folder: Path) -> list[int]:
    return [json.loads(line)["id"] for line in (folder / "out.jsonl").read_text().splitlines()]


def test_each_lazy_engine_starts_once_for_all_rows_and_is_gone_at_the_end(folder):
    before = left_over()
    write_chain(folder)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert starts(folder) == ["one", "two", "three"]
    assert ids(folder) == list(range(ROWS))
    assert left_over() == before


def test_with_a_window_each_starts_once_a_window(folder):
    write_chain(folder)
    done = run(folder, "--window", "6")
    assert done.returncode == 0, done.stderr
    assert starts(folder) == ["one", "two", "three"] * 2
    assert ids(folder) == list(range(ROWS))


def test_a_persistent_engine_starts_first_and_lives_to_the_end(folder):
    before = left_over()
    write_chain(folder, lazy="false")
    done = run(folder, "--window", "6")
    assert done.returncode == 0, done.stderr
    assert starts(folder) == ["two", "one", "three", "one", "three"]
    assert left_over() == before


def test_an_engine_that_dies_midway_is_started_again_and_no_row_is_lost(folder):
    write_chain(folder, flags="--crash-after 5")
    done = run(folder, "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    assert starts(folder).count("two") >= 2
    assert ids(folder) == list(range(ROWS))


def test_rows_from_standard_input_go_through_all_engines(folder):
    write_chain(folder)
    done = run(folder, "--shape", "value", input=(folder / "in.jsonl").read_text())
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == ROWS


def test_a_finished_run_that_is_run_again_starts_no_engine(folder):
    write_chain(folder)
    assert run(folder).returncode == 0
    (folder / "starts.log").unlink()
    assert run(folder).returncode == 0
    assert not (folder / "starts.log").exists()


BEHIND = """
steps:
  - {id: first, engine: one, user: "1 {{ text }}"}
  - {id: second, engine: two, user: "2 {{ row.id }} {{ first }}"}
  - {id: all, reduce: , by: row.kind}
  - {id: third, engine: %s, user: "3 {{ row.kind }} {{ value|length }}"}
"""


@pytest.mark.parametrize(
    ("third", "started"), [("three", ["one", "two", "three"]), ("two", ["one", "two"])]
)
def test_engines_behind_a_reduce_start_when_all_before_it_is_done(folder, third, started):
    before = left_over()
    rows = [json.dumps({"id": i, "text": f"row {i}", "kind": i % 3}) for i in range(ROWS)]
    (folder / "in.jsonl").write_text("\n".join(rows) + "\n")
    write_chain(folder, steps=BEHIND % third)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert starts(folder) == started
    assert ids(folder) == [0, 1, 2]
    assert left_over() == before
