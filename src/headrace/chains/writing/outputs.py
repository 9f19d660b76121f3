"""Where results go, by the name of the output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from headrace.chains.reading.rows import Row
from headrace.chains.writing.files import Files
from headrace.chains.writing.lines import JsonLines, Table
from headrace.chains.writing.shapes import Shape
from headrace.contracts.errors import LLMInvalidRequestError


class Results(Protocol):
    """Where results go."""

    def add(self, row: Row, value: Any) -> None:
        """One more of ``row``."""

    def finish(self) -> None:
        """All are there."""

    def abandon(self) -> None:
        """They are not, and what was written keeps the name that it has meanwhile."""


def results_at(
    output: Path | str,
    shape: Shape = "nested",
    *,
    split_bytes: int | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Results:
    """Where results are written: a .jsonl, .csv, .tsv or .parquet file, or standard output (``-``).

    ``split_bytes`` makes several files of that size of it; ``schema`` is the JSON Schema of what
    comes, where that is known.
    """
    if str(output) == "-":
        if split_bytes is not None:
            raise LLMInvalidRequestError(
                "split_size is given, and the output is standard output; name a file",
                param="split_size",
            )
        return JsonLines(Files(None), shape)
    path = Path(output)
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        return JsonLines(Files(path, split_bytes), shape)
    if kind in (".csv", ".tsv"):
        fields = tuple((schema or {}).get("properties", ()))
        return Table(Files(path, split_bytes), shape, fields, "," if kind == ".csv" else "\t")
    if kind == ".parquet":
        from headrace.chains.writing.parquet import Parquet

        return Parquet(Files(path, split_bytes), shape, schema)
    raise LLMInvalidRequestError(
        f"output is {str(path)!r}, must end in .jsonl, .csv, .tsv or .parquet, or be - for standard "
        "output",
        param="output",
    )
