"""Batches and their requests: how each stands, and its result once there is one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from attrs import frozen

from headrace.contracts.batches import (
    ENDED,
    Batch,
    BatchCounts,
    BatchPhase,
    BatchProblem,
    ItemFate,
)
from headrace.contracts.responses import Usage

Face: TypeAlias = Literal["openai", "anthropic", "mistral"]
"""By whose API a batch was made; it is seen by that one only."""

Settled: TypeAlias = tuple[int, ItemFate, bytes, Usage | None]
"""What became of the request at a place: its fate, the line that says it, and what it cost."""


@frozen(kw_only=True)
class StoredBatch:
    """A batch with what only we know of it."""

    owner: str
    face: Face
    batch: Batch
    outputs_kept_s: int | None = None


@frozen(kw_only=True)
class StoredItem:
    """Where a request stands: ``length`` bytes of the file ``source``, from ``start``."""

    place: int
    custom_id: str | None
    source: str
    start: int
    length: int


class BatchShelf:
    """The rows of the batches."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add(self, stored: StoredBatch) -> None:
        """Keep a new batch, whose requests are not known yet."""
        batch = stored.batch
        self._db.execute(
            "INSERT INTO batches (id, owner, face, phase, endpoint, model, created, expires,"
            " window_s, outputs_kept_s, input_files, metadata, total)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.batch_id,
                stored.owner,
                stored.face,
                batch.phase,
                batch.endpoint,
                batch.model,
                batch.created,
                batch.created if batch.expires is None else batch.expires,
                batch.window_s,
                stored.outputs_kept_s,
                json.dumps(batch.input_files),
                None if batch.metadata is None else json.dumps(batch.metadata),
                batch.counts.total,
            ),
        )

    def find(self, batch_id: str) -> StoredBatch | None:
        """The batch of that id, whoever's it is."""
        row = self._db.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return None if row is None else _stored(row)

    def list(self, owner: str, face: Face) -> Sequence[StoredBatch]:
        """An owner's batches, the newest first."""
        rows = self._db.execute(
            "SELECT * FROM batches WHERE owner = ? AND face = ? ORDER BY created DESC, rowid DESC",
            (owner, face),
        ).fetchall()
        return [_stored(row) for row in rows]

    def unfinished(self) -> Sequence[StoredBatch]:
        """Every batch that has not ended, the oldest first."""
        rows = self._db.execute(
            "SELECT * FROM batches WHERE ended IS NULL ORDER BY created, rowid"
        ).fetchall()
        return [_stored(row) for row in rows]

    def ended_before(self, then: float) -> Sequence[str]:
        """The batches that ended so long ago."""
        rows = self._db.execute("SELECT id FROM batches WHERE ended <= ?", (then,)).fetchall()
        return [str(row[0]) for row in rows]

    def users_of(self, file_id: str) -> Sequence[str]:
        """The batches that have not ended and read this file."""
        return [
            each.batch.batch_id for each in self.unfinished() if file_id in each.batch.input_files
        ]

    def results_of_messages(self) -> Sequence[str]:
        """The files that are no caller's own to see: what Anthropic's batches stand in."""
        rows = self._db.execute("SELECT id FROM batches WHERE face = 'anthropic'").fetchall()
        inline = self._db.execute("SELECT id FROM batches WHERE face = 'mistral'").fetchall()
        found = [name for row in rows for name in (requests_file(row[0]), results_file(row[0]))]
        return [*found, *(requests_file(row[0]) for row in inline)]

    def delete(self, batch_id: str) -> None:
        """Forget a batch and all of its requests and results."""
        with self._whole():
            for table, column in (("results", "batch"), ("items", "batch"), ("batches", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (batch_id,))  # noqa: S608  our own words

    # How it goes on

    def begin(
        self, batch_id: str, items: Iterable[StoredItem], now: float, model: str | None
    ) -> bool:
        """Its requests are known, and are worked on from now; false where it was cancelled."""
        with self._whole():
            rows = (
                (batch_id, item.place, item.custom_id, item.source, item.start, item.length)
                for item in items
            )
            found = self._db.execute(
                "UPDATE batches SET phase = 'in_progress', began = ?, model = COALESCE(model, ?)"
                " WHERE id = ? AND phase = 'validating'",
                (now, model, batch_id),
            )
            if not found.rowcount:
                return False
            self._db.executemany(
                "INSERT INTO items (batch, place, custom_id, source, start, length)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._db.execute(
                "UPDATE batches SET total = (SELECT COUNT(*) FROM items WHERE batch = id)"
                " WHERE id = ?",
                (batch_id,),
            )
        return True

    def fail(self, batch_id: str, problems: Sequence[BatchProblem], now: float) -> None:
        """It cannot be begun."""
        told = [[each.message, each.code, each.param, each.line] for each in problems]
        self._db.execute(
            "UPDATE batches SET phase = 'failed', ended = ?, problems = ?"
            " WHERE id = ? AND phase = 'validating'",
            (now, json.dumps(told), batch_id),
        )

    def cancel(self, batch_id: str, now: float) -> None:
        """It is to come to its end, where it has not."""
        self._db.execute(
            "UPDATE batches SET phase = 'cancelling', cancelling = ?"
            " WHERE id = ? AND phase IN ('validating', 'in_progress')",
            (now, batch_id),
        )

    def finalize(self, batch_id: str, now: float) -> None:
        """All of its requests have a fate."""
        self._db.execute(
            "UPDATE batches SET phase = 'finalizing', finalizing = ?"
            " WHERE id = ? AND phase = 'in_progress'",
            (now, batch_id),
        )

    def end(
        self,
        batch_id: str,
        phase: BatchPhase,
        now: float,
        *,
        output_file: str | None,
        error_file: str | None,
    ) -> None:
        """It has ended, and its results lie in files."""
        with self._whole():
            self._db.execute(
                "UPDATE batches SET phase = ?, ended = ?, output_file = ?, error_file = ?"
                " WHERE id = ?",
                (phase, now, output_file, error_file, batch_id),
            )
            for table in ("results", "items"):
                self._db.execute(f"DELETE FROM {table} WHERE batch = ?", (batch_id,))  # noqa: S608  our own words

    # Its requests

    def open_items(self, batch_id: str, after: int, limit: int) -> Sequence[StoredItem]:
        """The next requests behind the place ``after`` that have no fate yet."""
        rows = self._db.execute(
            "SELECT place, custom_id, source, start, length FROM items"
            " WHERE batch = ? AND place > ? AND fate IS NULL ORDER BY place LIMIT ?",
            (batch_id, after, limit),
        ).fetchall()
        return [
            StoredItem(place=row[0], custom_id=row[1], source=row[2], start=row[3], length=row[4])
            for row in rows
        ]

    def settle(
        self,
        batch_id: str,
        settled: Sequence[Settled],
    ) -> None:
        """What became of some requests, each with its line; of one that has a fate nothing changes."""
        with self._whole():
            for place, fate, line, usage in settled:
                found = self._db.execute(
                    "UPDATE items SET fate = ? WHERE batch = ? AND place = ? AND fate IS NULL",
                    (fate, batch_id, place),
                )
                if not found.rowcount:
                    continue
                self._db.execute("INSERT INTO results VALUES (?, ?, ?)", (batch_id, place, line))
                spent = usage or Usage()
                self._db.execute(
                    f"UPDATE batches SET {fate} = {fate} + 1, prompt_tokens = prompt_tokens + ?,"  # noqa: S608  our own words
                    " cached_tokens = cached_tokens + ?, completion_tokens = completion_tokens + ?,"
                    " reasoning_tokens = reasoning_tokens + ? WHERE id = ?",
                    (
                        spent.prompt_tokens or 0,
                        spent.input_cache_read_tokens or 0,
                        spent.completion_tokens or 0,
                        spent.output_reasoning_tokens or 0,
                        batch_id,
                    ),
                )

    def results(self, batch_id: str) -> Iterator[tuple[ItemFate, bytes]]:
        """The lines, in the requests' order."""
        rows = self._db.execute(
            "SELECT fate, line FROM items JOIN results USING (batch, place)"
            " WHERE batch = ? ORDER BY place",
            (batch_id,),
        )
        for row in rows:
            yield row["fate"], row["line"]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All of what is done within the block, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def requests_file(batch_id: str) -> str:
    """The file of the requests that came along with a batch."""
    return f"{batch_id}.requests"


def results_file(batch_id: str) -> str:
    """The file of the results of a batch that names no files."""
    return f"{batch_id}.results"


def _stored(row: sqlite3.Row) -> StoredBatch:
    found: dict[str, Any] = dict(row)
    phase: BatchPhase = found["phase"]
    usage = None
    if found["prompt_tokens"] or found["completion_tokens"] or phase in ENDED:
        usage = Usage(
            prompt_tokens=found["prompt_tokens"],
            completion_tokens=found["completion_tokens"],
            total_tokens=found["prompt_tokens"] + found["completion_tokens"],
            input_cache_read_tokens=found["cached_tokens"],
            output_reasoning_tokens=found["reasoning_tokens"],
        )
    return StoredBatch(
        owner=found["owner"],
        face=found["face"],
        outputs_kept_s=found["outputs_kept_s"],
        batch=Batch(
            batch_id=found["id"],
            phase=phase,
            created=found["created"],
            endpoint=found["endpoint"],
            model=found["model"],
            counts=BatchCounts(
                total=found["total"],
                succeeded=found["succeeded"],
                errored=found["errored"],
                cancelled=found["cancelled"],
                expired=found["expired"],
            ),
            input_files=tuple(json.loads(found["input_files"])),
            output_file=found["output_file"],
            error_file=found["error_file"],
            problems=tuple(
                BatchProblem(message=each[0], code=each[1], param=each[2], line=each[3])
                for each in json.loads(found["problems"])
            ),
            metadata=None if found["metadata"] is None else json.loads(found["metadata"]),
            usage=usage,
            window_s=found["window_s"],
            expires=found["expires"],
            began=found["began"],
            finalizing=found["finalizing"],
            cancelling=found["cancelling"],
            ended=found["ended"],
        ),
    )
