"""Rows in: one after the other, however many there are. A row that cannot be read is told of as one."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from attrs import field, frozen
from msgspec import DecodeError, json

from headrace.chains.values import as_json
from headrace.contracts.errors import LLMInvalidRequestError

_MOST_LINE_BYTES = 64 << 20
_ID_BYTES = 8


@frozen
class Row:
    """One row of the input. ``wrong`` says why it could not be read; ``id`` is its own or made of it.

    ``beside`` are further columns of its results.
    """

    number: int
    id: str | int
    value: Mapping[str, Any]
    wrong: str | None = None
    beside: Mapping[str, Mapping[str, Any]] = field(factory=dict)


def read_rows(source: Path | str, *, id_column: str = "id") -> Iterator[Row]:
    """The rows of a JSONL or CSV file, or of standard input (``-``: JSONL).

    Raises LLMInvalidRequestError where the file is not there or is of another kind.
    """
    if str(source) == "-":
        return _identified(_of_lines(sys.stdin.buffer), id_column)
    path = Path(source)
    kind = path.suffix.lower()
    readers = {".jsonl": _lines_of, ".ndjson": _lines_of, ".csv": _csv_of}
    if kind not in readers:
        raise LLMInvalidRequestError(
            f"input is {str(path)!r}, must be one of {', '.join(readers)}, or - for JSONL on "
            "standard input",
            param="input",
        )
    if not path.is_file():
        raise LLMInvalidRequestError(f"input is {str(path)!r}, which is no file", param="input")
    return _identified(readers[kind](path), id_column)


def rows_of(values: Iterable[Mapping[str, Any]], *, id_column: str = "id") -> Iterator[Row]:
    """Rows that are there already."""
    return _identified(values, id_column)


@frozen
class _Wrong:
    said: str
    raw: str


def _identified(values: Iterable[object], id_column: str) -> Iterator[Row]:
    for number, value in enumerate(values):
        if isinstance(value, _Wrong):
            yield Row(number, _made_id(value.raw), {"raw": value.raw}, value.said)
        elif not isinstance(value, Mapping):
            said = f"the row is {type(value).__name__}, must be an object"
            yield Row(number, _made_id(value), {"raw": value}, said)
        else:
            own = value.get(id_column)
            if isinstance(own, int | str) and not isinstance(own, bool):
                yield Row(number, own, value)
            else:
                yield Row(number, _made_id(value), value)


def _made_id(value: object) -> str:
    return blake2b(as_json(value), digest_size=_ID_BYTES).hexdigest()


def _lines_of(path: Path) -> Iterator[object]:
    with path.open("rb") as file:
        yield from _of_lines(file)


def _of_lines(file: BinaryIO) -> Iterator[object]:
    decode = json.Decoder().decode
    while line := file.readline(_MOST_LINE_BYTES + 1):
        if len(line) > _MOST_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(_MOST_LINE_BYTES)
            yield _Wrong(f"the line is longer than {_MOST_LINE_BYTES} bytes", "")
            continue
        if not line.strip():
            continue
        try:
            yield decode(line)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield _Wrong(f"the line is not JSON: {error}", line[:2000].decode(errors="replace"))


def _csv_of(path: Path) -> Iterator[object]:
    csv.field_size_limit(_MOST_LINE_BYTES)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, restkey="", strict=False)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield _Wrong(f"line {reader.line_num} is not CSV: {error}", "")
                continue
            if row is None:
                return
            if "" in row:
                yield _Wrong(f"line {reader.line_num} has more fields than there are columns", "")
            elif None in row.values():
                yield _Wrong(f"line {reader.line_num} has fewer fields than there are columns", "")
            else:
                yield row
