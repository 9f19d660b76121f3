"""Reports as files: each is written beside its place and moved there, so none is ever half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from attrs import frozen

from headrace.bench.report.rates import RatePoint
from headrace.bench.report.requests_csv import NO_REQUESTS
from headrace.bench.report.saved import FILE_NAME, read_file, write_report
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.contracts.load_report import LoadReport

Form: TypeAlias = Literal["json", "csv", "html", "markdown", "hdr"]
FORMS: tuple[Form, ...] = get_args(Form)
_Make: TypeAlias = Callable[[], bytes]


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


def write_all(
    report: LoadReport,
    folder: Path,
    forms: Iterable[Form] = FORMS,
    points: Sequence[RatePoint] = (),
) -> list[Path]:
    """Write the report's ``forms`` into ``folder``, which is made where it is not there.

    The JSON goes first. What can be written is; ReportNotWritten tells of the rest at the end.
    There is a ``requests.csv`` only where the report has its requests, and an ``.hgrm`` only for a
    time that some request has. ``points`` are the rates of a search, drawn in the HTML.
    """
    wanted = set(forms)
    if unknown := wanted - set(FORMS):
        raise ValueError(f"forms has {min(unknown)!r}; known: {', '.join(FORMS)}")
    written: list[Path] = []
    missing: list[NotWritten] = []
    for form in FORMS:
        for name, make in _files(report, form, points).items() if form in wanted else ():
            path = folder / name
            try:
                write_file(path, make())
            except OSError as error:
                missing.append(NotWritten(path=path, reason=_reason(error)))
            else:
                written.append(path)
    if missing:
        raise ReportNotWritten(written, missing)
    return written


def write_as(report: LoadReport, form: Form, path: Path) -> list[Path]:
    """Write the one file of ``form`` to ``path``; ReportNotWritten where that is not possible."""
    if form == "csv" and report.requests is None:
        raise LLMInvalidRequestError(NO_REQUESTS, param="requests")
    (make,) = _files(report, form, ()).values()
    try:
        write_file(path, make())
    except OSError as error:
        raise ReportNotWritten([], [NotWritten(path=path, reason=_reason(error))]) from error
    return [path]


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


def read(path: Path) -> LoadReport:
    """The report in ``path``, a ``report.json`` or the folder that holds one."""
    return read_file(path)


def _files(report: LoadReport, form: Form, points: Sequence[RatePoint]) -> Mapping[str, _Make]:
    """How each file of a form is made, by its name."""
    from headrace.bench.report.hdr import distributions
    from headrace.bench.report.html import html
    from headrace.bench.report.markdown import markdown
    from headrace.bench.report.requests_csv import requests_csv

    match form:
        case "json":
            return {FILE_NAME: lambda: write_report(report)}
        case "csv":
            made: Mapping[str, _Make] = {"requests.csv": lambda: requests_csv(report).encode()}
            return made if report.requests is not None else {}
        case "html":
            return {"report.html": lambda: html(report, points).encode()}
        case "markdown":
            return {"report.md": lambda: markdown(report).encode()}
        case "hdr":
            texts = distributions(report)
            return {name: text.encode for name, text in texts.items()}


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
