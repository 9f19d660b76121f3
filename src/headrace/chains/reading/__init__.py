"""Rows in: one after the other, however many there are. A row that cannot be read is told of as one."""

from headrace.chains.reading.repeats import RepeatedIds
from headrace.chains.reading.rows import Row, rows_of
from headrace.chains.reading.sources import is_within, read_rows

__all__ = ["RepeatedIds", "Row", "is_within", "read_rows", "rows_of"]
