"""A run as files in its folder: what was asked, how it stands, and whether its process lives.

``request.json`` is written once. ``status.json`` is the run's own word, always whole. A run's
process holds ``lock`` for as long as it lives, whoever has started it and whoever asks; ``pid.json``
says whom to signal. ``.cancelled`` is there once somebody wanted the run to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from pathlib import Path

from attrs import evolve, frozen

from headrace.backends.managed.processes import is_alive, look
from headrace.bench.profile.report.files import mark
from headrace.bench.report.writing import write_file
from headrace.contracts.convert import from_json, to_json
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profiling import LLMProfileRequest, ProfileState, ProfileStatus

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ENDED: frozenset[ProfileState] = frozenset({"done", "failed", "cancelled"})
LOG = "log.txt"
_TAIL_BYTES = 4000
_TAIL_LINES = 12


@frozen(kw_only=True)
class Asked:
    """A run as it was asked for."""

    run_id: str
    created_s: float
    device: str
    request: LLMProfileRequest


@frozen(kw_only=True)
class Process:
    """A run's process; ``born`` tells it from a later one of the same number."""

    pid: int
    born: str


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name

    def ask(self, asked: Asked) -> None:
        """Make the folder, with what is asked for."""
        self.path.mkdir(parents=True, mode=0o755)
        write_file(self.path / "request.json", to_json(asked) + b"\n")

    def asked(self) -> Asked:
        """What was asked for."""
        return from_json((self.path / "request.json").read_bytes(), Asked)

    def told(self) -> ProfileStatus | None:
        """What the run last said of itself, if it has said anything."""
        try:
            return from_json((self.path / "status.json").read_bytes(), ProfileStatus)
        except FileNotFoundError:
            return None
        except LLMInvalidRequestError as error:
            # Not by us: a status is written whole. The run cannot be followed by it.
            asked = self.asked()
            return self._status(asked, "failed", error=f"its status.json cannot be read: {error}")

    def tell(self, status: ProfileStatus) -> None:
        """Write how the run stands; files of one that ended early are marked as such."""
        if status.state in ("failed", "cancelled"):
            mark(self.path, status.error or "it was cancelled")
        write_file(self.path / "status.json", to_json(status) + b"\n")

    def status(self) -> ProfileStatus:
        """How the run stands, by its own word and by whether its process lives."""
        asked = self.asked()
        # In this order: whoever starts it has the lock before it leaves a trace, and a process tells
        # its end before it lets go of the lock.
        was_started = self.was_started
        lives = self.is_running()
        told = self.told()
        if told is not None and told.state in ENDED:
            return told
        if lives:
            return self._status(asked, "running", told)
        if self.is_cancelled:
            return self._status(asked, "cancelled", told)
        if not was_started:
            return self._status(asked, "queued")
        return self._status(asked, "failed", told, error=self._last_words())

    def _status(
        self,
        asked: Asked,
        state: ProfileState,
        told: ProfileStatus | None = None,
        error: str | None = None,
    ) -> ProfileStatus:
        known = told or ProfileStatus(
            run_id=asked.run_id, state=state, artifacts_dir=str(self.path)
        )
        return evolve(
            known,
            run_id=asked.run_id,
            state=state,
            artifacts_dir=str(self.path),
            device=asked.device,
            created_s=asked.created_s,
            error=error,
        )

    # The process.

    @property
    def was_started(self) -> bool:
        """Whether a process was ever started for it."""
        return (self.path / LOG).exists()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody wanted it to end."""
        return (self.path / ".cancelled").exists()

    def cancel(self) -> None:
        """Say that it shall end; who starts runs passes it over."""
        (self.path / ".cancelled").touch()

    def lock(self) -> int | None:
        """The run's lock, to be handed to its process; None where a process has it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_running(self) -> bool:
        """Whether a process holds the lock."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared: who only looks does not keep one another, nor a process, from it for long.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def has_process(self, pid: int) -> None:
        """Keep whom to signal."""
        found = look(pid)
        process = Process(pid=pid, born=found.born if found is not None else "")
        write_file(self.path / "pid.json", to_json(process) + b"\n")

    def signal(self, number: signal.Signals, *, group: bool = False) -> bool:
        """Signal its process (with all that it has started, where ``group``); whether there is one."""
        try:
            process = from_json((self.path / "pid.json").read_bytes(), Process)
        except FileNotFoundError:
            return False
        if not self.is_running() or not is_alive(process.pid, process.born):
            return False
        with contextlib.suppress(ProcessLookupError):
            # It leads a session of its own, so its group has its number.
            (os.killpg if group else os.kill)(process.pid, number)
        return True

    def _last_words(self) -> str:
        with (self.path / LOG).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        said = "\n".join(lines[-_TAIL_LINES:])
        end = "the run's process ended without a word of how"
        return f"{end}; the end of its log:\n{said}" if said else f"{end}, and its log is empty"
