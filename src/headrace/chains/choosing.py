"""Some of the rows, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

from headrace.chains.reading import Row

_BLOCK_BYTES = 1 << 20


def sampled(rows: Iterable[Row], size: int, seed: int) -> list[Row]:
    """``size`` of ``rows`` by chance, each as likely as any other, in the order of the input.

    The same for the same seed and rows; they are gone through once, and so many held at a time.
    """
    chance = Random(seed)  # noqa: S311  no secret hangs on it
    chosen: list[Row] = []
    for seen, row in enumerate(rows):
        if seen < size:
            chosen.append(row)
        elif (place := chance.randrange(seen + 1)) < size:
            chosen[place] = row
    return sorted(chosen, key=lambda row: row.number)


def rows_in(source: str) -> int | None:
    """About how many rows a file has, if that is quick to see: the lines of a JSONL file."""
    path = Path(source)
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return None
    lines, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                lines += block.count(b"\n")
                last = block
    except OSError:  # who reads it for its rows will say so
        return None
    return lines + (not last.endswith(b"\n"))
