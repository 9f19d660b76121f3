"""Rows in, from everything that holds lines, texts or images: none is lost, and each bad one is told."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.chains.reading import RepeatedIds, Row, is_within, read_rows, rows_of
from headrace.contracts.errors import LLMInvalidRequestError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def good(rows: list[Row]) -> list[object]:
    return [row.value for row in rows if row.wrong is None]


def bad(rows: list[Row]) -> list[tuple[int, str]]:
    return [(row.number, row.wrong) for row in rows if row.wrong is not None]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(texts, values, max_size=4), max_size=6))
def test_what_json_wrote_is_read_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("in") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert good(list(read_rows(path))) == rows


@settings(max_examples=60, deadline=None)
@given(
    columns=st.lists(texts, min_size=1, max_size=4, unique=True),
    rows=st.lists(st.lists(texts, min_size=4, max_size=4), max_size=6),
    dialect=st.sampled_from([("in.csv", "excel"), ("in.tsv", "excel-tab")]),
)
def test_what_csv_wrote_is_read_as_it_was(tmp_path_factory, columns, rows, dialect):
    path = tmp_path_factory.mktemp("in") / dialect[0]
    text = io.StringIO()
    writer = csv.writer(text, dialect[1], quoting=csv.QUOTE_ALL)
    writer.writerows([columns, *(row[: len(columns)] for row in rows)])
    path.write_bytes(text.getvalue().encode())
    wanted = [dict(zip(columns, row, strict=False)) for row in rows]
    assert good(list(read_rows(path))) == wanted


DEEP = b'{"id": "deep", "text": ' + b"[" * 5000 + b"]" * 5000 + b"}"
RATHER_DEEP = b'{"id": "rather deep", "text": ' + b"[" * 300 + b"]" * 300 + b"}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "\xff"}', "is not JSON"),
        (b'{"text": "cut', "is not JSON"),
        (b'{"text": NaN}', "is not JSON"),
        (b'{"text": "\\ud800"}', "is not JSON"),
        (b'{"text": 1e999}', "is not JSON"),
        (b"\x00\x00", "is not JSON"),
        (DEEP, "is not JSON"),
        (RATHER_DEEP, "nested more than 200 levels deep"),
        (b"[1, 2]", "must be an object"),
        (b"null", "must be an object"),
    ],
)
def test_a_line_that_cannot_be_a_row_is_told_of_and_the_others_are_read(tmp_path, line, said):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id": 1}\n' + line + b'\n{"id": 3}\n')
    rows = list(read_rows(path))
    assert good(rows) == [{"id": 1}, {"id": 3}]
    ((number, wrong),) = bad(rows)
    assert number == 1
    assert said in wrong


@pytest.mark.parametrize(
    "value",
    [
        10**400,
        -(2**70),
        "nul \x00 and so on",
        "x" * 1_000_000,
        "\u2028\ufeff",
        [[[[{"a": [None]}]]]],
    ],
)
def test_a_value_that_is_only_strange_is_read_as_it_is(tmp_path, value):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"text": value}) + "\n")
    assert good(list(read_rows(path))) == [{"text": value}]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"id": 1}\n')
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfid,text\n1,a\n")
    assert good(list(read_rows(tmp_path / "in.jsonl"))) == [{"id": 1}]
    assert good(list(read_rows(tmp_path / "in.csv"))) == [{"id": "1", "text": "a"}]


def test_a_table_s_line_that_is_not_utf_8_is_told_by_its_own_id(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"id,text\na,one\nb,tw\xff\nc,three\n")
    rows = list(read_rows(tmp_path / "in.csv"))
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert bad(rows) == [(1, f"{tmp_path / 'in.csv'}, line 3 is not UTF-8")]
    json.dumps(rows[1].value).encode()


def test_a_table_with_nul_bytes_and_an_index_without_a_name_is_read(tmp_path):
    (tmp_path / "in.csv").write_bytes(b",text\n0,a\x00b\n")
    assert good(list(read_rows(tmp_path / "in.csv"))) == [{"": "0", "text": "a\x00b"}]


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    (tmp_path / "in.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(LLMInvalidRequestError, match="has the column 'a' twice"):
        list(read_rows(tmp_path / "in.csv"))


def test_packed_lines_are_read_and_a_cut_file_is_a_clear_error(tmp_path):
    data = gzip.compress(b'{"id": 1}\n') + gzip.compress(b'{"id": 2}\n' * 1000)
    (tmp_path / "in.jsonl.gz").write_bytes(data)
    assert len(list(read_rows(tmp_path / "in.jsonl.gz"))) == 1001
    (tmp_path / "in.jsonl.gz").write_bytes(data[:-20])
    with pytest.raises(LLMInvalidRequestError, match=r"in\.jsonl\.gz', which cannot be read on"):
        list(read_rows(tmp_path / "in.jsonl.gz"))


def test_a_folder_of_texts_is_rows_by_their_paths_in_their_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("2")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "c.txt").write_bytes(b"\xff")
    (tmp_path / ".hidden").write_text("not this")
    rows = list(read_rows(tmp_path))
    assert good(rows) == [{"id": "a.txt", "text": "1"}, {"id": "b/two.md", "text": "2"}]
    assert [(row.id, row.wrong) for row in rows][2][0] == "c.txt"
    assert "c.txt is not UTF-8" in bad(rows)[0][1]


def test_a_folder_of_images_is_rows_of_paths(tmp_path):
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "a.JPG").write_bytes(b"")
    rows = list(read_rows(tmp_path))
    assert good(rows) == [
        {"id": "a.JPG", "image": str(tmp_path / "a.JPG")},
        {"id": "b.png", "image": str(tmp_path / "b.png")},
    ]


def test_a_folder_of_parts_and_a_pattern_are_read_in_the_order_of_their_names(tmp_path):
    for part in (2, 0, 1):
        (tmp_path / f"part-{part}.jsonl").write_text(f'{{"id": {part}}}\n')
    (tmp_path / "_SUCCESS").write_text("")
    assert [row.id for row in read_rows(tmp_path)] == [0, 1, 2]
    assert [row.id for row in read_rows(f"{tmp_path}/part-[12].*")] == [1, 2]
    assert [row.number for row in read_rows(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "source", "said"),
    [
        (["a.txt", "b.png"], "", "rows of several kinds; name those that you mean"),
        (["a.pdf"], "", "must be one of .jsonl"),
        ([], "", "where no file is"),
        ([], "*.jsonl", "where no file is"),
        ([], "in.jsonl", "which is no file and no folder"),
        (["in.json"], "in.json", "must be one of .jsonl"),
        (["a.txt.gz"], "", "must be one of .jsonl"),
    ],
)
def test_what_is_no_input_is_refused_before_anything_is_read(tmp_path, names, source, said):
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(LLMInvalidRequestError, match=said):
        read_rows(f"{tmp_path}/{source}")


def test_rows_of_python_that_json_cannot_say_are_told_of():
    rows = list(rows_of([{"id": 1}, {"id": object()}, {"a": "\ud800"}, {1: 2}, {"id": 5}]))
    assert good(rows) == [{"id": 1}, {"id": 5}]
    assert [number for number, _ in bad(rows)] == [1, 2, 3]
    for row in rows:
        json.dumps(row.value).encode()


def test_equal_rows_have_equal_ids_and_unequal_ones_have_not():
    a, b, c = rows_of([{"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 1, "y": 3}])
    assert a.id == b.id != c.id


def test_ids_that_occur_twice_are_counted_and_the_first_is_named(tmp_path):
    repeats = RepeatedIds(tmp_path)
    for number, id in enumerate([1, "1", 2, 1, "1", 3]):
        repeats.see(Row(number, id, {}))
    assert repeats.told() == ("2 rows have an id that a row before has too; the first is row 3, 1")
    assert list(tmp_path.iterdir()) == []
    repeats.close()


@pytest.mark.parametrize(
    ("output", "source", "within"),
    [
        ("data/out.jsonl", "data", True),
        ("out.jsonl", "data", False),
        ("data/out.jsonl", "data/*.jsonl", True),
        ("data/out.csv", "data/*.jsonl", False),
        ("data/more/out.jsonl", "data/*.jsonl", False),
        ("data/more/out.jsonl", "data/**/*.jsonl", True),
        ("data/in.jsonl", "./data/in.jsonl", True),
        ("out.jsonl", "-", False),
    ],
)
def test_an_output_that_would_be_read_the_next_time_is_known(
    tmp_path, monkeypatch, output, source, within
):
    (tmp_path / "data" / "more").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_within(Path(output), source) is within
