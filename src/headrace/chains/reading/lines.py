"""Rows from text: JSON Lines, and tables of comma- or tab-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import DecodeError, json

from headrace.chains.reading.rows import Wrong, shown
from headrace.contracts.errors import LLMInvalidRequestError

MOST_ROW_BYTES = 64 << 20
_MOST_DEEP = 200  # what is nested deeper would exhaust the stack further on
_BOM = b"\xef\xbb\xbf"


def of_json_lines(file: BinaryIO, place: str) -> Iterator[object]:
    """The values of JSON Lines; empty lines are none."""
    decode = json.Decoder().decode
    number = 0
    while line := file.readline(MOST_ROW_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > MOST_ROW_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MOST_ROW_BYTES)
            yield Wrong(f"{place}, line {number} is longer than {MOST_ROW_BYTES} bytes")
            continue
        if not line.strip():
            continue
        try:
            value = decode(line)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Wrong(f"{place}, line {number} is not JSON: {error}", shown(line))
            continue
        if line.count(b"[") + line.count(b"{") > _MOST_DEEP and _depth(value) > _MOST_DEEP:
            said = f"{place}, line {number} is nested more than {_MOST_DEEP} levels deep"
            yield Wrong(said, shown(line))
            continue
        yield value


def of_commas(file: BinaryIO, place: str) -> Iterator[object]:
    """The rows of a CSV file, each a mapping from column to text."""
    return _of_table(file, place, ",")


def of_tabs(file: BinaryIO, place: str) -> Iterator[object]:
    """The rows of a TSV file."""
    return _of_table(file, place, "\t")


def _of_table(file: BinaryIO, place: str, separator: str) -> Iterator[object]:
    csv.field_size_limit(MOST_ROW_BYTES)
    # What is not UTF-8 comes as lone surrogates, which no text has, so its row can be told.
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, delimiter=separator)
        columns = _columns(reader, place)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Wrong(f"{place}, line {reader.line_num} is not CSV: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield _of_cells(columns, cells, f"{place}, line {reader.line_num}")


def _of_cells(columns: list[str], cells: list[str], place: str) -> dict[str, str] | Wrong:
    if len(cells) != len(columns):
        more = "more" if len(cells) > len(columns) else "fewer"
        said = f"{place} has {more} fields than there are columns"
        return Wrong(said, shown(",".join(cells)))
    row = dict(zip(columns, cells, strict=True))
    if _is_text(cells):
        return row
    found = {name: cell for name, cell in row.items() if _is_text([cell])}
    return Wrong(f"{place} is not UTF-8", shown(",".join(cells)), found)


def _columns(reader: Iterator[list[str]], place: str) -> list[str]:
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise LLMInvalidRequestError(
            f"{place}: the line of column names is not CSV: {error}", param="input"
        ) from error
    if not _is_text(columns):
        raise LLMInvalidRequestError(f"{place}: the column names are not UTF-8", param="input")
    twice = [name for at, name in enumerate(columns) if name in columns[:at]]
    if twice:
        raise LLMInvalidRequestError(
            f"{place} has the column {twice[0]!r} twice; give one another name", param="input"
        )
    return columns


def _is_text(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: object) -> int:
    deepest, left = 0, [(value, 1)]
    while left:
        each, depth = left.pop()
        deepest = max(deepest, depth)
        if isinstance(each, dict):
            left.extend((one, depth + 1) for one in each.values())
        elif isinstance(each, list):
            left.extend((one, depth + 1) for one in each)
    return deepest
