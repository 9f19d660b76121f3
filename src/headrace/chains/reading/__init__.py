"""Rows in: one after the other, however many there are. A row that cannot be read is told of as one."""

from headrace.chains.reading.rows import Row, rows_of
from headrace.chains.reading.sources import read_rows

__all__ = ["Row", "read_rows", "rows_of"]
