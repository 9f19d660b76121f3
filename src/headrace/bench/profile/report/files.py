"""The artifacts of a profile in its folder, each whole or not at all."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import yaml
from attrs import evolve, fields

from headrace.bench.profile.report.html import html
from headrace.bench.profile.report.markdown import markdown
from headrace.bench.profile.report.saved import completed, write_report
from headrace.bench.report.saved import FILE_NAME
from headrace.bench.report.writing import write_file, write_files
from headrace.contracts.convert import to_json, to_plain
from headrace.contracts.profile_report import Prediction, ProfileReport
from headrace.contracts.profiling import OperatorSummary

HASHES = "SHA256SUMS"
MARK = "INCOMPLETE.txt"
_NO_PARQUET = (
    "operators.csv in place of operators.parquet: pyarrow is not installed (pip install pyarrow)"
)


def write_all(report: ProfileReport, folder: Path, trace: bytes | None = None) -> list[Path]:
    """Write every form of ``report`` into ``folder``, and the hashes of all that lies there.

    ``trace`` is the operator profiler's own, kept as ``trace.json.gz``. What can be written is;
    ReportNotWritten tells of the rest at the end. A run that ended early is marked as such.
    """
    report = completed(report)
    has_parquet = _has_pyarrow()
    if report.operators and not has_parquet and _NO_PARQUET not in report.notes:
        report = evolve(report, notes=(*report.notes, _NO_PARQUET))
    makers: dict[str, Callable[[], bytes]] = {
        FILE_NAME: lambda: write_report(report),
        "report.html": lambda: html(report).encode(),
        "report.md": lambda: markdown(report).encode(),
        "env.json": lambda: to_json(report.environment) + b"\n",
        "inputs.yaml": lambda: _inputs(report),
    }
    if report.operators and has_parquet:
        makers["operators.parquet"] = lambda: _parquet(report)
    elif report.operators:
        makers["operators.csv"] = lambda: _csv(report).encode()
    if report.complete:
        mark(folder, None)
    else:
        makers[MARK] = lambda: _why(report.ended or "it does not say why")
    for name, prediction in _named(report.predictions):
        makers[name] = partial(_said, prediction)
    if trace is not None:
        packed = trace if trace[:2] == b"\x1f\x8b" else gzip.compress(trace, mtime=0)
        makers["trace.json.gz"] = lambda: packed
    written = write_files((folder / name, make) for name, make in makers.items())
    # Last, so that it has the hashes of all the others.
    return written + write_files([(folder / HASHES, lambda: hashes(folder))], written)


def hashes(folder: Path) -> bytes:
    """A line for each file below ``folder``, as ``sha256sum --check`` reads them."""
    lines = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # The mark may be written again, with more words, by whoever has started the run.
        told = is_artifact(name) and name not in (HASHES, MARK)
        if told and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()


def mark(folder: Path, why: str | None) -> None:
    """Say in ``folder`` that the run ended early, and why; or, where it did not, no longer say it."""
    if why is None:
        (folder / MARK).unlink(missing_ok=True)
    else:
        write_file(folder / MARK, _why(why))


def _why(ended: str) -> bytes:
    return f"This run ended early: {ended}\nWhat lies here is a part of it.\n".encode()


def _named(predictions: Sequence[Prediction]) -> Iterator[tuple[str, Prediction]]:
    """Each with a file of its own, by the name of its input."""
    given: set[str] = set()
    for prediction in predictions:
        plain = re.sub(r"[^\w. -]", "_", prediction.input).lstrip(".")[:100] or "_"
        name, number = plain, 1
        while name in given:
            number += 1
            name = f"{plain}-{number}"
        given.add(name)
        yield f"predictions/{name}.txt", prediction


def _said(prediction: Prediction) -> bytes:
    return prediction.text.encode("utf-8", "replace") + b"\n"


_STATE = frozenset({"status.json", "pid.json", "lock", "log.txt", "request.json"})


def is_artifact(name: str) -> bool:
    """Whether a file of a run's folder is a result, and not how the run stands or what it logs."""
    return name not in _STATE and not any(part.startswith(".") for part in name.split("/"))


def _inputs(report: ProfileReport) -> bytes:
    said = {
        "run_id": report.run_id,
        "request": to_plain(report.request),
        "inputs": list(report.inputs),
    }
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
    return text.encode()


def _columns(report: ProfileReport) -> dict[str, list[object]]:
    names = [f.name for f in fields(OperatorSummary)]
    return {name: [getattr(o, name) for o in report.operators] for name in names}


def _csv(report: ProfileReport) -> str:
    columns = _columns(report)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _has_pyarrow() -> bool:
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def _parquet(report: ProfileReport) -> bytes:
    import pyarrow
    from pyarrow import parquet

    kinds = {
        "op_name": pyarrow.string(),
        "stage": pyarrow.string(),
        "calls": pyarrow.int64(),
    }
    table = pyarrow.table(
        {
            name: pyarrow.array(values, kinds.get(name, pyarrow.float64()))
            for name, values in _columns(report).items()
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    made: bytes = sink.getvalue().to_pybytes()
    return made
