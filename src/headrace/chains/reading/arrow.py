"""Rows from Arrow's formats, a batch at a time: Parquet files, and Arrow files and streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from headrace.chains.reading.plain import Saying
from headrace.chains.reading.rows import Wrong, shown
from headrace.contracts.errors import LLMInvalidRequestError

_MOST_ROWS = 1024
_BATCH_BYTES = 2 << 20
_BUFFER_BYTES = 1 << 18


def arrow(what: str) -> Any:
    """pyarrow, or an error that says what ``what`` needs."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise LLMInvalidRequestError(
            f"{what} needs pyarrow, which is not installed: pip install 'headrace[parquet]'",
            param="input",
        ) from error


def of_parquet(path: Path, _: str) -> Iterator[object]:
    """The rows of a Parquet file; of a row group only what is being read is in memory."""
    pa = arrow(str(path))
    parquet = import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise LLMInvalidRequestError(
            f"input is {str(path)!r}, which is no whole Parquet file: {error}", param="input"
        ) from error
    with file:
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            batches = file.iter_batches(
                batch_size=_rows_at_once(about.total_byte_size, about.num_rows),
                row_groups=[group],
                use_threads=False,
            )
            yield from of_batches(batches, f"{path}, row group {group}", pa)


def of_arrow(path: Path, _: str) -> Iterator[object]:
    """The rows of an Arrow file or stream."""
    pa = arrow(str(path))
    place = str(path)
    try:
        with pa.memory_map(place) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                reader = pa.ipc.open_file(file)
                batches: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(file))
            yield from of_batches(batches, place, pa)
    except (pa.ArrowException, OSError) as error:
        raise LLMInvalidRequestError(
            f"input is {place!r}, which is no whole Arrow file: {error}", param="input"
        ) from error


def opened_zstd(path: Path) -> BinaryIO:
    """What a file holds that zstd packed."""
    pa = arrow(str(path))
    packed = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
    return cast(BinaryIO, BufferedReader(packed))


def of_batches(batches: Iterable[Any], place: str, pa: Any) -> Iterator[object]:
    """The rows of record batches; raises LLMInvalidRequestError where no more can be read."""
    saying: Saying | None = None
    left = iter(batches)
    while True:
        try:
            batch = next(left, None)
            if batch is None:
                return
            # Whoever follows a spoilt length leaves the memory that is his.
            batch.validate()
            saying = saying or Saying(batch.schema, place, pa)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise LLMInvalidRequestError(
                f"{place} cannot be read: {error}; the rows before it are kept", param="input"
            ) from error
        many = _rows_at_once(batch.nbytes, batch.num_rows)
        for at in range(0, batch.num_rows, many):
            yield from _of_slice(batch.slice(at, many), saying, pa)


def _rows_at_once(size: int, rows: int) -> int:
    each = size // max(rows, 1)
    return max(1, min(_MOST_ROWS, _BATCH_BYTES // max(each, 1)))


def _of_slice(batch: Any, saying: Saying, pa: Any) -> Iterator[object]:
    try:
        values = saying.rows(batch)
    except (pa.ArrowException, ValueError, OverflowError):
        if batch.num_rows > 1:
            for at in range(batch.num_rows):
                yield from _of_slice(batch.slice(at, 1), saying, pa)
            return
        yield _wrong_of(batch, saying, pa)
        return
    yield from values


def _wrong_of(batch: Any, saying: Saying, pa: Any) -> Wrong:
    """Which column of the one row in ``batch`` cannot be said, and what the others are."""
    said = ""
    whole: dict[str, Any] = {}
    for name in batch.schema.names:
        try:
            (one,) = saying.rows(batch.select([name]))
            whole.update(one)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            said = said or f"the column {name!r} cannot be read: {error}"
    return Wrong(said, shown(whole), whole)
