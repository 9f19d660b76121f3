"""Ids that occur more than once: told of, since what is joined by them would be mixed up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from headrace.chains.reading.rows import Row
from headrace.chains.values import as_json, key_of
from headrace.contracts.errors import LLMUnavailableError

_CACHE_KIB = 1024
_AT_ONCE = 500
_MOST_CHARACTERS = 64
_INT64 = range(-(1 << 63), 1 << 63)


class RepeatedIds:
    """Counts rows whose id a row before them has, in bounded memory: most ids lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._first: tuple[int, str | int] | None = None
        # Keys with the number and the id of their row, which is held no longer.
        self._waiting: list[tuple[str | int | bytes, int, str | int]] = []
        path = folder / "ids.tmp"
        try:
            path.unlink(missing_ok=True)
            self._seen = sqlite3.connect(path, isolation_level=None)
            self._seen.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._seen.execute("PRAGMA journal_mode = OFF")
            # Of no type, so that 1 and '1' are two.
            self._seen.execute("CREATE TABLE seen (id PRIMARY KEY, number INTEGER) WITHOUT ROWID")
            path.unlink()  # so that it goes with this process, however that ends
        except (sqlite3.Error, OSError) as error:
            raise self._unwritable(error) from error

    def see(self, row: Row) -> None:
        """One more row."""
        self._waiting.append((_key(row.id), row.number, _cut(row.id)))
        if len(self._waiting) >= _AT_ONCE:
            self._look()

    @property
    def count(self) -> int:
        """How many there were."""
        self._look()
        return self._count

    def told(self) -> str | None:
        """What there is to tell."""
        count = self.count
        if self._first is None:
            return None
        number, id = self._first
        many = "1 row has" if count == 1 else f"{count} rows have"
        return f"{many} an id that a row before has too; the first is row {number}, {id!r}"

    def close(self) -> None:
        """Forget them."""
        self._seen.close()

    def _look(self) -> None:
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        keys = [(key, number) for key, number, _ in rows]
        try:
            self._seen.execute("BEGIN")
            done = self._seen.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", keys)
            self._seen.execute("COMMIT")
            self._count += len(rows) - done.rowcount
            if self._count and self._first is None:
                self._first = next(
                    (number, id) for key, number, id in rows if self._is_taken(key, number)
                )
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def _is_taken(self, key: object, number: int) -> bool:
        found = self._seen.execute("SELECT number FROM seen WHERE id = ?", (key,)).fetchone()
        return bool(found[0] != number)

    def _unwritable(self, error: Exception) -> LLMUnavailableError:
        return LLMUnavailableError(
            f"{str(self._folder)!r} cannot be written ({error}): what was done is kept; run it again "
            "when there is room"
        )


def _key(id: str | int) -> str | int | bytes:
    if isinstance(id, int):
        return id if id in _INT64 else str(id).encode()
    return id if len(id) <= _MOST_CHARACTERS else key_of(as_json(id))


def _cut(id: str | int) -> str | int:
    if isinstance(id, int) or len(id) <= _MOST_CHARACTERS:
        return id
    return f"{id[:_MOST_CHARACTERS]}..."
