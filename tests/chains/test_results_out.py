"""Results out: what is written can be read by others, and has its name only when it is whole."""

from __future__ import annotations

import csv
import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.chains import Apply, Chain, Step
from headrace.chains.reading import Row, read_rows, rows_of
from headrace.chains.writing import results_at, schema_of_results, size_of
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
inputs = st.lists(
    st.fixed_dictionaries({"text": texts, "number": st.none() | st.integers(0, 99)}),
    min_size=1,
    max_size=8,
)
SCHEMA = {
    "type": "object",
    "$defs": {"Size": {"enum": ["s", "m", None]}},
    "properties": {
        "text": {"type": "string"},
        "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "share": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "size": {"$ref": "#/$defs/Size"},
        "who": {"type": "object", "properties": {"age": {"type": "integer"}}},
    },
}
outputs = st.fixed_dictionaries(
    {"text": texts, "share": st.integers(0, 9) | st.floats(0, 1)},
    optional={
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "tags": st.lists(texts, max_size=3),
        "size": st.sampled_from(["s", "m", None]),
        "who": st.fixed_dictionaries({}, optional={"age": st.integers(0, 99)}),
    },
)


def write(path: Path | str, rows: list[Row], values: list[Any], shape: str, **more: Any) -> None:
    results = results_at(path, shape, **more)
    try:
        for row, value in zip(rows, values, strict=True):
            results.add(row, value)
        results.finish()
    except BaseException:
        results.abandon()
        raise


def some(many: int) -> list[Row]:
    return list(rows_of({"id": i, "text": f"row {i}"} for i in range(many)))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=inputs, split=st.none() | st.integers(1, 200))
def test_json_reads_the_lines_that_were_written(tmp_path_factory, data, rows, split):
    folder = tmp_path_factory.mktemp("out")
    values = [data.draw(st.dictionaries(texts, scalars, max_size=3)) for _ in rows]
    write(folder / "out.jsonl", list(rows_of(rows)), values, "nested", split_bytes=split)
    files = sorted(folder.iterdir())
    lines = [json.loads(line) for path in files for line in path.read_text().split("\n") if line]
    assert [line["input"] for line in lines] == rows
    assert [line["output"] for line in lines] == values
    if split is not None:
        assert all(p.stat().st_size <= split or p.read_bytes().count(b"\n") == 1 for p in files)


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    rows=inputs,
    split=st.none() | st.integers(1, 200),
    kind=st.sampled_from([".csv", ".tsv"]),
)
def test_csv_reads_the_table_that_was_written(tmp_path_factory, data, rows, split, kind):
    folder = tmp_path_factory.mktemp("out")
    values = [data.draw(outputs) for _ in rows]
    more = {"split_bytes": split, "schema": SCHEMA}
    write(folder / f"out{kind}", list(rows_of(rows)), values, "flat", **more)
    found: list[dict[str, str]] = []
    for path in sorted(folder.iterdir()):
        text = io.StringIO(path.read_bytes().decode(), newline="")
        found += csv.DictReader(text, delimiter="\t" if kind == ".tsv" else ",")
    assert len(found) == len(rows)
    for one, row, value in zip(found, rows, values, strict=True):
        assert one["text"] == row["text"]
        assert one["output.text"] == value["text"]
        assert one["number"] == ("" if row["number"] is None else str(row["number"]))
        assert json.loads(one["tags"] or "null") == value.get("tags")


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    rows=inputs,
    shape=st.sampled_from(["nested", "flat", "value"]),
    split=st.none() | st.integers(1, 2000),
)
def test_pyarrow_reads_the_parquet_file_that_was_written(
    tmp_path_factory, data, rows, shape, split
):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("out")
    values = [data.draw(outputs) for _ in rows]
    more = {"split_bytes": split, "schema": SCHEMA}
    write(folder / "out.parquet", list(rows_of(rows)), values, shape, **more)
    found = [
        row for path in sorted(folder.iterdir()) for row in parquet.read_table(path).to_pylist()
    ]
    whole = [{**dict.fromkeys(SCHEMA["properties"]), **value} for value in values]
    for value in whole:
        if value["who"] is not None:
            value["who"] = {"age": value["who"].get("age")}
    if shape == "nested":
        assert [one["output"] for one in found] == whole
        assert [one["input"] for one in found] == rows
    elif shape == "value":
        assert found == whole
    else:
        assert [one["output.text"] for one in found] == [value["text"] for value in values]
        assert [one["text"] for one in found] == [row["text"] for row in rows]
        assert [one["who"] for one in found] == [value["who"] for value in whole]


def test_what_was_written_as_parquet_is_an_input_as_it_was(tmp_path):
    pytest.importorskip("pyarrow")
    write(tmp_path / "out.parquet", some(30), [{"n": i} for i in range(30)], "flat")
    found = [dict(row.value) for row in read_rows(tmp_path / "out.parquet")]
    assert found == [{"id": i, "text": f"row {i}", "n": i} for i in range(30)]


def test_parquet_is_written_by_row_groups_and_the_same_bytes_each_time(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [Row(i, i, {"id": i, "text": f"{i:02000}"}) for i in range(20_000)]
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path / name, rows, [f"{i}" for i in range(20_000)], "nested")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    about = parquet.ParquetFile(tmp_path / "a.parquet").metadata
    assert about.num_rows == 20_000
    assert about.num_row_groups > 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1] * 10_001 + ["x"], r"row 10001: output is 'x', and that column holds whole numbers"),
        ([{"a": 1}] * 10_001 + [{"b": 1}], r"row 10001: b is 1, and that column holds no such"),
        ([{"a": [1]}, {"a": ["x"]}], r"of the first 2 rows, a\[\] is 'x'"),
        ([1, "x"], r"of the first 2 rows, output is 'x'"),
        ([2**64], r"row 0: output is 18446744073709551616, .* 64 bits"),
    ],
)
def test_a_value_that_does_not_fit_a_parquet_column_is_told_with_its_row(tmp_path, values, said):
    pytest.importorskip("pyarrow")
    rows = [Row(i, i, {"id": i}) for i in range(len(values))]
    with pytest.raises(LLMInvalidRequestError, match=said):
        write(tmp_path / "out.parquet", rows, values, "flat")
    assert not (tmp_path / "out.parquet").exists()


def test_what_is_empty_in_the_first_rows_and_what_a_schema_leaves_open_are_text(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = list(rows_of([{"none": None}, {"none": None}]))
    schema = {"type": "object", "properties": {"free": {}, "map": {"type": "object"}}}
    values = [{"free": 1, "map": {"k": [1]}}, {"free": "x", "map": {}}]
    write(tmp_path / "out.parquet", rows, values, "flat", schema=schema)
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(f["none"], f["free"], f["map"]) for f in found] == [
        (None, "1", '{"k":[1]}'),
        (None, '"x"', "{}"),
    ]


def test_ids_of_which_some_are_text_are_text_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "out.parquet", [Row(0, 1, {}), Row(1, "x", {})], ["a", "b"], "nested")
    assert parquet.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["1", "x"]


def test_a_run_without_results_still_writes_a_file_that_can_be_read(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "out.parquet", [], [], "value", schema=SCHEMA)
    assert parquet.read_table(tmp_path / "out.parquet").column_names == list(SCHEMA["properties"])
    write(tmp_path / "none.parquet", [], [], "nested")
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0
    write(tmp_path / "out.jsonl", [], [], "value", split_bytes=10)
    assert (tmp_path / "out-00001.jsonl").read_bytes() == b""


def test_fields_that_are_called_as_columns_are_keep_both(tmp_path):
    rows = list(rows_of([{"text": "own"}, {"other": 1}]))
    write(tmp_path / "out.jsonl", rows, [{"text": "a", "id": 5}, {"text": "b"}], "flat")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first == {"id": rows[0].id, "text": "own", "output.text": "a", "output.id": 5}
    assert second == {"id": rows[1].id, "other": 1, "output.text": "b"}


def test_files_of_a_size_have_their_names_only_when_all_are_whole(tmp_path):
    for number in (1, 7):
        (tmp_path / f"out-{number:05}.jsonl").write_text("of an earlier run")
    (tmp_path / "out-more.jsonl").write_text("somebody's")
    results = results_at(tmp_path / "out.jsonl", "value", split_bytes=30)
    for row in some(6):
        results.add(row, "x" * 20)
    assert (tmp_path / "out-00001.jsonl").read_text() == "of an earlier run"
    results.finish()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"out-{i:05}.jsonl" for i in range(1, 7)), "out-more.jsonl"]


def test_what_is_abandoned_has_no_name(tmp_path):
    for name in ("out.jsonl", "out.csv"):
        results = results_at(tmp_path / name)
        results.add(some(1)[0], "x")
        results.abandon()
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl.part", "out.csv.part"}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_full_disk_is_a_clear_error(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(LLMUnavailableError, match=r"File too large.*what was done is kept"):
            write(tmp_path / name, some(3), ["x"] * 3, "flat")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / name).exists()


def test_two_runs_do_not_write_one_file(tmp_path):
    first = results_at(tmp_path / "out.jsonl", split_bytes=10)
    for row in some(4):
        first.add(row, "x")
    with pytest.raises(LLMInvalidRequestError, match="which another process works on"):
        results_at(tmp_path / "out.jsonl", split_bytes=10)
    first.finish()
    results_at(tmp_path / "out.jsonl", split_bytes=10).abandon()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("256MB", 256_000_000), ("1.5 kB", 1500), ("1GiB", 1 << 30), ("2mib", 2 << 20)],
)
def test_sizes_are_read(text, size):
    assert size_of(text, "split_size") == size


@pytest.mark.parametrize("text", ["", "0", "MB", "-1MB", "1 TB", "1e3", "five"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(LLMInvalidRequestError, match=r"split_size is .*, must be a size such as"):
        size_of(text, "split_size")


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("out.xlsx", {}, "must end in .jsonl, .csv, .tsv or .parquet"),
        ("-", {"split_bytes": 10}, "split_size is given, and the output is standard output"),
        ("gone/out.jsonl", {}, "which cannot be written: No such file or directory"),
    ],
)
def test_what_is_no_output_is_refused(tmp_path, monkeypatch, output, more, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LLMInvalidRequestError, match=said):
        results_at(output, **more)


def test_what_comes_out_of_a_chain_is_known_by_its_last_node():
    step = Step(id="a", engine="e", user="x")
    typed = Step(id="b", engine="e", user="x", output=SCHEMA)
    keep = Apply(id="c", function=bool, how="filter")
    assert schema_of_results(Chain(step)) == {"type": "string"}
    assert schema_of_results(Chain(step >> typed)) == SCHEMA
    assert schema_of_results(Chain(typed >> keep)) is None
    assert schema_of_results(Chain(typed | step)) is None
