"""Processes as the system knows them: whether one is still the same, who belongs to it, its end.

A process id alone says little: the system gives it to another one later. So each is known by its id
and by when it was ``born``, which no two with the same id share. ``/proc`` tells; where there is
none (macOS) ``ps`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

from headrace.contracts.errors import LLMUnavailableError

_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "stat").exists()
_GONE_STATES = frozenset("ZXx")
_LOOK_FIRST_S, _LOOK_MOST_S = 0.01, 0.1
_KILLED_WITHIN_S = 5.0
# A program should not inherit what we chose to ignore.
_USUAL_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

_ours: set[int] = set()
"""Children that nobody has asked for their exit status yet."""


@frozen(kw_only=True)
class Process:
    """A process that runs now; ``rss_bytes`` counts memory that it shares with others in full."""

    pid: int
    group: int
    session: int
    born: str
    rss_bytes: int


def look(pid: int) -> Process | None:
    """The process of that id; ``None`` where it is gone, or has ended and only its status is left."""
    if not _HAS_PROC:
        return next(iter(_asked_ps("-p", str(pid))), None)
    try:
        # The name, in parentheses, may hold spaces and parentheses of its own.
        words = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if words[0] in _GONE_STATES:
        return None
    return Process(
        pid=pid,
        group=int(words[2]),
        session=int(words[3]),
        born=f"{_boot()}-{words[19]}",
        rss_bytes=int(words[21]) * _page_bytes(),
    )


def is_alive(pid: int, born: str) -> bool:
    """Whether that very process runs."""
    found = look(pid)
    return found is not None and found.born == born


def members(leader: int, born: str, mark: str | None = None) -> list[Process]:
    """All that run in the group or session of ``leader``, itself included.

    Where it has ended, and its id may have become another's, only those are meant that carry
    ``mark`` in their environment, if one is given.
    """
    if not _HAS_PROC:
        found = [each for each in _asked_ps("-ax") if each.group == leader]
    else:
        pids = [int(each.name) for each in _PROC.iterdir() if each.name.isdigit()]
        running = (look(pid) for pid in pids)
        found = [each for each in running if each and leader in (each.group, each.session)]
    first = next((each for each in found if each.pid == leader), None)
    if first is not None:
        return found if first.born == born else []
    return [each for each in found if mark is None or _carries(each.pid, mark)]


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Start ``argv`` as the leader of a session of its own, with its output in ``log``.

    It is not ended with us, for others may use it. Raises OSError where it cannot be started.
    """
    _reap()
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_USUAL_SIGNALS,
    )
    _ours.add(pid)
    return look(pid) or Process(pid=pid, group=pid, session=pid, born="", rss_bytes=0)


async def ended(pid: int, born: str) -> int | None:
    """Wait until that process has ended; its exit status (a signal's negative), where it is ours."""
    watch = _opened(pid)
    try:
        if watch is None:
            while is_alive(pid, born):  # noqa: ASYNC110  no event
                await asyncio.sleep(_LOOK_MOST_S)
        elif is_alive(pid, born):  # looked at only now: the descriptor is surely of this one
            await _readable(watch)
    finally:
        if watch is not None:
            os.close(watch)
    return _status(pid)


async def end(leader: int, born: str, patience_s: float, mark: str | None = None) -> bool:
    """End ``leader`` and all its group: ask, and after ``patience_s`` kill. Whether it took that.

    Raises LLMUnavailableError where they outlive even that: the system itself holds them.
    """
    if await _asked_to_end(signal.SIGTERM, leader, born, patience_s, mark):
        return False
    if not await _asked_to_end(signal.SIGKILL, leader, born, _KILLED_WITHIN_S, mark):
        left = [each.pid for each in members(leader, born, mark)]
        raise LLMUnavailableError(
            f"processes {left} have been killed and are still there", transient=False
        )
    return True


async def _asked_to_end(
    sign: signal.Signals, leader: int, born: str, patience_s: float, mark: str | None
) -> bool:
    for each in members(leader, born, mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, sign)
    wait_s, loop = _LOOK_FIRST_S, asyncio.get_running_loop()
    until = loop.time() + patience_s
    # To look at all processes takes a while where there are thousands, so its leader is waited for.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await ended(leader, born)
    while members(leader, born, mark):
        if loop.time() > until:
            return False
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LOOK_MOST_S)
    _status(leader)
    return True


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    turned: asyncio.Future[None] = loop.create_future()

    def turn() -> None:
        if not turned.done():
            turned.set_result(None)

    loop.add_reader(descriptor, turn)
    try:
        await turned
    finally:
        loop.remove_reader(descriptor)


def _opened(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it is gone, or this system has none: looking tells
        return None


def _status(pid: int) -> int | None:
    if pid not in _ours:
        return None
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        _ours.discard(pid)
        return None
    if not found:
        return None
    _ours.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _reap() -> None:
    """Have those of our children forgotten that were left to others and have ended since."""
    for pid in tuple(_ours):
        if look(pid) is None:
            _status(pid)


def _carries(pid: int, mark: str) -> bool:
    if not _HAS_PROC:
        return False
    try:
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or somebody else's
        return False


def _asked_ps(*which: str) -> list[Process]:
    asked = subprocess.run(
        ["/bin/ps", *which, "-o", "pid=,pgid=,stat=,rss=,lstart="],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    rows = [line.split(maxsplit=4) for line in asked.stdout.splitlines()]
    return [
        Process(
            pid=int(pid),
            group=int(group),
            session=int(group),
            born=born.strip(),
            rss_bytes=1024 * int(kib),
        )
        for pid, group, state, kib, born in rows
        if state[0] not in _GONE_STATES
    ]


@cache
def _boot() -> str:
    """Instants of birth count from when the system began, so it belongs to them."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "boot"


@cache
def _page_bytes() -> int:
    return os.sysconf("SC_PAGESIZE")
