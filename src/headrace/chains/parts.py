"""Files that have their name only when they are whole, and ``name.part`` before."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from headrace.contracts.errors import LLMInvalidRequestError


def part_of(path: Path) -> Path:
    """What ``path`` is called before it is whole."""
    return path.with_name(path.name + ".part")


def open_part(path: Path) -> int:
    """The part of ``path`` as a descriptor, empty, for this process alone until that is closed.

    What a killed process left there is written over. Raises LLMInvalidRequestError where it cannot be
    written, or another process is at it.
    """
    try:
        return _held_alone(part_of(path))
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


def name_part(path: Path) -> None:
    """Give ``path`` its name, also for after a power cut; raises OSError."""
    part_of(path).replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _held_alone(part: Path) -> int:
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
