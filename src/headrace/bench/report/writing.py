"""Files of a report: each is written beside its place and moved there, so none is ever half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import frozen

from headrace.contracts.errors import LLMError


@frozen(kw_only=True)
class NotWritten:
    """A file of the report that is not there, and why."""

    path: Path
    reason: str


class ReportNotWritten(LLMError):
    """Some files of a report could not be written; the report itself is whole, and in memory.

    ``written`` are the files that are there, ``missing`` those that are not.
    """

    def __init__(self, written: Sequence[Path], missing: Sequence[NotWritten]) -> None:
        reasons: dict[tuple[Path, str], list[str]] = {}
        for m in missing:
            reasons.setdefault((m.path.parent, m.reason), []).append(m.path.name)
        said = "; ".join(
            f"{folder / names[0] if len(names) == 1 else folder} cannot be written: {reason}"
            + (f" ({', '.join(names)})" if len(names) > 1 else "")
            for (folder, reason), names in reasons.items()
        )
        super().__init__(f"{said}; free some room there, or name another folder")
        self.written = tuple(written)
        self.missing = tuple(missing)


def write_file(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, all of it or nothing; its folder is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(21, "a folder is there", str(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # A disk may find out that it is full only now.
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_files(
    files: Iterable[tuple[Path, Callable[[], bytes]]], earlier: Sequence[Path] = ()
) -> list[Path]:
    """Write each file that can be written; ReportNotWritten tells of the rest at the end.

    ``earlier`` are files of the same report that are there already, for it to name.
    """
    written: list[Path] = []
    missing: list[NotWritten] = []
    for path, make in files:
        try:
            write_file(path, make())
        except OSError as error:
            missing.append(NotWritten(path=path, reason=reason(error)))
        else:
            written.append(path)
    if missing:
        raise ReportNotWritten([*earlier, *written], missing)
    return written


def reason(error: OSError) -> str:
    """Why a file could not be written, in the system's words."""
    return error.strerror or str(error)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
