"""Rows from Parquet, Arrow and saved datasets: pyarrow and Hugging Face's library wrote them."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.chains.reading import Row, read_rows
from headrace.contracts.errors import LLMInvalidRequestError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

SAVED = Path(__file__).parent / "saved_dataset"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COLUMNS = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "large": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "real": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "text": (pa.string(), texts),
    "true": (pa.bool_(), st.booleans()),
    "list": (pa.list_(pa.string()), st.lists(st.none() | texts, max_size=3)),
    "fields": (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.float64()))]),
        st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.lists(st.just(0.5), max_size=2)}),
    ),
}


def written(folder: Path, columns: dict[str, Any], **more: Any) -> Path:
    parquet.write_table(pa.table(columns), folder / "in.parquet", **more)
    return folder / "in.parquet"


def plain(rows: list[Row]) -> list[object]:
    return [row.value for row in rows if row.wrong is None]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 12), st.integers(1, 5))
def test_what_json_can_say_is_read_as_it_was_written(tmp_path_factory, data, many, group):
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | each, min_size=many, max_size=many)), kind)
        for name, (kind, each) in COLUMNS.items()
    }
    path = written(tmp_path_factory.mktemp("in"), columns, row_group_size=group)
    assert plain(list(read_rows(path))) == pa.table(columns).to_pylist()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            pa.array([1_500_000_000_123_456_789], pa.timestamp("ns")),
            "2017-07-14T02:40:00.123456789",
        ),
        (pa.array([1_500_000_000], pa.timestamp("s", "Europe/Berlin")), "2017-07-14T02:40:00Z"),
        (pa.array([-1], pa.timestamp("ms")), "1969-12-31T23:59:59.999"),
        (pa.array([-1], pa.date32()), "1969-12-31"),
        (pa.array([86_400_000], pa.date64()), "1970-01-02"),
        (pa.array([3_723_000_000_001], pa.time64("ns")), "01:02:03.000000001"),
        (pa.array([-1500], pa.duration("ms")), "-PT1.5S"),
        (pa.array([Decimal("-1.50")]), "-1.50"),
        (pa.array([Decimal("1000")], pa.decimal128(7, -3)), "1000"),
        (pa.array([b"\x00\xff"]), "AP8="),
        (pa.array([b"\x00\xff"], pa.binary(2)), "AP8="),
        (pa.array([float("nan")]), None),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([[0]], pa.list_(pa.timestamp("s"))), ["1970-01-01T00:00:00"]),
        (pa.array([[0]], pa.large_list(pa.date32())), ["1970-01-01"]),
        (pa.array([{"a": 0}], pa.struct([("a", pa.date32())])), {"a": "1970-01-01"}),
        (pa.array([[("k", 0)]], pa.map_(pa.string(), pa.date32())), {"k": "1970-01-01"}),
        (pa.array([[(1, "v")]], pa.map_(pa.int64(), pa.string())), [[1, "v"]]),
        (pa.array([None], pa.null()), None),
    ],
)
def test_what_json_cannot_say_has_one_form(tmp_path, value, said):
    with pa.OSFile(str(tmp_path / "in.arrow"), "wb") as file:
        table = pa.table({"it": value})
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    assert plain(list(read_rows(tmp_path / "in.arrow"))) == [{"it": said}]


def test_only_the_rows_with_a_value_that_cannot_be_said_are_told_of(tmp_path):
    columns = {
        "id": [1, 2, 3, 4],
        "text": pa.array([b"a", b"\xff", b"c", b"d"]).view(pa.string()),
        "number": [1.0, 2.0, float("inf"), 4.0],
        "when": pa.array([0, 0, 0, 2**55], pa.timestamp("ms")),
    }
    rows = list(read_rows(written(tmp_path, columns)))
    assert [row.id for row in rows] == [1, 2, 3, 4]
    assert [row.wrong is None for row in rows] == [True, False, False, False]
    assert "the column 'text' cannot be read" in rows[1].wrong
    assert "the column 'number' cannot be read: inf" in rows[2].wrong
    assert "the column 'when' cannot be read" in rows[3].wrong
    json.dumps([dict(row.value) for row in rows]).encode()


def test_a_parquet_file_that_is_cut_or_spoilt_is_a_clear_error(tmp_path):
    path = written(
        tmp_path, {"text": ["x" * 40 + str(i) for i in range(2000)]}, row_group_size=1000
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(LLMInvalidRequestError, match="which is no whole Parquet file"):
        list(read_rows(path))
    path.write_bytes(b"")
    with pytest.raises(LLMInvalidRequestError, match="which is no whole Parquet file"):
        list(read_rows(path))
    second = parquet.ParquetFile(pa.BufferReader(whole)).metadata.row_group(1).column(0)
    at = second.dictionary_page_offset or second.data_page_offset
    path.write_bytes(whole[:at] + b"\x99" * 300 + whole[at + 300 :])
    numbers = []
    with pytest.raises(LLMInvalidRequestError, match="row group 1 cannot be read"):
        numbers.extend(row.number for row in read_rows(path))
    assert numbers == list(range(1000))


def test_an_arrow_file_and_a_cut_stream(tmp_path):
    table = pa.table({"id": [1, 2, 3]})
    for name, make in (("file.arrow", pa.ipc.new_file), ("cut.arrow", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / name), "wb") as file, make(file, table.schema) as out:
            out.write_table(table)
            out.write_table(table)
    assert [row.id for row in read_rows(tmp_path / "file.arrow")] == [1, 2, 3, 1, 2, 3]
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(LLMInvalidRequestError, match=r"cut\.arrow"):
        list(read_rows(cut))


def test_lines_that_zstd_packed_are_read(tmp_path):
    packed = pa.Codec("zstd").compress(b'{"id": 1}\n{"id": 2}\n', asbytes=True)
    (tmp_path / "in.jsonl.zst").write_bytes(packed + packed)
    assert [row.id for row in read_rows(tmp_path / "in.jsonl.zst")] == [1, 2, 1, 2]


def test_a_dataset_that_hugging_face_s_library_saved_is_read_as_that_reads_it():
    rows = plain(list(read_rows(SAVED)))
    assert [row["id"] for row in rows] == [3, 1, 2]
    assert rows[1]["text"] == "a"
    assert rows[0]["tags"] == ["y", "z"]
    assert rows[2]["label"] == 1
    assert {row["when"] for row in rows} == {"2024-01-02T03:04:05"}
    assert all(row["image"]["bytes"].startswith("iVBOR") for row in rows)


def test_datasets_that_the_library_here_saves_are_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    rows = [{"id": i, "text": f"row {i}"} for i in range(25)]
    made = datasets.Dataset.from_list(rows).shuffle(seed=3)
    made.save_to_disk(tmp_path / "one", num_shards=3)
    assert plain(list(read_rows(tmp_path / "one"))) == made.to_list() != rows
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "two")
    assert plain(list(read_rows(tmp_path / "two" / "test"))) == made.to_list()
    with pytest.raises(LLMInvalidRequestError, match=r"name one of them: .*two/train, "):
        read_rows(tmp_path / "two")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ("{}", "has no list '_data_files'"),
        ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "which is not beside it"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "which is not there"),
        ('{"_data_files": [], "_indices_data_files": [{}]}', "flatten_indices"),
    ],
)
def test_a_saved_dataset_that_is_not_whole_is_a_clear_error(tmp_path, state, said):
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(LLMInvalidRequestError, match=said):
        read_rows(tmp_path)


READ_LARGE = """
import sys
from pathlib import Path
from headrace.chains.reading import read_rows
count = 0
for row in read_rows(sys.argv[1]):
    count += 1
status = Path("/proc/self/status").read_text()
print(count, status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_rows_of_one_row_group(tmp_path):
    peaks = []
    for many in (5_000, 60_000):
        table = {"id": list(range(many)), "text": [f"{i:01000}" for i in range(many)]}
        path = written(
            tmp_path, table, row_group_size=many, use_dictionary=False, compression="none"
        )
        done = subprocess.run(
            [sys.executable, "-c", READ_LARGE, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        count, peak = map(int, done.stdout.split())
        assert count == many
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20_000  # kB, of 55,000 more that were read


def test_without_pyarrow_one_line_says_what_to_install(tmp_path):
    (tmp_path / "in.parquet").write_bytes(b"")
    text = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from headrace.chains.reading import read_rows\n"
        "from headrace.contracts.errors import LLMInvalidRequestError\n"
        "try:\n    list(read_rows(sys.argv[1]))\n"
        "except LLMInvalidRequestError as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path / "in.parquet")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs pyarrow, which is not installed: pip install 'headrace[parquet]'" in done.stdout
