"""Several senders of one plan, wherever they run: told what to do, heard, and put together.

A sender is a process that runs ``workers.main``. What it is told and what it tells are frames;
how those get there is the business of who starts it (``workers``: pipes, ``hosts``: Ray).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from attrs import evolve, frozen
from msgspec import msgpack

from headrace.bench.load.beside import Beside
from headrace.bench.load.drive import Stop
from headrace.bench.load.shares import Driven, Share, all_together, read_driven
from headrace.contracts import errors
from headrace.contracts.errors import LLMError
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import Moment
from headrace.numbers.load_course import Course

_READY_WITHIN_S = 60.0
_ASKED_EVERY_S = 0.05
_MOMENT_AFTER_S = 0.5
"""How long after its end an interval is told: by then all have told their part of it."""
_AT_ONCE_S = 5.0
"""How long those who were asked to end at once are waited for; who has not told by then is lost."""

Told = dict[str, Any]


@frozen(kw_only=True)
class Job:
    """What a sender is started with. ``core`` is the one that it keeps to."""

    plan: LoadPlan
    share: Share
    run_id: str
    core: int | None = None


class Heard:
    """What one sender has said so far."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.over = False
        self.driven: bytes | None = None
        self.error: LLMError | None = None
        self.courses: list[Told] = []

    def hear(self, frame: bytes) -> None:
        """It said ``frame``."""
        said: Told = msgpack.decode(frame)
        if "ready" in said:
            self.ready.set()
        elif "course" in said:
            self.courses.append(said["course"])
        elif "driven" in said:
            self.driven = said["driven"]
        else:
            name, message, status = said["error"]
            self.error = getattr(errors, name)(message, status=status)

    def end(self) -> None:
        """It will say no more."""
        self.over = True
        self.ready.set()


class Member(Protocol):
    """A sender, as who started it sees it. Who is over is told nothing."""

    @property
    def heard(self) -> Heard:
        """What it has said."""

    def begin(self, at: float) -> None:
        """Begin at that instant of our own monotonic clock."""

    def stop(self) -> None:
        """Send no more; said a second time, end at once."""


async def drive_all(
    members: Sequence[Member],
    beside: Beside,
    *,
    instant: Callable[[], Awaitable[float]],
    on_moment: Callable[[Moment], None] | None,
    stop: Stop,
) -> float:
    """From the first of them that is ready to the last that has told what it measured.

    ``instant`` is asked once all are ready, and says when to begin; that is returned. An error of
    one of them is an error of the run, and ends it.
    """
    heard = [member.heard for member in members]
    await _until_ready(heard, stop)
    if any(each.error is not None for each in heard):
        return monotonic()
    begin = await instant()
    for member in members:
        member.begin(begin)
    beside.begin(begin)
    moments = _Moments(begin, on_moment)
    asked, at_latest = 0, float("inf")
    while not all(each.over for each in heard) and monotonic() < at_latest:
        await asyncio.sleep(_ASKED_EVERY_S)
        if any(each.error is not None for each in heard):
            break
        while asked < stop.level:
            asked += 1
            for member in members:
                member.stop()
            if asked == 2:
                at_latest = monotonic() + _AT_ONCE_S
        moments.look(heard)
    return begin


async def _until_ready(heard: Sequence[Heard], stop: Stop) -> None:
    until = monotonic() + _READY_WITHIN_S
    while not all(each.ready.is_set() for each in heard) and monotonic() < until:
        if stop.level or any(each.error is not None for each in heard):
            return
        await asyncio.sleep(_ASKED_EVERY_S / 5)


class _Moments:
    """Tells every second that is over, once all have told their part of it."""

    def __init__(self, begin: float, on_moment: Callable[[Moment], None] | None) -> None:
        self._begin, self._on_moment = begin, on_moment
        self._course, self._told = Course(), -1.0

    def look(self, heard: Sequence[Heard]) -> None:
        for each in heard:
            for piece in each.courses:
                self._course.merge(Course.from_plain(piece))
            each.courses.clear()
        if self._on_moment is None:
            return
        moment = self._course.moment(monotonic() - self._begin - _MOMENT_AFTER_S)
        if moment is not None and moment.at != self._told:
            self._told = moment.at
            self._on_moment(moment)


def put_together(plan: LoadPlan, members: Sequence[Member]) -> Driven | None:
    """What all of them measured as one; None where none of them could tell anything.

    Raises the error of the first that had one.
    """
    heard = [member.heard for member in members]
    failed = next((each.error for each in heard if each.error is not None), None)
    if failed is not None:
        raise failed
    parts = [read_driven(plan, each.driven) for each in heard if each.driven is not None]
    if not parts:
        return None
    return all_together(plan, parts, lost=len(heard) - len(parts))


def with_notes(driven: Driven, before: tuple[str, ...], after: tuple[str, ...]) -> Driven:
    """``driven`` with more to be said, nothing of it twice."""
    return evolve(driven, notes=tuple(dict.fromkeys(before + driven.notes + after)))
