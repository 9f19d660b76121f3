"""What our processes tell one another of the engines that they have started: a folder for each.

A folder holds ``engine.json`` while its process may run, the program's logs, and a lock, which is
held by whoever changes anything. It belongs to one machine and one set of process ids, so that a
home directory may be shared.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import platform
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path

from attrs import evolve, field, fields, frozen

from headrace.backends.managed.processes import is_alive, look
from headrace.contracts.convert import from_json, to_json, to_plain
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

log = logging.getLogger(__name__)

_LOCKED_LOOK_S = 0.05
_LOCKED_WITHIN_S = 120.0
_LOGS_KEPT = 5
# Settings that change nothing about the process.
_NOT_ITS_OWN = ("lazy", "idle_timeout_s", "startup_timeout_s", "stop_timeout_s", "api_key_env")
_numbers = count(1)


def default_state() -> Path:
    """``$HEADRACE_STATE``, else ``headrace`` under ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    named = os.environ.get("HEADRACE_STATE")
    if named:
        return Path(named).expanduser()
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "headrace"
    except RuntimeError as homeless:
        raise LLMUnavailableError(
            "there is no home directory to keep the state of engines in; name a folder with "
            "HEADRACE_STATE",
            transient=False,
        ) from homeless


@frozen(kw_only=True)
class User:
    """One user of an engine: a process, and a number within it."""

    pid: int
    born: str
    number: int

    @property
    def lives(self) -> bool:
        return is_alive(self.pid, self.born)


def new_user() -> User:
    """This process once more."""
    ourselves = look(os.getpid())
    assert ourselves is not None
    return User(pid=ourselves.pid, born=ourselves.born, number=next(_numbers))


@frozen(kw_only=True)
class Started:
    """A process that was started for an engine, and those who use it.

    ``served`` is the name under which it was asked to serve the model, ``mark`` stands in its
    environment, ``kept`` says that it stays when nobody uses it. ``command`` is without secrets.
    ``place`` is where process ids mean what they mean there.
    """

    name: str
    model: str
    backend: str
    pid: int
    born: str
    mark: str
    port: int
    base_url: str
    ready_path: str
    served: str
    command: tuple[str, ...]
    started: float
    log: str
    stop_timeout_s: float
    place: str
    metrics_url: str | None = None
    kept: bool = False
    users: tuple[User, ...] = ()

    @property
    def runs(self) -> bool:
        return is_alive(self.pid, self.born)

    @property
    def is_wanted(self) -> bool:
        return self.kept or any(user.lives for user in self.users)

    @property
    def runs_for_somebody(self) -> bool:
        """Else nobody is left who would end it."""
        return self.runs and self.is_wanted

    def with_user(self, user: User) -> Started:
        """It with one user more, without those that have died."""
        return evolve(self, users=(*self.without_user(user).users, user))

    def without_user(self, user: User) -> Started:
        """It with one user less, without those that have died."""
        left = tuple(each for each in self.users if each != user and each.lives)
        return evolve(self, users=left)


@frozen
class Folder:
    """What is known of one engine; two that are set up alike share it."""

    path: Path = field()

    @asynccontextmanager
    async def alone(self, *, at_once: bool = False) -> AsyncGenerator[bool, None]:
        """Within the block nobody else changes anything here.

        It waits for others; ``at_once`` it does not, and says whether it was let in. Raises
        LLMUnavailableError where others take too long.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as refused:
            raise LLMUnavailableError(
                f"the folder {self.path} cannot be written ({refused.strerror}); name another one "
                "with HEADRACE_STATE",
                transient=False,
            ) from refused
        try:
            is_ours, until = _locked(lock), time.monotonic() + _LOCKED_WITHIN_S
            while not is_ours and not at_once:
                if time.monotonic() > until:
                    raise LLMUnavailableError(
                        f"another process has been starting or ending the engine of {self.path} for "
                        f"{_LOCKED_WITHIN_S:g} s; see whether it still runs"
                    )
                await asyncio.sleep(_LOCKED_LOOK_S)
                is_ours = _locked(lock)
            yield is_ours
        finally:
            os.close(lock)

    def read(self) -> Started | None:
        """What was started; ``None`` where nothing was, or it was ended."""
        try:
            return from_json(self._file.read_bytes(), Started)
        except FileNotFoundError:
            return None
        except (LLMInvalidRequestError, OSError) as wrong:
            raise LLMUnavailableError(
                f"{self._file} cannot be read as what this version writes ({wrong}); see whether "
                "the engine that it speaks of runs, and remove the file",
                transient=False,
            ) from wrong

    def write(self, started: Started) -> None:
        """Have it known."""
        new = self._file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(to_json(started))
        new.replace(self._file)

    def clear(self) -> None:
        """Nothing runs any more."""
        self._file.unlink(missing_ok=True)

    def new_log(self) -> Path:
        """A log file for the next process; those of the last ones are kept, each one number on."""
        logs = [self.path / "log", *(self.path / f"log.{i}" for i in range(1, _LOGS_KEPT))]
        for older, newer in zip(logs[:0:-1], logs[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        return logs[0]

    @property
    def _file(self) -> Path:
        return self.path / "engine.json"


def folder_of(config: EngineConfig, state: Path | None = None) -> Folder:
    """The folder of engines that are set up like ``config``."""
    # The gateway's entries say more, which is nothing to their processes.
    names = sorted(each.name for each in fields(EngineConfig) if each.name not in _NOT_ITS_OWN)
    said = [(name, to_plain(getattr(config, name))) for name in names]
    mark = hashlib.sha256(repr((said, place())).encode()).hexdigest()[:10]
    return Folder(engines_folder(state) / f"{config.name}-{mark}")


def folders(state: Path | None = None) -> Iterator[tuple[Folder, Started]]:
    """All in which something was started here, and what."""
    for file in sorted(engines_folder(state).glob("*/engine.json")):
        folder = Folder(file.parent)
        try:
            started = folder.read()
        except LLMUnavailableError as unreadable:
            log.warning("%s", unreadable)
            continue
        if started is not None and started.place == place():
            yield folder, started


def engines_folder(state: Path | None = None) -> Path:
    """What the folders of all engines are in; it may not be there yet."""
    return (state or default_state()) / "engines"


@cache
def place() -> str:
    """Where process ids mean the same as here."""
    try:
        ids = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        ids = ""
    return f"{platform.node()} {ids}"


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
