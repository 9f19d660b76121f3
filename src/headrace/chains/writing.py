"""Results out: in the order of the input, and under their own name only when all are there."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

from headrace.chains.reading import Row
from headrace.chains.values import as_json
from headrace.chains.walk import Failed
from headrace.contracts.errors import LLMInvalidRequestError

Shape: TypeAlias = Literal["nested", "flat", "value"]


class Results(Protocol):
    """Where results go."""

    def add(self, row: Row, value: Any) -> None:
        """One more of ``row``."""

    def finish(self) -> None:
        """All are there."""

    def abandon(self) -> None:
        """They are not, and what was written stays under its own name."""


class _File:
    """Lines into ``path.part``, which becomes ``path`` at the end."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._part = None if path is None else path.with_name(path.name + ".part")
        try:
            self._file: BinaryIO = (
                sys.stdout.buffer
                if self._part is None
                else self._part.open("wb", buffering=1 << 16)
            )
        except OSError as error:
            raise LLMInvalidRequestError(
                f"output is {str(path)!r}, which cannot be written: {error.strerror}",
                param="output",
            ) from error

    def write(self, line: bytes) -> None:
        self._file.write(line)

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        self._file.flush()
        if self._part is None or self.path is None:
            return
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)

    def abandon(self) -> None:
        self._file.flush()
        if self._part is not None:
            self._file.close()


class JsonLines:
    """One JSON object a line, shaped as told.

    ``nested``: ``id``, ``input`` and ``output``; ``flat``: the input's columns and the output's
    fields side by side; ``value``: the output alone.
    """

    def __init__(self, path: Path | None, shape: Shape = "nested") -> None:
        self._file, self._shape = _File(path), shape

    def add(self, row: Row, value: Any) -> None:
        self._file.write(as_json(shaped(row, value, self._shape)) + b"\n")

    def finish(self) -> None:
        self._file.finish()

    def abandon(self) -> None:
        self._file.abandon()


class Csv:
    """A table; its columns are those of the first result, and a later one must have no others."""

    def __init__(self, path: Path | None) -> None:
        self._file = _File(path)
        self._columns: list[str] | None = None

    def add(self, row: Row, value: Any) -> None:
        flat = shaped(row, value, "flat")
        if self._columns is None:
            self._columns = list(flat)
            self._line(self._columns)
        others = [name for name in flat if name not in self._columns]
        if others:
            raise LLMInvalidRequestError(
                f"row {row.id!r} has the field {others[0]!r}, which the first row had not; write "
                "JSONL, or give the last step an output type",
                param="output",
            )
        self._line([_cell(flat.get(name)) for name in self._columns])

    def finish(self) -> None:
        self._file.finish()

    def abandon(self) -> None:
        self._file.abandon()

    def _line(self, cells: list[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode())


class Errors:
    """``errors.jsonl``: each value that failed, where and why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file = _File(path)

    def add(self, row: Row, failed: Failed) -> None:
        self.count += 1
        line = {
            "id": row.id,
            "row": row.number,
            "node": failed.node,
            "error": failed.error,
            "message": failed.message,
            "input": failed.item.value,
        }
        self._file.write(as_json(line) + b"\n")
        self._file.flush()  # for whoever follows the run

    def finish(self) -> None:
        self._file.finish()

    def abandon(self) -> None:
        self._file.abandon()


def results_at(output: Path | str, shape: Shape = "nested") -> Results:
    """Where results are written: a .jsonl or .csv file, or standard output (``-``)."""
    if str(output) == "-":
        return JsonLines(None, shape)
    path = Path(output)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return JsonLines(path, shape)
    if path.suffix.lower() == ".csv":
        return Csv(path)
    raise LLMInvalidRequestError(
        f"output is {str(path)!r}, must end in .jsonl or .csv, or be - for standard output",
        param="output",
    )


def shaped(row: Row, value: Any, shape: Shape) -> Any:
    """One result as it is written."""
    if shape == "value":
        return value
    if shape == "nested":
        return {"id": row.id, "input": row.value, "output": value, **row.beside}
    fields = value if isinstance(value, Mapping) else {"output": value}
    own = {(f"output.{name}" if name in row.value else name): each for name, each in fields.items()}
    beside = {f"{at}.{name}": each for at, of in row.beside.items() for name, each in of.items()}
    return {**({} if "id" in row.value else {"id": row.id}), **row.value, **own, **beside}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value).decode()
