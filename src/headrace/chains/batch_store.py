"""What was handed in in batches and what came back: one SQLite file in the run's folder.

A request is written down before it is sent, a batch before it is begun, and its id before anything
else is done with it. So whatever moment a run ends at, the next one knows what is under way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Self

from attrs import frozen

from headrace.contracts.batches import BatchItem
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

FILE = "batches.sqlite"
_FORMAT = 1
_MOST_UNWRITTEN = 1000
_ROWS_AT_ONCE = 500


@frozen(kw_only=True)
class Begun:
    """A batch of ours, which may cost ``most_usd``. ``upload`` and ``batch_id`` are there as soon as
    the provider told them."""

    number: int
    step: str
    mark: str
    total: int
    intended: float
    upload: str | None
    batch_id: str | None
    created: float
    most_usd: Decimal


@frozen(kw_only=True)
class Kept:
    """What became of a request: once it ``is_over``, ``result`` is its line of the results; None,
    where its batch ended as ``phase`` without it. It was in so many ``batches``, of which the last
    was ``created`` then.
    """

    result: bytes | None
    is_over: bool
    batches: int
    created: float
    phase: str | None


class BatchStore:
    """The requests and batches of the run in ``folder``, which nobody else works on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._unwritten = 0
        with self._told():
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # Few and dear: what a batch's id is must outlive the machine's own end as well.
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _FORMAT):
                raise LLMInvalidRequestError(
                    f"{self.path} has format {version}, must be {_FORMAT}: it is another version's",
                    param="run_dir",
                )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS batch (number INTEGER PRIMARY KEY, step TEXT NOT NULL, "
                "mark TEXT NOT NULL, total INTEGER NOT NULL, intended REAL NOT NULL, upload TEXT, "
                "id TEXT, created REAL NOT NULL DEFAULT 0, over INTEGER NOT NULL DEFAULT 0, "
                "phase TEXT, most_usd REAL NOT NULL DEFAULT 0)"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS asked (place INTEGER PRIMARY KEY, key TEXT NOT NULL "
                "UNIQUE, step TEXT NOT NULL, body BLOB, batch INTEGER, batches INTEGER NOT NULL "
                "DEFAULT 0, over INTEGER NOT NULL DEFAULT 0, result BLOB, most_usd REAL NOT NULL "
                "DEFAULT 0)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS of_batch ON asked (batch, place)")
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            # Collected and never handed in: it is collected again.
            self._db.execute("DELETE FROM asked WHERE batch IS NULL")

    def add(self, key: str, step: str, body: bytes, most_usd: Decimal = Decimal(0)) -> None:
        """Have it asked with the next batch of ``step``; it may cost ``most_usd``."""
        with self._told():
            if not self._unwritten:
                self._db.execute("BEGIN")
            self._db.execute(
                "INSERT OR IGNORE INTO asked (key, step, body, most_usd) VALUES (?, ?, ?, ?)",
                (key, step, body, float(most_usd)),
            )
            self._unwritten += 1
            if self._unwritten >= _MOST_UNWRITTEN:
                self._settle()

    def find(self, key: str) -> Kept | None:
        """What became of it; None where nobody asked."""
        with self._told():
            row = self._db.execute(
                "SELECT result, asked.over, batches, created, phase FROM asked LEFT JOIN batch ON "
                "batch.number = asked.batch WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        result, over, batches, created, phase = row
        return Kept(
            result=result,
            is_over=bool(over),
            batches=batches,
            created=created or 0.0,
            phase=phase,
        )

    def owns(self, number: int) -> Container[str]:
        """The keys of a batch."""
        return _Keys(self._db, number)

    def waits(self, step: str) -> bool:
        """Whether something of ``step`` was collected and not handed in."""
        with self._told():
            self._settle()
            found = self._db.execute(
                "SELECT 1 FROM asked WHERE step = ? AND batch IS NULL LIMIT 1", (step,)
            )
            return found.fetchone() is not None

    def intend(
        self, step: str, mark: str, now: float, *, requests: int, size: int, around: int
    ) -> Begun:
        """Write down that the first of what waits is handed in: within ``requests`` and ``size``.

        ``around`` is what stands around each request there, in bytes.
        """
        with self._told(), self._transaction():
            cursor = self._db.execute(
                "INSERT INTO batch (step, mark, total, intended) VALUES (?, ?, 0, ?)",
                (step, mark, now),
            )
            number, total, filled, last = cursor.lastrowid, 0, 0, -1
            for place, length in self._db.execute(
                "SELECT place, length(body) FROM asked WHERE step = ? AND batch IS NULL "
                "ORDER BY place LIMIT ?",
                (step, requests),
            ):
                if total and filled + length + around > size:
                    break
                total, filled, last = total + 1, filled + length + around, place
            self._db.execute(
                "UPDATE asked SET batch = ?, batches = batches + 1, over = 0 WHERE step = ? AND "
                "batch IS NULL AND place <= ?",
                (number, step, last),
            )
            self._db.execute(
                "UPDATE batch SET total = ?, most_usd = (SELECT sum(most_usd) FROM asked WHERE batch "
                "= ?) WHERE number = ?",
                (total, number, number),
            )
        return next(each for each in self.open_ones() if each.number == number)

    def open_ones(self) -> list[Begun]:
        """The batches that are not over."""
        with self._told():
            rows = self._db.execute(
                "SELECT number, step, mark, total, intended, upload, id, created, most_usd FROM "
                "batch "
                "WHERE NOT over ORDER BY number"
            ).fetchall()
        return [
            Begun(
                number=row[0],
                step=row[1],
                mark=row[2],
                total=row[3],
                intended=row[4],
                upload=row[5],
                batch_id=row[6],
                created=row[7],
                most_usd=Decimal(str(row[8])),
            )
            for row in rows
        ]

    def ids(self) -> frozenset[str]:
        """The ids of all batches that are known to be ours."""
        with self._told():
            return frozenset(
                row[0] for row in self._db.execute("SELECT id FROM batch WHERE id IS NOT NULL")
            )

    def items(self, number: int) -> Iterator[BatchItem]:
        """The requests of a batch."""
        last = -1
        while True:
            with self._told():
                rows = self._db.execute(
                    "SELECT place, key, body FROM asked WHERE batch = ? AND place > ? "
                    "ORDER BY place LIMIT ?",
                    (number, last, _ROWS_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            for _, key, body in rows:
                yield BatchItem(custom_id=key, body=body)

    def uploaded(self, number: int, upload: str) -> None:
        """The requests are there, under that id."""
        self._write("UPDATE batch SET upload = ? WHERE number = ?", (upload, number))

    def begun(self, number: int, batch_id: str, created: float) -> None:
        """The batch has begun, under that id."""
        self._write(
            "UPDATE batch SET id = ?, created = ? WHERE number = ?", (batch_id, created, number)
        )

    def take(self, number: int, results: list[tuple[str, bytes]]) -> None:
        """Lines of a batch's results, each with its request's key."""
        with self._told(), self._transaction():
            self._db.executemany(
                "UPDATE asked SET result = ? WHERE key = ? AND batch = ?",
                [(line, key, number) for key, line in results],
            )

    def end(self, number: int, phase: str) -> None:
        """All that came of a batch was taken; the rest was not done."""
        with self._told(), self._transaction():
            self._db.execute("UPDATE asked SET over = 1 WHERE batch = ?", (number,))
            self._db.execute(
                "UPDATE batch SET over = 1, phase = ? WHERE number = ?", (phase, number)
            )

    def undo(self, number: int) -> None:
        """A batch came to nothing: what was in it may be collected again."""
        with self._told(), self._transaction():
            self._db.execute("DELETE FROM asked WHERE batch = ?", (number,))
            self._db.execute(
                "UPDATE batch SET over = 1, phase = 'failed' WHERE number = ?", (number,)
            )

    def again(self, keys: list[str]) -> None:
        """Have them asked in the next batch once more."""
        with self._told(), self._transaction():
            self._db.executemany(
                "UPDATE asked SET batch = NULL, over = 0, result = NULL WHERE key = ?",
                [(key,) for key in keys],
            )

    def over_ones(self, number: int) -> Iterator[tuple[str, bytes | None, int]]:
        """Of a batch that is over: each key, its line of the results, and in how many it was."""
        last = -1
        while True:
            with self._told():
                rows = self._db.execute(
                    "SELECT place, key, result, batches FROM asked WHERE batch = ? AND place > ? "
                    "ORDER BY place LIMIT ?",
                    (number, last, _ROWS_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            for _, *row in rows:
                yield row[0], row[1], row[2]

    def forget(self, key: str) -> None:
        """It may be asked again as if it never had been."""
        self._write("DELETE FROM asked WHERE key = ?", (key,))

    def close(self) -> None:
        """Write what is not written."""
        with self._told():
            self._settle()
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self) -> None:
        if self._unwritten:
            self._unwritten = 0
            self._db.execute("COMMIT")

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._told():
            self._settle()
            self._db.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._settle()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LLMUnavailableError(
                f"{self.path} cannot be used ({error}): what was written before is kept; run it "
                "again when that is mended",
                transient=False,
            ) from error


class _Keys:
    """Answers whether a key is one of a batch's, and holds none of them."""

    def __init__(self, db: sqlite3.Connection, number: int) -> None:
        self._db, self._number = db, number

    def __contains__(self, key: object) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM asked WHERE key = ? AND batch = ?", (key, self._number)
        )
        return found.fetchone() is not None
