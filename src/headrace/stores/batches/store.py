"""One folder with everything that is kept of batches: a database, and the files beside it.

    batches.sqlite   what there is, and what became of each request
    files/           the files' contents, each under its id
    incoming/        what is being brought now; emptied at the start
    lock             held by the process that has the folder

Every call blocks; who runs an event loop calls from a thread, and from one at a time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Self

from headrace.contracts.errors import LLMUnavailableError
from headrace.stores.batches.files import KeptFiles
from headrace.stores.batches.shelf import BatchShelf

DATABASE = "batches.sqlite"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE files (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,
    size INTEGER NOT NULL, lines INTEGER, created INTEGER NOT NULL, expires INTEGER,
    is_ours INTEGER NOT NULL
) STRICT;
CREATE TABLE batches (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, face TEXT NOT NULL, phase TEXT NOT NULL,
    endpoint TEXT NOT NULL, model TEXT, created REAL NOT NULL, expires REAL NOT NULL,
    window_s INTEGER NOT NULL, outputs_kept_s INTEGER, began REAL, finalizing REAL,
    cancelling REAL, ended REAL, input_files TEXT NOT NULL, output_file TEXT, error_file TEXT,
    problems TEXT NOT NULL DEFAULT '[]', metadata TEXT, total INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0, errored INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0, reasoning_tokens INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX batches_of ON batches (owner, face, created);
CREATE TABLE items (
    batch TEXT NOT NULL, place INTEGER NOT NULL, custom_id TEXT, source TEXT NOT NULL,
    start INTEGER NOT NULL, length INTEGER NOT NULL, fate TEXT, PRIMARY KEY (batch, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE results (
    batch TEXT NOT NULL, place INTEGER NOT NULL, line BLOB NOT NULL, UNIQUE (batch, place)
) STRICT;
"""


class BatchStore:
    """The folder at ``path``; raises LLMUnavailableError where another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
        (path / "incoming").mkdir(exist_ok=True, mode=0o700)
        self._held = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            os.close(self._held)
            raise LLMUnavailableError(
                f"another gateway keeps its batches in {str(path)!r}; give this one a folder of its "
                "own (batches.folder)",
                transient=False,
                code="batches_elsewhere",
            ) from taken
        try:
            self.connection = self._opened()
        except BaseException:
            os.close(self._held)
            raise
        self.files = KeptFiles(self.connection, path)
        self.batches = BatchShelf(self.connection)
        for left in (path / "incoming").iterdir():
            left.unlink()
        self.files.drop_strays(self.batches.results_of_messages())

    def close(self) -> None:
        """Let others have it."""
        self.connection.close()
        os.close(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path / DATABASE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            # What a failing machine loses of the last instants is asked again; a killed process
            # loses nothing.
            connection.execute("PRAGMA synchronous = NORMAL")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                connection.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;"
                )
            elif found != _FORMAT:
                raise LLMUnavailableError(
                    f"the batches in {str(self.path)!r} were kept by another version of headrace "
                    f"(format {found}, this one has {_FORMAT}); use that one, or another folder",
                    transient=False,
                )
        except BaseException:
            connection.close()
            raise
        (self.path / DATABASE).chmod(0o600)
        return connection
