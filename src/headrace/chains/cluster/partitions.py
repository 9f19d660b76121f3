"""The rows of a run in partitions: so many that follow one another, in a folder that all can reach.

A partition's folder has its rows, its journal, and in the end what came of them. How many rows a
partition has is decided once for a run, so that each finds its journal again.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from msgspec import DecodeError, json

from headrace.chains.reading import Row
from headrace.chains.runs import NAME as NOTE
from headrace.chains.walk import Came
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

NAME = "partitions"
_PLAN = "plan.json"
_ROWS, _CAME = "rows", "came"
_FORMAT = 1
_MOST_PARTITIONS = 64
_LEAST_ROWS, _MOST_ROWS = 20, 2000


class Partitions:
    """Those of the run in ``run_dir``; ``size`` rows each, the last one fewer."""

    def __init__(self, run_dir: Path, size: int) -> None:
        self.folder = run_dir / NAME
        self.size = size

    def at(self, number: int) -> Path:
        """The folder of the partition of that number."""
        return self.folder / f"{number:06}"

    def cut(self, rows: Iterable[Row]) -> tuple[int, int]:
        """Write ``rows`` into the partitions' folders; how many partitions and rows there are."""
        counted = number = 0
        all_rows = iter(rows)
        try:
            for first in all_rows:
                folder = self.at(number)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / _CAME).unlink(missing_ok=True)
                with (folder / _ROWS).open("wb") as file:
                    for row in chain((first,), islice(all_rows, self.size - 1)):
                        pickle.dump(row, file)
                        counted += 1
                number += 1
        except OSError as error:
            raise LLMUnavailableError(
                f"rows cannot be written to {str(self.folder)!r} ({error.strerror}): there must be "
                "room for all of them beside the journals"
            ) from error
        return number, counted

    def results(self, number: int) -> Iterator[tuple[Row, Came]]:
        """The rows of a partition that is done, with what came of each."""
        folder = self.at(number)
        yield from zip(_read(folder / _ROWS), _read(folder / _CAME), strict=True)

    def clear(self, count: int) -> None:
        """Take away what was written for a run that is over; journals stay."""
        for number in range(count):
            for name in (_ROWS, _CAME):
                (self.at(number) / name).unlink(missing_ok=True)


def rows_at(folder: Path) -> Iterator[Row]:
    """The rows of the partition in ``folder``."""
    return _read(folder / _ROWS)


class CameFile:
    """What came of a partition's rows, which has its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _CAME
        self._part = self._path.with_name(f"{_CAME}.part")
        self._file = self._part.open("wb")

    def add(self, came: Came) -> None:
        """That of one more row."""
        pickle.dump(came, self._file)

    def finish(self) -> None:
        """That was the last one."""
        self._file.close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Not all are there."""
        self._file.close()
        self._part.unlink()


def partitions_of(run_dir: Path, rows: Callable[[], Iterable[Row]], size: int | None) -> Partitions:
    """The partitions of the run in ``run_dir``, as they were cut the first time that it ran.

    Of ``size`` rows, else as many as make sixty-four partitions of 20 to 2,000 rows each. Raises
    LLMInvalidRequestError where the run has partitions of another size.
    """
    path = run_dir / NAME / _PLAN
    before = _planned(path)
    if before is not None:
        if size not in (None, before):
            raise LLMInvalidRequestError(
                f"partition_rows is {size}, and the run in {str(run_dir)!r} has partitions of "
                f"{before} rows; leave it out, or keep this run elsewhere",
                param="partition_rows",
            )
        return Partitions(run_dir, before)
    if size is None:
        count = sum(1 for _ in rows())
        size = min(max(-(-count // _MOST_PARTITIONS), _LEAST_ROWS), _MOST_ROWS)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{_PLAN}.part")
    part.write_bytes(json.encode({"format": _FORMAT, "rows": size}))
    part.replace(path)
    return Partitions(run_dir, size)


def check_place(run_dir: Path, *, on_cluster: bool) -> None:
    """Raises LLMInvalidRequestError where the run in ``run_dir`` was begun in the other way: its
    journals are elsewhere, and all would be asked again."""
    if not (run_dir / NOTE).exists() or (run_dir / NAME).exists() == on_cluster:
        return
    began, other = ("without --on", "--on ray") if on_cluster else ("with --on ray", "no --on")
    raise LLMInvalidRequestError(
        f"the run in {str(run_dir)!r} was begun {began}, and what was done there is not known with "
        f"{other}; go on as it was begun, or keep this one elsewhere (--run-dir)",
        param="on",
    )


def _planned(path: Path) -> int | None:
    if not path.exists():
        return None
    try:
        plan = json.decode(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise LLMInvalidRequestError(
            f"{str(path)!r} cannot be read: {error}", param="run_dir"
        ) from error
    if not isinstance(plan, dict) or plan.get("format") != _FORMAT:
        raise LLMInvalidRequestError(
            f"{str(path)!r} is not of format {_FORMAT}: it is another version's", param="run_dir"
        )
    return int(plan["rows"])


def _read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while True:
            try:
                # Written by this very run, in a folder whose journals decide the output anyway.
                yield pickle.load(file)  # noqa: S301
            except EOFError:
                return
