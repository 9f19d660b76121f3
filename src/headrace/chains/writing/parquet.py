"""Results as a Parquet file, a row group at a time.

Its columns are what the output's type says, and for all else what the first rows say.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from headrace.chains.reading.arrow import arrow
from headrace.chains.reading.rows import Row
from headrace.chains.values import as_json
from headrace.chains.writing.columns import (
    COLUMNS,
    ID,
    Column,
    Fields,
    Misfit,
    all_whole,
    column_for,
    column_of,
    fields_of,
)
from headrace.chains.writing.files import Files
from headrace.chains.writing.shapes import Shape, Shaping
from headrace.contracts.errors import LLMError, LLMInvalidRequestError

_FIRST_ROWS = 10_000  # from which columns are learnt
_FIRST_BYTES = 4 << 20
_BATCH_ROWS = 512
_BATCH_BYTES = 2 << 20
_GROUP_BYTES = 16 << 20


class Parquet:
    """A Parquet file; a value that does not fit the columns is an error that names its row.

    What ``schema`` leaves open, and a column that is empty in all of the first rows, is text.
    """

    def __init__(self, files: Files, shape: Shape, schema: Mapping[str, Any] | None = None) -> None:
        self._pa = arrow("a Parquet file as output")
        self._parquet = import_module("pyarrow.parquet")
        self._files, self._shaping, self._schema = files, Shaping(shape), schema
        self._known: dict[str, Column] = {}
        self._fields = dict.fromkeys(fields_of(schema) or ())
        self._is_first = True
        most = files.split_bytes or _GROUP_BYTES
        self._batch_bytes, self._group_bytes = (
            min(_BATCH_BYTES, most // 4),
            min(_GROUP_BYTES, most // 2),
        )
        self._table: Fields | None = None
        self._arrow: Any = None
        self._first: list[tuple[str | int, dict[str, Any]]] = []
        self._rows: list[dict[str, Any]] = []
        self._rows_bytes = 0
        self._batches: list[Any] = []
        self._writer: Any = None

    def add(self, row: Row, value: Any) -> None:
        if self._is_first:
            self._known, self._is_first = self._known_for(row), False
        if isinstance(value, Mapping):
            value = {**self._fields, **value}
        columns = self._shaping.columns(row, value)
        if self._table is not None:
            self._take(self._table, row.id, columns)
            return
        self._first.append((row.id, columns))
        self._rows_bytes += len(as_json(columns))
        if len(self._first) >= _FIRST_ROWS or self._rows_bytes >= _FIRST_BYTES:
            self._learn()

    def finish(self) -> None:
        if self._table is None:
            if self._is_first:
                self._known = self._known_for(Row(0, "", {}))
            self._learn()
        self._flush()
        self._write_group()
        self._end_file()
        self._files.finish()

    def abandon(self) -> None:
        try:
            if self._writer is not None:
                self._end_file()
        except (LLMError, self._pa.ArrowException):
            pass  # what is not whole cannot be written either, which was told
        self._files.abandon()

    def _learn(self) -> None:
        """Which columns there are, from the first rows."""
        self._table = self._learnt()
        columns = self._table.each.items()
        self._arrow = self._pa.schema([(name, each.arrow(self._pa)) for name, each in columns])
        first, self._first, self._rows_bytes = self._first, [], 0
        for id, row in first:
            self._take(self._table, id, row)

    def _take(self, table: Fields, id: str | int, columns: dict[str, Any]) -> None:
        try:
            self._rows.append(table.fit(columns, ""))
        except Misfit as error:
            raise _conflict(f"row {id!r}: {error}") from error
        self._rows_bytes += len(as_json(columns))
        if len(self._rows) >= _BATCH_ROWS or self._rows_bytes >= self._batch_bytes:
            self._flush()

    def _flush(self) -> None:
        """The rows so far as a batch, which takes less room than they do."""
        if self._rows:
            batch = self._pa.RecordBatch.from_pylist(self._rows, schema=self._arrow)
            self._batches.append(batch)
        self._rows, self._rows_bytes = [], 0
        if sum(batch.nbytes for batch in self._batches) >= self._group_bytes:
            self._write_group()

    def _write_group(self) -> None:
        size = sum(batch.nbytes for batch in self._batches)
        if self._writer is not None and self._files.is_too_full_for(size):
            self._end_file()
            self._files.next()
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(
                self._files.here, self._arrow, compression="zstd"
            )
        if self._batches:
            table = self._pa.Table.from_batches(self._batches, self._arrow)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._batches = []

    def _end_file(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()

    def _learnt(self) -> Fields:
        names = dict.fromkeys(name for _, columns in self._first for name in columns)
        names.update(dict.fromkeys(self._known))
        try:
            return Fields({name: self._column(name) for name in names})
        except Misfit as error:
            raise _conflict(f"of the first {len(self._first)} rows, {error}") from error

    def _column(self, name: str) -> Column:
        if name in self._known:
            return self._known[name]
        values = [columns.get(name) for _, columns in self._first]
        if name == "id" and self._shaping.shape == "nested" and not all_whole(values):
            return ID
        return column_for(values, name)

    def _known_for(self, row: Row) -> dict[str, Column]:
        """The columns that the output's type tells, by the names that they have beside ``row``."""
        if self._schema is None:
            return {}
        output = column_of(self._schema, self._schema)
        fields = output.each if isinstance(output, Fields) else output
        is_nested = self._shaping.shape == "nested"
        named = self._shaping.columns(row, output if is_nested else fields)
        return {name: each for name, each in named.items() if isinstance(each, COLUMNS)}


def _conflict(said: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"{said}; write JSONL, or give the last step an output type", param="output"
    )
