"""Rows that no one should have written: each is told of, and all others are done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .answering import Answering, answering

CHAIN = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: {url}}}
steps:
  - id: first
    engine: small
    user: "say {{{{ row.id }}}} {{{{ text.upper() }}}}"
"""
GOOD = 40


def run(
    folder: Path, server: Answering, *words: str, given: bytes | None = None
) -> tuple[int, str]:
    (folder / "chain.yaml").write_text(CHAIN.format(url=server.url))
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "run", "chain.yaml", *words, "--no-progress"],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, (done.stdout + done.stderr).decode()


def ids(path: Path) -> list[object]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_only_the_poisoned_lines_fail(tmp_path):
    good = [json.dumps({"id": f"g{i}", "text": f"row {i}"}).encode() for i in range(GOOD)]
    strange = [
        json.dumps({"id": "s0", "text": "x" * 1_000_000}).encode(),
        json.dumps({"id": "s1", "text": "nul \x00", "n": 10**300}).encode(),
        json.dumps({"id": "s2", "text": "deep", "d": [[[[[[[[[[1]]]]]]]]]]}).encode(),
        json.dumps({"id": 2**80, "text": "a large id"}).encode(),
    ]
    poison = [
        b'{"id": "p0", "text": "\xff\xfe"}',
        b'{"id": "p1", "text": 5}',
        b'{"id": "p2"}',
        b'{"id": "p3", "text": null}',
        b'{"id": "p4", "text": NaN}',
        b'{"id": "p5", "text": "\\ud800"}',
        b'{"id": "p6", "text": ' + b"[" * 100_000,
        b'{"id": "p7", "text": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"id": "p8", "text": ["a"]}',
        b"\x00\x01\x02",
        b'"text"',
    ]
    lines = [*good[:5], *poison[:4], *good[5:20], *strange, *poison[4:], *good[20:]]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    with answering() as server:
        status, said = run(tmp_path, server, "in.jsonl", "-o", "out.jsonl")
        assert status == 3, said
        assert len(server.asked) == GOOD + len(strange)
        server.asked.clear()
        assert run(tmp_path, server, "in.jsonl", "-o", "out.jsonl")[0] == 3
        assert not server.asked
    wanted = [json.loads(line)["id"] for line in lines if line in good or line in strange]
    assert ids(tmp_path / "out.jsonl") == wanted
    errors = (tmp_path / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()
    assert [json.loads(each)["row"] for each in errors] == [
        row for row, line in enumerate(lines) if line in poison
    ]


def test_only_the_poisoned_rows_of_a_parquet_file_fail_and_the_rest_is_parquet_again(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    text = [f"row {i}".encode() for i in range(GOOD)]
    text[7] = b"\xff"
    number = [0.5] * GOOD
    number[9], number[11] = float("inf"), float("nan")
    table = {
        "id": list(range(GOOD)),
        "text": pa.array([None if i == 8 else t for i, t in enumerate(text)]).view(pa.string()),
        "number": number,
        "when": pa.array([1] * GOOD, pa.timestamp("ns")),
    }
    parquet.write_table(pa.table(table), tmp_path / "in.parquet", row_group_size=6)
    with answering() as server:
        status, said = run(tmp_path, server, "in.parquet", "-o", "out.parquet")
    assert status == 3, said
    errors = (tmp_path / "out.parquet.run" / "errors.jsonl").read_text().splitlines()
    told = [(e["id"], e["node"]) for e in map(json.loads, errors)]
    assert told == [(7, "input"), (8, "first"), (9, "input")]
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == [i for i in range(GOOD) if i not in (7, 8, 9)]
    assert rows[0]["output"] == "<say 0 ROW 0>"
    assert rows[8]["input"]["number"] is None
    assert rows[0]["input"]["when"] == "1970-01-01T00:00:00.000000001"


def test_equal_rows_are_each_answered_and_told_of_as_the_same(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a"}\n' * 2 + '{"id": 1, "text": "b"}\n')
    with answering() as server:
        status, said = run(tmp_path, server, "in.jsonl", "-o", "out.jsonl")
        assert sorted(server.asked.values()) == [1, 1]
    assert status == 0, said
    assert ids(tmp_path / "out.jsonl") == [1, 1, 1]
    assert "2 rows have an id that a row before has too; the first is row 1, 1" in said


def test_standard_input_and_output_are_lines(tmp_path):
    with answering() as server:
        status, said = run(tmp_path, server, "-", given=b'{"id": 1, "text": "a"}\n{"id": 2}\n')
    assert status == 3, said
    assert '"output":"<say 1 A>"}\n' in said
    assert "errors.jsonl" in said


def test_a_pattern_of_files_becomes_files_of_a_size(tmp_path):
    (tmp_path / "data").mkdir()
    for part in range(3):
        lines = [json.dumps({"id": f"{part}-{i}", "text": "t"}) + "\n" for i in range(10)]
        (tmp_path / "data" / f"{part}.jsonl").write_text("".join(lines))
    with answering() as server:
        words = ("data/*.jsonl", "-o", "out.jsonl", "--split-size", "1kB")
        status, said = run(tmp_path, server, *words)
    assert status == 0, said
    files = sorted(tmp_path.glob("out-*.jsonl"))
    assert len(files) > 1
    assert all(path.stat().st_size <= 1000 for path in files)
    assert [id for path in files for id in ids(path)] == [
        f"{part}-{i}" for part in range(3) for i in range(10)
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "-o", "data/out.jsonl"), "output: 'data/out.jsonl' would be read with the input"),
        (("data/*", "-o", "data/out.jsonl"), "output: 'data/out.jsonl' would be read"),
        (("data", "-o", "o.jsonl", "--run-dir", "data"), "run_dir: 'data/errors.jsonl' would be"),
        (("gone.jsonl", "-o", "o.jsonl"), "input is 'gone.jsonl', which is no file"),
        (("data", "-o", "o.jsonl", "--split-size", "big"), "split_size is 'big', must be a size"),
    ],
)
def test_what_could_not_be_done_is_refused_before_anything_is_written(tmp_path, words, said):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.jsonl").write_text('{"text": "a"}\n')
    before = set(tmp_path.rglob("*"))
    with answering() as server:
        status, told = run(tmp_path, server, *words)
        assert not server.asked
    assert status == 1
    assert said in told
    assert set(tmp_path.rglob("*")) == before | {tmp_path / "chain.yaml"}
