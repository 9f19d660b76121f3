"""Files that callers have brought, and those made of their batches."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from headrace.contracts.batches import KeptFile

Order = Literal["asc", "desc"]


class KeptFiles:
    """The rows of the files, and their contents below ``folder``.

    ``owner`` is never a key, but what is made of one. Nobody sees what belongs to another owner.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self._folder, self._incoming = folder / "files", folder / "incoming"

    def path(self, file_id: str) -> Path:
        """Where the content of a file lies that is known by this id."""
        return self._folder / file_id

    def begin(self, file_id: str) -> BinaryIO:
        """A file to be written, which nobody sees before it is added."""
        found = os.open(self._incoming / file_id, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.fdopen(found, "wb")

    def drop_begun(self, file_id: str) -> None:
        """Forget a file that was begun."""
        (self._incoming / file_id).unlink(missing_ok=True)

    def place_begun(self, file_id: str) -> None:
        """Put what was begun where it is kept, complete and on the disk."""
        begun = self._incoming / file_id
        with begun.open("rb") as file:
            os.fsync(file.fileno())
        begun.replace(self.path(file_id))

    def add(self, owner: str, file: KeptFile) -> None:
        """Keep what was begun under this id."""
        self.place_begun(file.file_id)
        self._db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file.file_id,
                owner,
                file.name,
                file.purpose,
                file.size,
                file.lines,
                file.created,
                file.expires,
                file.is_ours,
            ),
        )

    def find(self, owner: str, file_id: str, now: float) -> KeptFile | None:
        """The file of that id, unless its time is over."""
        row = self._db.execute(
            "SELECT * FROM files WHERE id = ? AND owner = ? AND (expires IS NULL OR expires > ?)",
            (file_id, owner, now),
        ).fetchone()
        return None if row is None else _file(row)

    def list(
        self, owner: str, now: float, *, purpose: str | None = None, order: Order = "desc"
    ) -> Sequence[KeptFile]:
        """All of an owner's files."""
        rows = self._db.execute(
            "SELECT * FROM files WHERE owner = ? AND (expires IS NULL OR expires > ?)"
            " AND (? IS NULL OR purpose = ?) ORDER BY created, rowid",
            (owner, now, purpose, purpose),
        ).fetchall()
        found = [_file(row) for row in rows]
        return found if order == "asc" else found[::-1]

    def delete(self, file_id: str) -> None:
        """Forget a file and remove its content."""
        self._db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    def total_bytes(self) -> int:
        """What all files of all owners take."""
        (found,) = self._db.execute("SELECT COALESCE(SUM(size), 0) FROM files").fetchone()
        return int(found)

    def expired(self, now: float) -> Sequence[str]:
        """The files whose time is over."""
        rows = self._db.execute("SELECT id FROM files WHERE expires <= ?", (now,))
        return [str(row[0]) for row in rows.fetchall()]

    def drop_strays(self, also: Collection[str]) -> None:
        """Remove contents that neither a row nor ``also`` names: a crash left them."""
        known = {str(row[0]) for row in self._db.execute("SELECT id FROM files")} | {*also}
        for each in self._folder.iterdir():
            if each.name not in known:
                each.unlink()


def _file(row: sqlite3.Row) -> KeptFile:
    return KeptFile(
        file_id=row["id"],
        name=row["name"],
        purpose=row["purpose"],
        size=row["size"],
        created=row["created"],
        expires=row["expires"],
        lines=row["lines"],
        is_ours=bool(row["is_ours"]),
    )
