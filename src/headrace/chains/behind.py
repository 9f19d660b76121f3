"""Writing behind: what is added is there at once, and on disk soon, many in one transaction.

A thread of its own writes. Until something is written, it is answered from memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_WAIT_S = 0.1
_ROWS_A_STATEMENT = 128
_ENOUGH = 64
"""As much as is under way at a time: so a kill costs no more for what was not written yet."""
_MOST = 3 * _ENOUGH
"""More than this is never waiting where ``room`` is asked for first."""


class Behind(Generic[T]):
    """Has ``write`` called with what was added, a tenth of a second later at most, or sooner where
    much is waiting.

    After a ``failure`` of it nothing more is written.
    """

    def __init__(self, write: Callable[[Mapping[bytes, T]], None], *, name: str) -> None:
        self.failure: sqlite3.Error | None = None
        self._write = write
        self._pending: dict[bytes, T] = {}
        self._writing: dict[bytes, T] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._room: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)
        self._thread.start()

    def find(self, key: bytes) -> T | None:
        """What was added as ``key`` and may not be on disk yet."""
        return self._pending.get(key) or self._writing.get(key)

    def add(self, key: bytes, value: T) -> None:
        """Have ``value`` written soon."""
        with self._lock:
            self._pending[key] = value
            waiting = len(self._pending)
        if waiting in (1, _ENOUGH):
            self._wake.set()

    def is_full(self) -> bool:
        """Whether as much is waiting to be written as a kill may cost."""
        return self.failure is None and len(self._pending) + len(self._writing) >= _MOST

    async def room(self) -> None:
        """Wait until it is not full, or nothing more will be written."""
        while self.is_full():
            room = self._room
            if room is None:
                room = self._room = (asyncio.get_running_loop(), asyncio.Event())
                if not self.is_full():
                    return  # written in the meantime, by a thread that saw nobody waiting
            await room[1].wait()

    def close(self) -> None:
        """Write all that is left."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _go(self) -> None:
        while self.failure is None:
            self._wake.wait()
            self._wake.clear()
            if not self._closing and len(self._pending) < _ENOUGH:
                self._wake.wait(_WAIT_S)
                self._wake.clear()
            closing = self._closing
            try:
                self._write_pending()
            except sqlite3.Error as error:
                self.failure = error
            self._tell_of_room()
            if closing:
                return

    def _write_pending(self) -> None:
        with self._lock:
            # In this order: whoever looks into both on another thread finds it in one of them.
            self._writing, self._pending = self._pending, {}
        if self._writing:
            self._write(self._writing)
        self._writing = {}

    def _tell_of_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            with suppress(RuntimeError):  # that loop is closed: nobody waits in it
                room[0].call_soon_threadsafe(room[1].set)


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]]) -> None:
    """``INSERT OR REPLACE INTO`` with many rows a statement.

    Each statement gives Python's lock away and waits for it again, while another thread computes for
    5 ms each time: with a row a statement the writing falls behind who is busy.
    """
    for first in range(0, len(rows), _ROWS_A_STATEMENT):
        some = rows[first : first + _ROWS_A_STATEMENT]
        one = f"({', '.join('?' * len(some[0]))})"
        connection.execute(
            f"INSERT OR REPLACE INTO {into} VALUES {', '.join([one] * len(some))}",  # noqa: S608  names of ours
            [each for row in some for each in row],
        )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of what is written inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back already after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
