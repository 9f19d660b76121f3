"""What has been done, so that nothing is done twice: one SQLite file a run.

Results are written behind. A process that is killed loses what it did in the last tenth of a second
at most, and no more than some tens of results; a power cut loses a second's worth. Both are done again
by the next run.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import frozen

from headrace.chains.behind import Behind, insert, transaction
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_FORMAT = 2
_READ_AS_WELL = (1,)
"""Format 1 had the same columns, stored in another way."""
_OURS = 0x68_72_63_68
"""SQLite's application id of our journals: "hrch"."""
_SYNCED_EVERY_S = 1.0
_PAGES_KIB = 500


@frozen
class Done:
    """What a node made of one value: JSON, or the reason why it made nothing.

    A reason that may be ``passing`` (nobody answered, say) is not kept: the next run tries again.
    ``whole``: the model ended its answer by itself. ``cached``: it was answered in an earlier run,
    from the cache, and nobody was asked.
    """

    value: bytes
    failed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price_usd: str | None = None
    passing: bool = False
    whole: bool = False
    cached: bool = False


class Journal:
    """The results of one run in ``folder``; another run on the same folder is refused.

    Raises LLMInvalidRequestError, saying what to do, where the folder cannot be used or what lies in
    it is no whole journal: it is never begun anew by itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "journal.sqlite"
        self._held = self._hold()
        try:
            if not self._path.exists():
                self._make()
            self._reader = self._opened()
            self._check()
            self._writer = self._opened()
        except BaseException as error:
            os.close(self._held)
            if isinstance(error, sqlite3.OperationalError):
                raise self._unusable(error) from error
            if isinstance(error, sqlite3.DatabaseError):
                raise self._damaged(error) from error
            raise
        self._synced = 0.0
        self._behind = Behind[Done](self._write, name="chain journal")

    def find(self, key: bytes) -> Done | None:
        """What was made of it before; None where nothing was.

        Raises LLMUnavailableError where nothing can be written any more, since what is not there
        would be asked for in vain.
        """
        self.check_writable()
        found = self._behind.find(key)
        if found is not None:
            return found
        try:
            row = self._reader.execute(
                "SELECT value, failed, prompt_tokens, completion_tokens, price_usd FROM done "
                "WHERE key = ?",
                (key,),
            ).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        return None if row is None else Done(row[0], bool(row[1]), row[2], row[3], row[4])

    def is_empty(self) -> bool:
        """Whether nothing was done before."""
        return self._reader.execute("SELECT 1 FROM done LIMIT 1").fetchone() is None

    def keep(self, key: bytes, done: Done) -> None:
        """Write it down soon; raises LLMUnavailableError where nothing can be written any more."""
        self.check_writable()
        self._behind.add(key, done)

    async def room(self) -> None:
        """Wait until so little is unwritten that a kill would not cost much; raises
        LLMUnavailableError where nothing can be written any more."""
        if self._behind.is_full():
            await self._behind.room()
        self.check_writable()

    def check_writable(self) -> None:
        """Raises LLMUnavailableError where nothing can be written any more."""
        if self._behind.failure is not None:
            raise self._unwritable(self._behind.failure)

    def close(self) -> None:
        """Write all that is left, and let others in; raises LLMUnavailableError where that fails."""
        self._behind.close()
        self._writer.close()
        self._reader.close()
        os.close(self._held)
        if self._behind.failure is not None:
            raise self._unwritable(self._behind.failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hold(self) -> int:
        """The folder's lock, a file that stays open."""
        lock = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LLMInvalidRequestError(
                f"the run cannot be kept in {str(self.folder)!r}: {error.strerror}; make that folder "
                "writable, or name another one as run_dir",
                param="run_dir",
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(held, 20).decode(errors="replace").strip()
            os.close(held)
            named = f" (its id is {pid})" if pid else ""
            raise LLMInvalidRequestError(
                f"another process works on the run in {str(self.folder)!r}{named}; wait until it "
                "ends, or keep this one elsewhere",
                param="run_dir",
            ) from error
        # Only told to others: who holds the lock is known without it, and a full disk has no room.
        with suppress(OSError):
            os.ftruncate(held, 0)
            os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
        return held

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Keys come in no order, so more of it would hold little that is looked for next.
        connection.execute(f"PRAGMA cache_size = -{_PAGES_KIB}")
        return connection

    def _make(self) -> None:
        """An empty journal, which has its name only when it is whole."""
        if (self.folder / "journal.sqlite-wal").exists():
            raise LLMInvalidRequestError(
                f"{str(self._path)!r} is gone, and journal.sqlite-wal, which belongs to it, is there; "
                f"bring it back, or remove {str(self.folder)!r} to do everything again",
                param="run_dir",
            )
        new = self.folder / "journal.sqlite.new"
        new.unlink(missing_ok=True)
        connection = sqlite3.connect(new, isolation_level=None)
        with transaction(connection):
            # Found by its key, but stored in the order of writing: random keys would have a page
            # written for each result.
            connection.execute(
                "CREATE TABLE done (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL, failed "
                "INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT "
                "NULL, price_usd TEXT)"
            )
            connection.execute(f"PRAGMA application_id = {_OURS}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.close()
        new.replace(self._path)

    def _check(self) -> None:
        """That what lies there is a journal of ours, and whole."""
        version = self._said("user_version")
        if version not in (_FORMAT, *_READ_AS_WELL):
            if self._said("application_id") != _OURS:
                raise sqlite3.DatabaseError("it is empty, or not a journal")
            raise LLMInvalidRequestError(
                f"the journal in {str(self.folder)!r} has format {version}, must be {_FORMAT}: it is "
                "another version's of headrace. Go on with that, or name another run_dir",
                param="run_dir",
            )
        # What a killed run left in the log is brought in, and only then can the file be measured.
        self._reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        whole = self._said("page_count") * self._said("page_size")
        there = self._path.stat().st_size
        if there < whole:
            raise sqlite3.DatabaseError(f"it has {there} bytes of {whole}")
        self._reader.execute("SELECT key FROM done LIMIT 1").fetchone()

    def _said(self, pragma: str) -> int:
        return int(self._reader.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _write(self, many: Mapping[bytes, Done]) -> None:
        connection, now = self._writer, time.monotonic()
        synced = now - self._synced >= _SYNCED_EVERY_S
        connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        rows = [
            (key, d.value, d.failed, d.prompt_tokens, d.completion_tokens, d.price_usd)
            for key, d in many.items()
        ]
        with transaction(connection):
            insert(connection, "done", rows)
        if synced:
            self._synced = now

    def _unusable(self, error: sqlite3.Error) -> LLMInvalidRequestError:
        return LLMInvalidRequestError(
            f"the journal in {str(self.folder)!r} cannot be used ({error}); see that this folder can "
            "be written and has room, or name another one as run_dir",
            param="run_dir",
        )

    def _damaged(self, error: sqlite3.Error) -> LLMInvalidRequestError:
        return LLMInvalidRequestError(
            f"the journal {str(self._path)!r} is damaged ({error}); bring back a copy of the folder "
            f"{str(self.folder)!r}, or remove it to do everything again",
            param="run_dir",
        )

    def _unwritable(self, cause: sqlite3.Error) -> LLMUnavailableError:
        error = LLMUnavailableError(
            f"the journal in {str(self.folder)!r} cannot be written ({cause}): what was written "
            "before is kept; make room, and the same command goes on from there"
        )
        error.__cause__ = cause
        return error
