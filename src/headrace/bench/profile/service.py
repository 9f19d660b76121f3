"""Profiles on demand, each in a process of its own, one at a time on each device.

Everything that is known stands in files, so that another service can go on where one has ended: a
run that goes on is followed, what waits is started, and what died is told as failed. Where two
services share a folder, one of them starts runs; both can tell how they stand and end them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from headrace.bench.profile.allowed import check_request, device_of
from headrace.bench.profile.folders import ENDED, LOG, RUN_ID, Asked, RunFolder
from headrace.bench.profile.report.files import HASHES, is_artifact
from headrace.contracts.errors import LLMInvalidRequestError, LLMRateLimitError
from headrace.contracts.profiling import (
    LLMProfileAccepted,
    LLMProfileRequest,
    ProfileArtifact,
    ProfileStatus,
)

log = logging.getLogger(__name__)

CHILD = (sys.executable, "-m", "headrace.bench.profile.child")
_LOOK_S = 0.2
_END_LOOK_S = 0.05


class Profiles:
    """Meets ``contracts.profiling.ProfileService``. Enter it, and it starts what waits.

    ``roots`` are what models and inputs may lie under; ``keep`` is how many ended runs are kept,
    ``most_waiting`` how many may wait, ``patience_s`` how long a run that is cancelled may take to
    write what it has. ``program`` is run with the run's folder. Leaving ends no run.
    """

    def __init__(
        self,
        folder: Path,
        roots: Sequence[Path],
        *,
        keep: int = 20,
        most_waiting: int = 20,
        patience_s: float = 10.0,
        may_run_code: bool = False,
        program: Sequence[str] = CHILD,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._roots = folder.absolute(), tuple(roots)
        self._keep, self._most_waiting, self._patience_s = keep, most_waiting, patience_s
        self._may_run_code, self._program, self._now = may_run_code, tuple(program), now
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._turn = asyncio.Lock()
        self._starter: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, ProfileStatus] = {}
        self._told: set[str] = set()

    async def __aenter__(self) -> Profiles:
        self._task = asyncio.create_task(self._run(), name="profiles")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        ends = tuple(self._ends.values())
        for task in (self._task, *ends):
            task.cancel()
        await asyncio.gather(self._task, *ends, return_exceptions=True)
        for child in self._children.values():
            # It lives on, and is meant to; else Python would warn of it.
            child.returncode = child.poll() or 0
        if self._starter is not None:
            os.close(self._starter)
            self._starter = None

    # What is asked.

    async def submit(self, request: LLMProfileRequest) -> LLMProfileAccepted:
        """Take ``request`` in; raises LLMInvalidRequestError for what cannot be run here."""
        roots, may = self._roots, self._may_run_code
        await asyncio.to_thread(check_request, request, roots, may_run_code=may)
        async with self._turn:
            return await asyncio.to_thread(self._submit, request)

    async def status(self, run_id: str) -> ProfileStatus:
        """How a run stands; raises LLMInvalidRequestError for one that is not known."""
        return await asyncio.to_thread(self._status_of, self._run_of(run_id))

    async def list(self) -> tuple[ProfileStatus, ...]:
        """Every run that is known, the newest first."""
        async with self._turn:
            return tuple(reversed(await asyncio.to_thread(self._statuses)))

    async def cancel(self, run_id: str) -> ProfileStatus:
        """End a run; what it has written is kept and marked. One that has ended stays as it is.

        It is told to end, and comes back as it stands then; where it does not end it is killed.
        """
        run = self._run_of(run_id)
        async with self._turn:
            if run.status().state not in ENDED:
                run.cancel()
                # Again: it may have been started meanwhile.
                status = run.status()
                if status.state == "running":
                    self._end_soon(run)
                elif status.state == "cancelled":
                    run.tell(status)
        return run.status()

    async def artifacts(self, run_id: str) -> tuple[ProfileArtifact, ...]:
        """The files that a run has written so far."""
        run = self._run_of(run_id)
        return await asyncio.to_thread(_artifacts, run)

    # What is done.

    async def _run(self) -> None:
        while True:
            async with self._turn:
                try:
                    for run in await asyncio.to_thread(self._look):
                        self._end_soon(run)
                except (OSError, LLMInvalidRequestError):
                    # A full disk, say: it may be mended, and what runs goes on.
                    log.exception("profiles in %s cannot be looked after now", self._folder)
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> Sequence[RunFolder]:
        """Tell ends, start what waits, forget what is old; the runs that are to be ended."""
        statuses = self._statuses()
        for status in statuses:
            run = RunFolder(self._folder / status.run_id)
            told = run.told() if status.run_id not in self._told else status
            if status.state in ENDED and (told is None or told.state not in ENDED):
                # An end that the run itself could not write.
                run.tell(status)
                log.warning("profile %s: %s", run.run_id, status.error or status.state)
            if status.state in ENDED:
                self._told.add(status.run_id)
        self._start_waiting(statuses)
        self._forget(statuses)
        running = [RunFolder(self._folder / s.run_id) for s in statuses if s.state == "running"]
        return [run for run in running if run.is_cancelled]

    def _submit(self, request: LLMProfileRequest) -> LLMProfileAccepted:
        waiting = sum(status.state == "queued" for status in self._statuses())
        if waiting >= self._most_waiting:
            raise LLMRateLimitError(
                f"{waiting} profiles wait already, and at most {self._most_waiting} may "
                "(profiles.max_queued); ask again when one has ended",
                retry_after_s=30.0,
            )
        created = self._now()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(created))
        # Names are in the order of asking, within a second too.
        fraction = int(created % 1 * 0x10000)
        run = RunFolder(self._folder / f"{stamp}-{fraction:04x}{secrets.token_hex(2)}")
        device = device_of(request)
        run.ask(Asked(run_id=run.run_id, created_s=created, device=device, request=request))
        self._start_waiting(self._statuses())
        return LLMProfileAccepted(
            run_id=run.run_id,
            status="queued" if run.status().state == "queued" else "running",
            artifacts_dir=str(run.path),
        )

    def _start_waiting(self, statuses: Sequence[ProfileStatus]) -> None:
        if not self._is_starter():
            return
        busy = {status.device for status in statuses if status.state == "running"}
        for status in statuses:
            if status.state == "queued" and status.device not in busy:
                self._start(RunFolder(self._folder / status.run_id))
                busy.add(status.device)

    def _start(self, run: RunFolder) -> None:
        lock = run.lock()
        if lock is None:
            return
        try:
            if run.is_cancelled:
                return
            with (run.path / LOG).open("ab") as out:
                try:
                    child = self._spawn(run, lock, out)
                except OSError as error:
                    out.write(f"its process cannot be started: {error}\n".encode())
                    return
        finally:
            os.close(lock)
        self._children[run.run_id] = child
        run.has_process(child.pid)
        log.info("profile %s runs as process %d", run.run_id, child.pid)

    def _spawn(self, run: RunFolder, lock: int, out: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._program, str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # It has the lock as long as it lives, and lives on when we end.
            pass_fds=(lock,),
            start_new_session=True,
        )

    def _end_soon(self, run: RunFolder) -> None:
        if run.run_id not in self._ends:
            task = asyncio.create_task(self._end(run), name=f"end of profile {run.run_id}")
            self._ends[run.run_id] = task
            task.add_done_callback(lambda _: self._ends.pop(run.run_id))

    async def _end(self, run: RunFolder) -> None:
        end = time.monotonic() + self._patience_s
        heard = False
        while run.is_running() and time.monotonic() < end:
            # One that has just been started has nobody to be signalled yet.
            heard = heard or run.signal(signal.SIGTERM)
            await asyncio.sleep(_END_LOOK_S)
            self._reap()
        if run.signal(signal.SIGKILL, group=True):
            log.warning("profile %s did not end in %g s: killed", run.run_id, self._patience_s)
        while run.is_running():
            await asyncio.sleep(_END_LOOK_S)
            self._reap()
        told, status = run.told(), run.status()
        if told is None or told.state not in ENDED:
            run.tell(status)

    def _reap(self) -> None:
        for run_id, child in tuple(self._children.items()):
            if child.poll() is not None:
                del self._children[run_id]

    def _forget(self, statuses: Sequence[ProfileStatus]) -> None:
        ended = [status for status in statuses if status.state in ENDED]
        for status in ended[: max(0, len(ended) - self._keep)]:
            shutil.rmtree(self._folder / status.run_id)
            self._ended.pop(status.run_id, None)
            self._told.discard(status.run_id)
            log.info("profile %s is forgotten: %d ended ones are kept", status.run_id, self._keep)

    def _is_starter(self) -> bool:
        """Whether it is for this service to start runs; the first that asks has that."""
        if self._starter is None and self._folder.exists():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._folder / ".starter", flags, 0o644)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._starter = descriptor
                return True
            os.close(descriptor)
        return self._starter is not None

    # What is there.

    def _run_of(self, run_id: str) -> RunFolder:
        run = RunFolder(self._folder / run_id) if RUN_ID.fullmatch(run_id) else None
        if run is None or not (run.path / "request.json").exists():
            raise LLMInvalidRequestError(
                f"there is no profile {run_id[:80]!r}; GET /v1/profiles lists those that there are",
                status=404,
                param="run_id",
                code="profile_not_found",
            )
        return run

    def _statuses(self) -> Sequence[ProfileStatus]:
        """The oldest first."""
        self._reap()
        if not self._folder.exists():
            return []
        runs = [
            RunFolder(path)
            for path in self._folder.iterdir()
            if RUN_ID.fullmatch(path.name) and (path / "request.json").exists()
        ]
        found = [self._status_of(run) for run in runs]
        return sorted(found, key=lambda status: (status.created_s or 0.0, status.run_id))

    def _status_of(self, run: RunFolder) -> ProfileStatus:
        """An end is read once: it does not change."""
        status = self._ended.get(run.run_id) or run.status()
        if status.state in ENDED:
            self._ended[run.run_id] = status
        return status


def _artifacts(run: RunFolder) -> tuple[ProfileArtifact, ...]:
    """What lies there, with the hashes that the run has written; a file of before has none."""
    try:
        lines = (run.path / HASHES).read_text().splitlines()
    except FileNotFoundError:
        lines = []
    hashes = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = []
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        if path.is_symlink() or not path.is_file() or not (is_artifact(name) or name == LOG):
            continue
        found.append(
            ProfileArtifact(name=name, size_bytes=path.stat().st_size, sha256=hashes.get(name))
        )
    return tuple(found)
