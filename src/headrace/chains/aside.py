"""What is remembered for as long as a run lasts, however much it becomes."""

from __future__ import annotations

import sqlite3

from headrace.chains.journal import Done

_IN_MEMORY = 1000


class Aside:
    """Results that the journal does not keep, by key: the first thousand in memory, further ones in
    a file that goes with the process."""

    def __init__(self) -> None:
        self._near: dict[bytes, Done] = {}
        self._far: sqlite3.Connection | None = None

    def get(self, key: bytes) -> Done | None:
        """What was put there as ``key``; None where nothing was."""
        found = self._near.get(key)
        if found is not None or self._far is None:
            return found
        row = self._far.execute("SELECT value FROM aside WHERE key = ?", (key,)).fetchone()
        return None if row is None else Done(row[0], failed=True, passing=True)

    def put(self, key: bytes, done: Done) -> None:
        """Remember ``done``, a failure that may pass."""
        if len(self._near) < _IN_MEMORY:
            self._near[key] = done
            return
        if self._far is None:
            # An empty name: SQLite's own temporary file, of which only a small part is in memory.
            self._far = sqlite3.connect("", isolation_level=None)
            self._far.execute("PRAGMA journal_mode = OFF")
            self._far.execute("CREATE TABLE aside (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
        self._far.execute("INSERT OR REPLACE INTO aside VALUES (?, ?)", (key, done.value))

    def close(self) -> None:
        """Forget all of it."""
        self._near.clear()
        if self._far is not None:
            self._far.close()
            self._far = None
