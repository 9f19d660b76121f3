"""Ids that occur more than once: told of, since what is joined by them would be mixed up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from headrace.chains.reading.rows import Row
from headrace.chains.values import as_json, key_of
from headrace.contracts.errors import LLMUnavailableError

_CACHE_KIB = 1024
_AT_ONCE = 500


class RepeatedIds:
    """Counts rows whose id a row before them has, in bounded memory: most ids lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self.first: Row | None = None
        self._folder = folder
        path = folder / "ids.tmp"
        path.unlink(missing_ok=True)
        self._seen = sqlite3.connect(path, isolation_level=None)
        self._seen.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")
        path.unlink()  # so that it goes with this process, however that ends
        self._open = 0

    def see(self, row: Row) -> None:
        """One more row."""
        try:
            is_new = self._is_new(key_of(as_json(row.id)))
        except sqlite3.Error as error:
            raise LLMUnavailableError(
                f"{str(self._folder)!r} cannot be written ({error}): what was done is kept; run it "
                "again when there is room"
            ) from error
        if not is_new:
            self.count += 1
            self.first = self.first or row

    def close(self) -> None:
        """Forget them."""
        self._seen.close()

    def _is_new(self, key: bytes) -> bool:
        if not self._open:
            self._seen.execute("BEGIN")
        is_new = self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount > 0
        self._open = (self._open + 1) % _AT_ONCE
        if not self._open:
            self._seen.execute("COMMIT")
        return is_new

    def told(self) -> str | None:
        """What there is to tell."""
        if self.first is None:
            return None
        many = "1 row has" if self.count == 1 else f"{self.count} rows have"
        return (
            f"{many} an id that a row before has too; the first is row {self.first.number}, "
            f"{self.first.id!r}"
        )
