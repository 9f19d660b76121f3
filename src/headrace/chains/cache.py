"""Answers kept across runs: the same request to the same model is answered without asking.

One SQLite file in a folder, used by any number of processes at once. Kept are whole answers only,
and only of steps that say ``temperature: 0``: asking anything else twice gives two answers, and who
does not want that says so (``sampled``).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from attrs import asdict, evolve, field, frozen

from headrace.chains.asking import Answering, Asked
from headrace.chains.behind import Behind, insert, transaction
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.values import Item, as_json, key_of
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

log = logging.getLogger(__name__)

_FORMAT = 1
_BUSY_S = 30.0
_USED_EVERY_S = 3600.0
"""When an answer was last used is written down so exactly; else every hit would be a write."""
_LEFT_SHARE = 0.9
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_UNITS_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_OF_NO_ANSWER = frozenset(
    {
        *("name", "api_key", "api_key_env", "lazy", "program", "port", "gpu_memory_utilization"),
        *("tensor_parallel_size", "gpu_ids", "startup_timeout_s", "idle_timeout_s"),
        "stop_timeout_s",
    }
)
"""What is said of an engine and changes nothing about what its model answers."""


@frozen(kw_only=True)
class CacheSettings:
    """Where answers are kept, and which.

    Those older than ``max_age_s`` are asked for again; for ever good, if it is None. Where more than
    ``max_bytes`` are kept, the ones go that were not used for longest. ``sampled`` keeps those of
    steps as well that do not say ``temperature: 0``.
    """

    folder: Path
    max_age_s: float | None = None
    max_bytes: int = field(default=2 * 10**9)
    sampled: bool = False


@frozen
class _Kept:
    value: bytes | None
    """None: it is there, and was used."""


class AnswerCache:
    """The answers in a folder. ``engines`` are those that steps name.

    Raises LLMInvalidRequestError where the folder cannot be used. Where it cannot be written any
    more later on, that is logged, and runs go on without.
    """

    def __init__(
        self,
        settings: CacheSettings,
        engines: Iterable[EngineConfig] = (),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._engines = {each.name: _identity(each) for each in engines}
        self._marks: dict[Step, bytes] = {}
        self._path = settings.folder / "answers.sqlite"
        try:
            settings.folder.mkdir(parents=True, exist_ok=True)
            self._reader = self._opened()
            self._begin()
            self._writer = self._opened()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error
        self._behind = Behind[_Kept](self._write, name="answer cache")

    def takes(self, step: Step) -> bool:
        """Whether answers of ``step`` are kept."""
        return is_cached(step, self._settings)

    def key(self, asked: Asked) -> bytes:
        """Stands for the model, all that is asked of it, and what the answer is read as."""
        step = asked.step
        mark = self._marks.get(step)
        if mark is None:
            # What is asked stands for itself, wherever in a chain and from whatever template.
            bare = evolve(step, id="any", engine="any", user="", system=None)
            model = self._engines.get(step.engine) or as_json(step.engine)
            mark = self._marks[step] = key_of(b"answer", model, as_json(bare.signature()))
        return asked.key(mark)

    def find(self, key: bytes) -> Done | None:
        """What was answered before, and is not too old."""
        kept = self._behind.find(key)
        if kept is not None and kept.value is not None:
            return _answered(kept.value)
        try:
            row = self._reader.execute(
                "SELECT value, written, used FROM answer WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error
        if row is None:
            return None
        value, written, used = row
        now, most = self._clock(), self._settings.max_age_s
        if most is not None and now - written > most:
            return None
        if now - used > _USED_EVERY_S:
            self._behind.add(key, _Kept(None))
        return _answered(value)

    def keep(self, key: bytes, done: Done) -> None:
        """Have it there for later runs, if it is a whole answer."""
        if done.whole and not done.failed and self._behind.failure is None:
            self._behind.add(key, _Kept(done.value))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write all that is left."""
        self._behind.close()
        self._writer.close()
        self._reader.close()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _begin(self) -> None:
        with transaction(self._reader):
            (version,) = self._reader.execute("PRAGMA user_version").fetchone()
            if version not in (0, _FORMAT):
                raise self._unusable(f"it has format {version}, must be {_FORMAT}")
            self._reader.execute(
                "CREATE TABLE IF NOT EXISTS answer (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT "
                "NULL, written REAL NOT NULL, used REAL NOT NULL)"
            )
            self._reader.execute("CREATE INDEX IF NOT EXISTS answer_used ON answer (used)")
            self._reader.execute(f"PRAGMA user_version = {_FORMAT}")

    def _write(self, many: Mapping[bytes, _Kept]) -> None:
        try:
            self._write_all(many)
        except sqlite3.Error as error:
            # Said once: nothing is written after it.
            log.warning(
                "the cache in %s cannot be written (%s): answers of this run are not kept there",
                self._settings.folder,
                error,
            )
            raise

    def _write_all(self, many: Mapping[bytes, _Kept]) -> None:
        writer, now = self._writer, self._clock()
        with transaction(writer):
            new = [
                (key, each.value, now, now) for key, each in many.items() if each.value is not None
            ]
            insert(writer, "answer", new)
            writer.executemany(
                "UPDATE answer SET used = ? WHERE key = ?",
                [(now, key) for key, each in many.items() if each.value is None],
            )
            self._make_room(writer)

    def _make_room(self, writer: sqlite3.Connection) -> None:
        """Let go of those that were not used for longest, and of some more, so as not to do so soon."""
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        (free,) = writer.execute("PRAGMA freelist_count").fetchone()
        (size,) = writer.execute("PRAGMA page_size").fetchone()
        held, most = (pages - free) * size, self._settings.max_bytes
        if held <= most:
            return
        (count,) = writer.execute("SELECT count(*) FROM answer").fetchone()
        let_go = count - int(count * _LEFT_SHARE * most / held)
        writer.execute(
            "DELETE FROM answer WHERE key IN (SELECT key FROM answer ORDER BY used LIMIT ?)",
            (let_go,),
        )

    def _unusable(self, why: str) -> LLMInvalidRequestError:
        return LLMInvalidRequestError(
            f"the cache in {str(self._settings.folder)!r} cannot be used: {why}; name another folder, "
            "or remove this one (its answers are asked for again then)",
            param="cache",
        )


class AskedOnce:
    """Asks ``others`` for what ``cache`` has not."""

    def __init__(self, cache: AnswerCache, others: Answering) -> None:
        self._cache, self._others = cache, others

    def written(self, step: Step, item: Item) -> Asked:
        """As those whom it asks write it."""
        return self._others.written(step, item)

    async def ask(self, asked: Asked) -> Done:
        """The answer, of now or before, or why there is none."""
        if not self._cache.takes(asked.step):
            return await self._others.ask(asked)
        key = self._cache.key(asked)
        done = self._cache.find(key)
        if done is None:
            done = await self._others.ask(asked)
            self._cache.keep(key, done)
        return done


def is_cached(step: Step, settings: CacheSettings) -> bool:
    """Whether answers of ``step`` are kept: of one that is sampled, only where that is asked for, and
    of one with tools never, since what these say may be another thing tomorrow."""
    return not step.tools and (settings.sampled or step.sampling.temperature == 0)


def _identity(engine: EngineConfig) -> bytes:
    said = asdict(engine, filter=lambda attribute, _: attribute.name not in _OF_NO_ANSWER)
    return as_json(said)


def _answered(value: bytes) -> Done:
    return Done(value, price_usd="0", cached=True)


def read_age(said: str) -> float:
    """Seconds of ``7d``, ``12h``, ``30m``, ``2w`` or ``90s``."""
    return _read(said, _UNITS_S, "cache_max_age", "a number and s, m, h, d or w, as in 7d")


def read_size(said: str) -> int:
    """Bytes of ``500MB`` or ``2GB``."""
    return int(
        _read(said, _UNITS_BYTES, "cache_max_size", "a number and KB, MB, GB or TB, as in 2GB")
    )


def _read(said: str, units: Mapping[str, int], name: str, right: str) -> float:
    for unit, factor in units.items():
        if said.endswith(unit):
            try:
                amount = float(said.removesuffix(unit))
            except ValueError:
                break
            if 0 < amount < float("inf"):
                return amount * factor
    raise LLMInvalidRequestError(f"{name} is {said!r}, must be {right}", param=name)
