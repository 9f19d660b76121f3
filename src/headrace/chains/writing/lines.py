"""Results as lines: JSON Lines, and a table of comma- or tab-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from headrace.chains.reading.rows import Row
from headrace.chains.values import as_json
from headrace.chains.writing.files import Files
from headrace.chains.writing.shapes import Shape, Shaping
from headrace.contracts.errors import LLMInvalidRequestError


class JsonLines:
    """One JSON value a line, shaped as told."""

    def __init__(self, files: Files, shape: Shape = "nested") -> None:
        self._files, self._shaping = files, Shaping(shape)

    def add(self, row: Row, value: Any) -> None:
        line = as_json(self._shaping.one(row, value)) + b"\n"
        self._files.makes_room(len(line))
        self._files.here.write(line)

    def finish(self) -> None:
        self._files.finish()

    def abandon(self) -> None:
        self._files.abandon()


class Table:
    """A table, whose columns are those of the first result; a later one must have no others.

    ``fields`` are those of the output's type: columns even where the first result lacks them. A
    value that is no text is JSON there, and one that is not there is an empty cell.
    """

    def __init__(
        self,
        files: Files,
        shape: Shape = "flat",
        fields: tuple[str, ...] = (),
        separator: str = ",",
    ) -> None:
        self._files, self._separator = files, separator
        self._shaping = Shaping("value" if shape == "value" else "flat")
        self._blank = dict.fromkeys(fields)
        self._columns: list[str] | None = None
        self._head = b""

    def add(self, row: Row, value: Any) -> None:
        if isinstance(value, Mapping):
            value = {**self._blank, **value}
        flat = self._shaping.columns(row, value)
        if self._columns is None:
            self._columns = list(flat)
            self._head = self._line(self._columns)
            self._files.here.write(self._head)
        others = [name for name in flat if name not in self._columns]
        if others:
            raise LLMInvalidRequestError(
                f"row {row.id!r} has the field {others[0]!r}, which the first row had not; write "
                "JSONL, or give the last step an output type",
                param="output",
            )
        line = self._line([_cell(flat.get(name)) for name in self._columns])
        if self._files.makes_room(len(line)):
            self._files.here.write(self._head)
        self._files.here.write(line)

    def finish(self) -> None:
        self._files.finish()

    def abandon(self) -> None:
        self._files.abandon()

    def _line(self, cells: list[str]) -> bytes:
        text = io.StringIO()
        # With another end of a line the writer would leave a lone \r without quotes.
        csv.writer(text, lineterminator="\r\n", delimiter=self._separator).writerow(cells)
        return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value).decode()
