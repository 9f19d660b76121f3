"""A Reduce in ``headrace run``: killed anywhere it goes on to the same output, in little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .answering import Answering, answering

ROWS = 200
CODE = """
def together(answers: list) -> dict:
    return {"count": len(answers), "first": answers[0], "last": answers[-1]}
"""
CHAIN = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: "{url}"}}
steps:
  - {{id: first, engine: small, user: "one {{{{ text }}}}"}}
  - {{id: kinds, reduce: "gathering:together", by: row.kind}}
  - {{id: last, engine: small, user: "{{{{ row.kind }}}} {{{{ count }}}} {{{{ first }}}} {{{{ last }}}}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}", "kind": f"k{i % 7}"}) for i in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "gathering.py").write_text(CODE)
    return tmp_path


def command(*more: str) -> list[str]:
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    return [sys.executable, "-m", "headrace", *words]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*more), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def write_chain(folder: Path, server: Answering) -> None:
    (folder / "chain.yaml").write_text(CHAIN.format(url=server.url))


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def expected(kind: int, failing: int | None = None) -> dict[str, object]:
    rows = [i for i in range(kind, ROWS, 7) if i != failing]
    told = f"k{kind} {len(rows)} <one row {rows[0]}> <one row {rows[-1]}>"
    return {"id": f"k{kind}", "input": {"kind": f"k{kind}"}, "output": f"<{told}>"}


def test_each_group_is_one_row_of_the_output_and_its_key_the_id(folder):
    with answering() as server:
        write_chain(folder, server)
        done = run(folder)
        assert done.returncode == 0, done.stderr
        assert written(folder) == [expected(kind) for kind in range(7)]
        first = (folder / "out.jsonl").read_bytes()
        server.asked.clear()
        assert run(folder).returncode == 0
        assert not server.asked
    assert (folder / "out.jsonl").read_bytes() == first


def test_what_failed_before_is_not_in_its_group_and_is_told_of(folder):
    def refusing(prompt: str, before: int) -> object:
        return 400 if prompt == "one row 7" else f"<{prompt}>"

    with answering(refusing) as server:
        write_chain(folder, server)
        assert run(folder).returncode == 3
    assert written(folder) == [expected(kind, failing=7) for kind in range(7)]
    (error,) = map(json.loads, (folder / "out.jsonl.run" / "errors.jsonl").read_text().splitlines())
    assert (error["id"], error["node"]) == (7, "first")


def test_killed_anywhere_it_goes_on_to_the_same_output(folder):
    chance = random.Random(5)

    def slowly(prompt: str, before: int) -> str:
        time.sleep(0.01)
        return f"<{prompt}>"

    with answering(slowly) as server:
        write_chain(folder, server)
        for _ in range(4):
            process = subprocess.Popen(command("--concurrency", "4"), cwd=folder)
            time.sleep(0.5 + chance.random() * 0.5)
            process.kill()
            process.wait()
        done = run(folder, "--concurrency", "4")
        assert done.returncode == 0, done.stderr
    assert written(folder) == [expected(kind) for kind in range(7)]
    assert not list((folder / "out.jsonl.run").glob("*.groups"))


def test_values_wait_on_disk_and_not_in_memory(tmp_path):
    """Groups of 60 MB altogether, none above 2 MB."""
    (tmp_path / "gathering.py").write_text(
        "def count(values: list) -> int:\n    return len(values)\n"
        "def widen(row: dict) -> dict:\n"
        "    return {'kind': row['n'] % 40, 'wide': str(row['n']) * 3000}\n"
    )
    (tmp_path / "chain.yaml").write_text(
        "steps:\n  - {id: widen, apply: 'gathering:widen'}\n"
        "  - {id: count, reduce: 'gathering:count', by: kind}\n"
    )
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {i}}}\n' for i in range(5000)))
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['headrace', *command()[3:], '--shape', 'value']!r}\n"
        "try:\n    runpy.run_module('headrace', run_name='__main__')\n"
        # Not what getrusage says: that is the parent's too, of the time before exec.
        "finally:\n    status = open('/proc/self/status').read()\n"
        "    print(status.split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert [int(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        125
    ] * 40, done.stderr
    # It would be 60 MB more at least.
    assert int(done.stdout) / 1024 < 110, done.stdout
