"""The files that results go to: each is ``name.part`` until all of them are whole."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

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
    """One file, as ``path.part``, which pyarrow can write to as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self.size = 0
        try:
            self.file: BinaryIO = self._part.open("wb", buffering=1 << 16)
        except OSError as error:
            raise LLMInvalidRequestError(
                f"output is {str(path)!r}, which cannot be written: {error.strerror}",
                param="output",
            ) from error

    def write(self, data: bytes) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            raise unwritable(str(self.path), error) from error
        self.size += len(data)
        return len(data)

    @property
    def closed(self) -> bool:
        return self.file.closed

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """What closes it writes all; until then nobody reads it."""

    def close(self) -> None:
        """All of it is there, and on disk."""
        if self.file.closed:
            return
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
        except OSError as error:
            raise unwritable(str(self.path), error) from error

    def name(self) -> None:
        """Give it its own name."""
        self._part.replace(self.path)

    def abandon(self) -> None:
        """It is not whole, and stays ``path.part``."""
        try:
            self.file.close()
        except OSError:
            return  # it could not be written, which was told; and nobody will read it


class StandardOutput:
    """Standard output as a file that needs no name."""

    size = 0

    def write(self, data: bytes) -> None:
        try:
            sys.stdout.buffer.write(data)
        except OSError as error:
            raise unwritable("standard output", error) from error

    def close(self) -> None:
        try:
            sys.stdout.buffer.flush()
        except OSError as error:
            raise unwritable("standard output", error) from error

    def name(self) -> None: ...

    def abandon(self) -> None:
        self.close()


class Files:
    """One file after the other, each of ``split_bytes`` at most where that is given.

    Those are ``name-00001.ext`` and on. Files of such names from an earlier run that wrote more of
    them go, as a single file is replaced.
    """

    def __init__(self, path: Path | None, split_bytes: int | None = None) -> None:
        self._path, self.split_bytes = path, split_bytes
        self._parts: list[Part] = []
        self._out = StandardOutput() if path is None else None
        if self._out is None:
            self.next()

    @property
    def count(self) -> int:
        """How many there are so far."""
        return 1 if self._out is not None else len(self._parts)

    @property
    def here(self) -> Part | StandardOutput:
        """The one that is written to."""
        return self._out or self._parts[-1]

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
        assert self._path is not None
        if self._parts:
            self._parts[-1].close()
        path = self._path
        if self.split_bytes is not None:
            path = path.with_name(f"{path.stem}-{len(self._parts) + 1:05}{path.suffix}")
        self._parts.append(Part(path))

    def finish(self) -> None:
        """They are whole: all have their names."""
        self.here.close()
        if self._path is not None and self.split_bytes is not None:
            self._remove_others(self._path)
        for part in self._parts:
            part.name()

    def abandon(self) -> None:
        """They are not whole."""
        self.here.abandon()

    def _remove_others(self, path: Path) -> None:
        ours = re.compile(rf"{re.escape(path.stem)}-(\d{{5,}}){re.escape(path.suffix)}(\.part)?")
        for other in path.parent.iterdir():
            found = ours.fullmatch(other.name)
            if found is not None and int(found[1]) > len(self._parts):
                other.unlink()


def unwritable(what: str, error: OSError) -> LLMUnavailableError:
    """The error for output that cannot be written."""
    return LLMUnavailableError(
        f"{what} cannot be written ({error.strerror}): what was done is kept in the run's folder; run "
        "it again when it can"
    )
