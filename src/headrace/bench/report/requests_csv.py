"""The measured requests as CSV: a line each, under the names that the report's JSON has for them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from attrs import fields

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load_report import Columns, LoadReport

NO_REQUESTS = "this report was saved without its single requests, so there is nothing to list"
NAMES = tuple(f.name for f in fields(Columns))


def requests_csv(report: LoadReport) -> str:
    """A header and a line for each request; what is not known of it is left empty.

    Times end in ``_ms``, instants since the run's beginning in ``_s``.
    """
    if report.requests is None:
        raise LLMInvalidRequestError(NO_REQUESTS, param="requests")
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    write.writerow(NAMES)
    write.writerows(rows(report.requests))
    return text.getvalue()


def rows(columns: Columns) -> Iterator[tuple[object, ...]]:
    """Each request, its values in the order of ``NAMES``; a column that is not there is all None."""
    n = len(columns.index)
    nothing = (None,) * n
    yield from zip(*(getattr(columns, name) or nothing for name in NAMES), strict=True)
