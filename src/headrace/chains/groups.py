"""What a Reduce gathers: values by what they have in common, on disk until their group's turn comes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen
from msgspec import json

from headrace.chains.graph import Part
from headrace.chains.journal import Done
from headrace.chains.nodes import Reduce
from headrace.chains.reading import Row
from headrace.chains.values import Item, as_json, key_of, plain
from headrace.chains.walk import Came, Failed
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

if TYPE_CHECKING:
    from headrace.chains.walk import Walk

_MOST_BYTES = 8 << 20
"""How much of several groups is in memory together; a larger one is there alone."""
_LONGEST_KEY = 1000


class Groups:
    """The values that come to a Reduce, by their groups.

    They lie in a file of their own in ``folder``, which is made anew each time: whatever gave them
    is in the journal.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        assert part.reduce is not None
        self.part, self.reduce = part, part.reduce
        self.room = _Room(_MOST_BYTES)
        self._file = folder / f"{self.reduce.id}.groups"
        self._file.unlink(missing_ok=True)
        with self._on_disk():
            self._connection = sqlite3.connect(self._file, isolation_level=None)
            for line in (
                "PRAGMA journal_mode = OFF",
                "PRAGMA synchronous = OFF",
                "CREATE TABLE groups (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
                "bytes INTEGER NOT NULL)",
                "CREATE TABLE members (of INTEGER, place INTEGER, value BLOB NOT NULL, "
                "PRIMARY KEY (of, place)) WITHOUT ROWID",
                "BEGIN",
            ):
                self._connection.execute(line)
        self._places = 0

    def add(self, row: Row, came: Came) -> tuple[Failed, ...]:
        """Take what came of ``row``; all that failed of it, here or before."""
        failed = list(came.failed)
        for item in came.items:
            try:
                key = as_json(_key_of(self.reduce, item))
            except Exception as error:  # noqa: BLE001 - the row's fault, and told
                failed.append(Failed(self.reduce.id, type(error).__name__, str(error), item))
                continue
            self._keep(key, as_json(item.value))
        return tuple(failed)

    def rows(self) -> Iterator[Row]:
        """A row for each group, in the order in which the first value of each came."""
        with self._on_disk():
            found = self._connection.execute(
                "SELECT number, key, bytes FROM groups ORDER BY number"
            )
        for number, key, size in found:
            value = json.decode(key)
            own = isinstance(value, int | str) and not isinstance(value, bool)
            yield Gathered(
                number=number,
                id=value if own else key.decode(),
                value=_row_of(self.reduce, value),
                groups=self,
                size=size,
            )

    def values(self, number: int) -> bytes:
        """All of one group, as a JSON list, in the order in which they came."""
        with self._on_disk():
            found = self._connection.execute(
                "SELECT value FROM members WHERE of = ? ORDER BY place", (number,)
            )
            return b"[" + b",".join(value for (value,) in found) + b"]"

    def close(self) -> None:
        """Forget them."""
        self._connection.close()
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, key: bytes, value: bytes) -> None:
        self._places += 1
        with self._on_disk():
            ((number,),) = self._connection.execute(
                "INSERT INTO groups (key, bytes) VALUES (?, ?) ON CONFLICT (key) "
                "DO UPDATE SET bytes = bytes + excluded.bytes RETURNING number",
                (key, len(value)),
            ).fetchall()
            self._connection.execute(
                "INSERT INTO members VALUES (?, ?, ?)", (number, self._places, value)
            )

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LLMUnavailableError(
                f"{self.reduce.id}: its groups cannot be kept in {str(self._file)!r} ({error}): "
                "what was done before is kept; run it again when there is room"
            ) from error


@frozen(kw_only=True)
class Gathered(Row):
    """A group as a row of what stands behind the Reduce; its values are ``groups``'s still."""

    groups: Groups
    size: int

    async def through(self, walk: Walk) -> Came:
        """What becomes of it."""
        reduce = self.groups.reduce
        async with self.groups.room.of(self.size):
            said = self.groups.values(self.number)
            if reduce.function is None:
                return await walk.row(self._item(json.decode(said)))
            key = key_of(self.groups.part.mark(reduce), said)
            standing = walk.standing.of(reduce.id)
            done = await walk.once(key, partial(_reduced, reduce, said), standing)
        standing.done += 1
        standing.failed += done.failed
        made = json.decode(done.value)
        if done.failed:
            return Came((), (Failed(reduce.id, made[0], made[1], self._item(self.value)),))
        return await walk.row(self._item(made))

    def _item(self, value: Any) -> Item:
        return Item(self.number, self.value, (), value, {self.groups.reduce.id: value})


async def _reduced(reduce: Reduce, said: bytes) -> Done:
    assert reduce.function is not None
    values = json.decode(said)
    try:
        if reduce.reader is not None:
            values = [reduce.reader(each) for each in values]
        made = reduce.function(values)
        return Done(as_json(plain(await made if isawaitable(made) else made)))
    except Exception as error:  # noqa: BLE001 - the group's fault, and told
        return Done(as_json([type(error).__name__, str(error)]), failed=True)


def _key_of(reduce: Reduce, item: Item) -> Any:
    by = reduce.by
    if callable(by):
        key = by(item.value if reduce.by_reader is None else reduce.by_reader(item.value))
    elif isinstance(by, str):
        key = _found(by, item, reduce)
    else:
        key = [_found(name, item, reduce) for name in by]
    if len(as_json(key)) > _LONGEST_KEY:
        raise ValueError(f"what it is grouped by takes more than {_LONGEST_KEY} bytes")
    return key


def _found(name: str, item: Item, reduce: Reduce) -> Any:
    at: Any = item.seen()
    for step in name.split("."):
        if not isinstance(at, Mapping) or step not in at:
            known = ", ".join(sorted(map(str, at))) if isinstance(at, Mapping) else "no fields"
            raise LLMInvalidRequestError(
                f"by is {name!r}, and there is no {step!r} here; there: {known}"[:500],
                param=f"{reduce.id}.by",
            )
        at = at[step]
    return at


def _row_of(reduce: Reduce, key: Any) -> dict[str, Any]:
    """What the values of a group have in common, by name."""
    by = reduce.by
    if callable(by):
        return {"key": key}
    names = (by,) if isinstance(by, str) else by
    short = [name.rpartition(".")[2] for name in names]
    shown = short if len(set(short)) == len(short) else names
    return dict(zip(shown, [key] if isinstance(by, str) else key, strict=True))


class _Room:
    """Lets in who comes, in turn, as long as those inside are not too much together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: list[int] = []
        self._entry = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        async with self._entry:
            while self._inside and sum(self._inside) + size > self._most:
                self._left.clear()
                await self._left.wait()
            self._inside.append(size)
        try:
            yield
        finally:
            self._inside.remove(size)
            self._left.set()
