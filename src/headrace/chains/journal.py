"""What has been done, so that nothing is done twice: one SQLite file a run.

Results are written behind, several in one transaction, by a thread of their own; what is not
written yet is answered from memory. A process that is killed loses what it did in the last tenth
of a second at most, and does that again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_WAIT_S = 0.1
_MOST_AT_ONCE = 2000
_FORMAT = 1


@frozen
class Done:
    """What a node made of one value: JSON, or the reason why it made nothing.

    A reason that may be ``passing`` (nobody answered, say) is not kept: the next run tries again.
    """

    value: bytes
    failed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price_usd: str | None = None
    passing: bool = False


class Journal:
    """The results of one run in ``folder``; another run on the same folder is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: dict[bytes, Done] = {}
        self._writing: dict[bytes, Done] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._failure: Exception | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LLMInvalidRequestError(
                f"the run cannot be kept in {str(folder)!r}: {error.strerror}", param="run_dir"
            ) from error
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._held)
            raise LLMInvalidRequestError(
                f"another process works on the run in {str(folder)!r}; wait until it ends, or keep "
                "this one elsewhere",
                param="run_dir",
            ) from error
        try:
            self._reader = self._opened()
            self._begin()
        except sqlite3.Error as error:
            os.close(self._held)
            raise LLMInvalidRequestError(
                f"the journal in {str(folder)!r} cannot be used: {error}", param="run_dir"
            ) from error
        self._writer = threading.Thread(target=self._write_on, name="chain journal", daemon=True)
        self._writer.start()

    def find(self, key: bytes) -> Done | None:
        """What was made of it before; None where nothing was."""
        found = self._pending.get(key) or self._writing.get(key)
        if found is not None:
            return found
        row = self._reader.execute(
            "SELECT value, failed, prompt_tokens, completion_tokens, price_usd FROM done WHERE key = ?",
            (key,),
        ).fetchone()
        return None if row is None else Done(row[0], bool(row[1]), row[2], row[3], row[4])

    def is_empty(self) -> bool:
        """Whether nothing was done before."""
        return self._reader.execute("SELECT 1 FROM done LIMIT 1").fetchone() is None

    def keep(self, key: bytes, done: Done) -> None:
        """Write it down soon; raises LLMUnavailableError where nothing can be written any more."""
        if self._failure is not None:
            raise self._unwritable()
        with self._lock:
            self._pending[key] = done
        if len(self._pending) == 1 or len(self._pending) > _MOST_AT_ONCE:
            self._wake.set()

    def close(self) -> None:
        """Write all that is left, and let others in; raises LLMUnavailableError where that fails."""
        self._closing = True
        self._wake.set()
        self._writer.join()
        self._reader.close()
        os.close(self._held)
        if self._failure is not None:
            raise self._unwritable()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / "journal.sqlite", isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _begin(self) -> None:
        version = self._reader.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise LLMInvalidRequestError(
                f"the journal in {str(self.folder)!r} has format {version}, must be {_FORMAT}: it is "
                "another version's",
                param="run_dir",
            )
        self._reader.execute(
            "CREATE TABLE IF NOT EXISTS done (key BLOB PRIMARY KEY, value BLOB NOT NULL, failed "
            "INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, "
            "price_usd TEXT) WITHOUT ROWID"
        )
        self._reader.execute(f"PRAGMA user_version = {_FORMAT}")

    def _write_on(self) -> None:
        connection = self._opened()
        while True:
            self._wake.wait()
            self._wake.clear()
            if not self._closing and len(self._pending) <= _MOST_AT_ONCE:
                self._wake.wait(_WAIT_S)
                self._wake.clear()
            try:
                self._write(connection)
            except sqlite3.Error as error:
                self._failure = error
            if self._closing or self._failure is not None:
                break
        connection.close()

    def _write(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._writing, self._pending = self._pending, {}
        rows = [
            (key, d.value, d.failed, d.prompt_tokens, d.completion_tokens, d.price_usd)
            for key, d in self._writing.items()
        ]
        with _transaction(connection):
            connection.executemany("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._writing = {}

    def _unwritable(self) -> LLMUnavailableError:
        error = LLMUnavailableError(
            f"the journal in {str(self.folder)!r} cannot be written ({self._failure}): what was "
            "written before is kept; run it again when there is room"
        )
        error.__cause__ = self._failure
        return error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
