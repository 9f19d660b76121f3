"""The reports of load tests as files, in each of their forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from headrace.bench.report.rates import RatePoint
from headrace.bench.report.requests_csv import NO_REQUESTS
from headrace.bench.report.saved import FILE_NAME, read_file, write_report
from headrace.bench.report.writing import (
    NotWritten,
    ReportNotWritten,
    reason,
    write_file,
    write_files,
)
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load_report import LoadReport

Form: TypeAlias = Literal["json", "csv", "html", "markdown", "hdr"]
FORMS: tuple[Form, ...] = get_args(Form)
_Make: TypeAlias = Callable[[], bytes]


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
    return write_files(
        (folder / name, make)
        for form in FORMS
        if form in wanted
        for name, make in _files(report, form, points).items()
    )


def write_as(report: LoadReport, form: Form, path: Path) -> list[Path]:
    """Write the one file of ``form`` to ``path``; ReportNotWritten where that is not possible."""
    if form == "csv" and report.requests is None:
        raise LLMInvalidRequestError(NO_REQUESTS, param="requests")
    (make,) = _files(report, form, ()).values()
    try:
        write_file(path, make())
    except OSError as error:
        raise ReportNotWritten([], [NotWritten(path=path, reason=reason(error))]) from error
    return [path]


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
