"""The files that results go to: each is ``name.part`` until all of them are whole."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_UNITS = {
    "": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}

_BUFFER_BYTES = 1 << 16


def size_of(text: str, field: str) -> int:
    """The bytes that ``text`` says, as in ``256MB`` or ``1GiB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip())
    units = {name.lower(): size for name, size in _UNITS.items()}
    if found is None or found[2].lower() not in units or float(found[1]) <= 0:
        raise LLMInvalidRequestError(
            f"{field} is {text!r}, must be a size such as 256MB; units: {', '.join(filter(None, _UNITS))}",
            param=field,
        )
    return max(1, int(float(found[1]) * units[found[2].lower()]))


class Part:
    """One file, as ``path.part``, which pyarrow can write to as well.

    What lies there from a run that was killed is written over; while another run writes there,
    there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._part = path.with_name(path.name + ".part")
        self._buffer = bytearray()
        try:
            self._descriptor = _held_alone(self._part)
        except BlockingIOError as error:
            raise LLMInvalidRequestError(
                f"output is {str(path)!r}, which another process works on; wait until the run there "
                "ends, or name another file",
                param="output",
            ) from error
        except OSError as error:
            raise LLMInvalidRequestError(
                f"output is {str(path)!r}, which cannot be written: {error.strerror}; make its folder "
                "writable, or name another file",
                param="output",
            ) from error
        self.closed = False

    def write(self, data: bytes) -> int:
        """Raises LLMUnavailableError where there is no room for it."""
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self.show()
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing: what is written is whole only at the end."""

    def show(self) -> None:
        """Have in ``path.part`` what was written, for whoever follows it."""
        with _told(str(self._part)):
            _write(self._descriptor, self._buffer)

    def keep(self) -> None:
        """All of it is there, and on disk."""
        self.show()
        with _told(str(self._part)):
            os.fsync(self._descriptor)

    def name(self) -> None:
        """Give it its own name."""
        with _told(str(self._part)):
            self._part.replace(self.path)

    def close(self) -> None:
        """Let others in."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)


class StandardOutput:
    """Standard output as a file that needs no name."""

    def __init__(self) -> None:
        self.size = 0
        self._buffer = bytearray()
        sys.stdout.flush()

    def write(self, data: bytes) -> int:
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self.show()
        return len(data)

    def show(self) -> None:
        with _told("-"):
            _write(sys.stdout.fileno(), self._buffer)

    def keep(self) -> None:
        self.show()

    def name(self) -> None:
        """It has none."""

    def close(self) -> None:
        """It is not ours to close."""


class Files:
    """One file after the other, each of ``split_bytes`` at most where that is given.

    Those are ``name-00001.ext`` and on. Files of such names from an earlier run that wrote more of
    them go, as a single file is replaced.
    """

    def __init__(self, path: Path | None, split_bytes: int | None = None) -> None:
        self._path, self.split_bytes = path, split_bytes
        self._all: list[Part | StandardOutput] = []
        self.next()

    @property
    def here(self) -> Part | StandardOutput:
        """The one that is written to."""
        return self._all[-1]

    def makes_room(self, size: int) -> bool:
        """Whether ``size`` more bytes began a new file, for they were too many for this one."""
        if not self.is_too_full_for(size):
            return False
        self.next()
        return True

    def is_too_full_for(self, size: int) -> bool:
        """Whether ``size`` more bytes are too many for this one."""
        here, most = self.here.size, self.split_bytes
        return most is not None and here > 0 and here + size > most

    def next(self) -> None:
        """Begin the next one."""
        if self._path is None:
            self._all.append(StandardOutput())
            return
        if self._all:
            self.here.keep()
        if len(self._all) > 1:
            self.here.close()  # the first one stays open, so that no other run begins
        path = self._path
        if self.split_bytes is not None:
            path = path.with_name(f"{path.stem}-{len(self._all) + 1:05}{path.suffix}")
        self._all.append(Part(path))

    def finish(self) -> None:
        """They are whole: all have their names, and lie on disk."""
        self.here.keep()
        for each in self._all:
            each.name()
        if self._path is not None:
            with _told(str(self._path)):
                if self.split_bytes is not None:
                    self._remove_others(self._path)
                _sync(self._path.parent)
        self.abandon()

    def abandon(self) -> None:
        """Leave what there is of them as it is."""
        for each in self._all:
            each.close()

    def _remove_others(self, path: Path) -> None:
        ours = re.compile(rf"{re.escape(path.stem)}-(\d{{5,}}){re.escape(path.suffix)}(\.part)?")
        for other in path.parent.iterdir():
            found = ours.fullmatch(other.name)
            if found is not None and int(found[1]) > len(self._all):
                other.unlink()


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LLMUnavailableError(
            f"output {what!r} cannot be written ({error.strerror}): what was done is kept; make room, "
            "and the same command goes on from there"
        ) from error


def _write(descriptor: int, buffer: bytearray) -> None:
    while buffer:
        del buffer[: os.write(descriptor, buffer)]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _held_alone(part: Path) -> int:
    """``part``, empty and open; raises BlockingIOError where another process has it."""
    while True:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), part.stat()):
                    os.ftruncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever had it gave it its name meanwhile: it is a result by now.
        os.close(descriptor)
