"""Getting a file of which any part may be here already: cut anywhere, it goes on from there.

What has come lies in a part file, with a note beside it of whose part it is. The part stays when a
download ends before its time, by whatever cause; a file that is not the one expected is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from attrs import asdict, frozen

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMProviderError,
    LLMRateLimitError,
    LLMUnavailableError,
)
from headrace.net.clock import Clock
from headrace.net.transport import Headers, HttpReply
from headrace.stores.models.kept import note_of

# So many tries one after the other that bring nothing new, and we give up.
_TRIES = 6
_LONGEST_WAIT_S = 20.0
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@frozen(kw_only=True)
class Opened:
    """An answer that brings the file, and what its giver says of it beside the usual headers."""

    reply: HttpReply
    sha256: str | None = None
    revision: str | None = None


class Origin(Protocol):
    """Where a file comes from."""

    async def open(self, headers: Headers) -> Opened:
        """Ask for it with these headers: 200, 206 or 416 come back, all else is an LLMError."""


@frozen(kw_only=True)
class Received:
    """What was received into the part file, all of it and checked."""

    sha256: str
    size: int
    revision: str | None = None


@frozen(kw_only=True)
class _Note:
    """What is known of the file that a part is of."""

    uri: str
    validator: str | None = None
    total: int | None = None


async def download(
    origin: Origin,
    part: Path,
    *,
    uri: str,
    sha256: str | None,
    progress: Callable[[int, int], None],
    clock: Clock,
) -> Received:
    """Bring the file of ``uri`` into ``part``, all of it; ``progress`` gets the bytes done and all.

    Raises LLMBadResponseError where the file is not the one that ``sha256`` or its giver names, and
    removes it then; whatever else it raises, the part stays to be gone on with.
    """
    getting = _Getting(origin, part, uri, sha256, progress)
    fruitless = 0
    while True:
        farthest = getting.farthest
        try:
            if await getting.go_on() and (received := getting.finish()) is not None:
                return received
            continue
        except (LLMProviderError, LLMRateLimitError) as error:
            if not error.transient:
                raise
            fruitless = 0 if getting.farthest > farthest else fruitless + 1
            if fruitless >= _TRIES:
                error.message = error.message + getting.to_go_on_with()
                error.args = (error.message,)
                raise
            pause = error.retry_after_s or min(_LONGEST_WAIT_S, 0.25 * 2**fruitless)
        await clock.sleep(pause)


class _Getting:
    """One file on its way: the part, its hash so far, and what we know of the whole."""

    def __init__(
        self,
        origin: Origin,
        part: Path,
        uri: str,
        sha256: str | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self._origin, self._part, self._uri, self._progress = origin, part, uri, progress
        self._expected = sha256
        self._revision: str | None = None
        self._note = _read_note(part, uri)
        self._from_before = False
        self._start_over()
        if self._note.uri == uri and part.is_file():
            self._take_up()
        self.farthest = self._have

    def _start_over(self) -> None:
        self._digest = hashlib.sha256()
        self._have = 0

    def _take_up(self) -> None:
        """Hash what lies here from an earlier time."""
        with self._part.open("rb") as file:
            while piece := file.read(1 << 20):
                self._digest.update(piece)
                self._have += len(piece)
        self._from_before = self._have > 0

    async def go_on(self) -> bool:
        """Ask for what is missing, once; whether the whole is here."""
        wanted: Headers = ()
        if self._have and (self._note.validator or self._expected):
            wanted = (("Range", f"bytes={self._have}-"),)
            if self._note.validator is not None:
                wanted += (("If-Range", self._note.validator),)
        opened = await self._origin.open(wanted)
        async with aclosing(opened.reply) as reply:
            self._agree(opened.sha256)
            self._revision = opened.revision or self._revision
            if reply.status == 416 and wanted:
                return self._is_all_here(reply)
            start, total = self._range(reply)
            etag = reply.headers.get("etag")
            if (
                start
                and self._note.validator is not None
                and etag not in (None, self._note.validator)
            ):
                # It goes on with another file than the one that we have the beginning of.
                self._forget()
                return False
            if start == 0:
                self._start_over()
                self._from_before = False
            self._keep_note(reply, total)
            self._check_room(total)
            await self._take(reply, total)
        if total is not None and self._have != total:
            raise LLMUnavailableError(
                f"{self._uri}: the answer ended after {self._have} of {total} bytes"
            )
        return True

    def _agree(self, told: str | None) -> None:
        """Two hashes that differ are two files: that is better known before the download."""
        if told is None:
            return
        if self._expected is not None and told != self._expected:
            raise LLMBadResponseError(
                f"{self._uri} has sha256 {told} by what its giver says, expected {self._expected}"
            )
        self._expected = told

    def _is_all_here(self, reply: HttpReply) -> bool:
        """After 416: the part is as long as the file, or it is no part of it."""
        total = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
        if total is not None and total[3] == str(self._have):
            return True
        self._forget()
        return False

    def _range(self, reply: HttpReply) -> tuple[int, int | None]:
        """Where the body begins, and how long the whole file is where that is told."""
        if reply.status == 200:
            length = reply.headers.get("content-length", "")
            return 0, int(length) if length.isdigit() else None
        said = reply.headers.get("content-range", "")
        span = _CONTENT_RANGE.fullmatch(said)
        if span is None or span[1] is None or int(span[1]) != self._have:
            raise LLMBadResponseError(
                f"{self._uri}: asked for the bytes from {self._have} on, the answer's "
                f"Content-Range is {said!r}"
            )
        return self._have, None if span[3] == "*" else int(span[3])

    def _keep_note(self, reply: HttpReply, total: int | None) -> None:
        validator = reply.headers.get("etag")
        if validator is None or validator.startswith("W/"):
            # A weak one says that two files mean the same, not that they are the same.
            validator = None
        note = _Note(uri=self._uri, validator=validator, total=total)
        if note != self._note or not self._have:
            self._note = note
            note_of(self._part).write_text(json.dumps(asdict(note)), encoding="utf-8")

    def _check_room(self, total: int | None) -> None:
        free = shutil.disk_usage(self._part.parent).free
        missing = 0 if total is None else total - self._have
        if missing > free:
            raise LLMUnavailableError(
                f"{self._uri}: {missing} bytes are missing and {free} are free in "
                f"{self._part.parent}; make room, or name another folder with HEADRACE_CACHE",
                transient=False,
            )

    async def _take(self, reply: HttpReply, total: int | None) -> None:
        # Plain writes: nothing else runs on this loop.
        with self._part.open("r+b" if self._have else "wb") as file:
            file.truncate(self._have)
            file.seek(self._have)
            try:
                async for piece in reply:
                    file.write(piece)
                    file.flush()  # what has come stays, however this process ends
                    self._digest.update(piece)
                    self._have += len(piece)
                    self.farthest = max(self.farthest, self._have)
                    self._progress(self._have, total or 0)
            except LLMBadResponseError as error:
                # Cut short: what is missing may be asked for.
                raise LLMUnavailableError(f"{self._uri}: {error}") from error

    def finish(self) -> Received | None:
        """Check the whole; what is not the file expected is removed.

        ``None`` where that may be the fault of what lay here before: then all of it is to be asked
        for.
        """
        found = self._digest.hexdigest()
        if self._expected is not None and found != self._expected:
            before, self._from_before = self._from_before, False
            self._forget()
            if before:
                return None
            raise LLMBadResponseError(
                f"{self._uri} has sha256 {found}, expected {self._expected}; what was received is "
                "removed"
            )
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        return Received(sha256=found, size=self._have, revision=self._revision)

    def to_go_on_with(self) -> str:
        """What to say of the part, if there is any."""
        return f"; {self._have} bytes are kept: ask again, and it goes on" if self._have else ""

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        note_of(self._part).unlink(missing_ok=True)
        self._note = _Note(uri=self._uri)
        self._start_over()


def _read_note(part: Path, uri: str) -> _Note:
    """The note beside ``part``, or a new one where there is none that can be read."""
    try:
        said = json.loads(note_of(part).read_text(encoding="utf-8"))
        return _Note(uri=said["uri"], validator=said["validator"], total=said["total"])
    except (OSError, ValueError, KeyError, TypeError):
        # Cut short as the process died, or of another version: the part has no meaning then.
        part.unlink(missing_ok=True)
        return _Note(uri=uri)
