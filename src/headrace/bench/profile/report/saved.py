"""A profile's report as JSON text and back: the format that ``headrace.profile/1`` names.

Reading is strict, and refuses another format by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import evolve

from headrace.bench.report.saved import bytes_and_name, in_lines
from headrace.contracts.convert import from_plain, to_json, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profile_report import FORMAT, ProfileReport, StageFigures


def completed(report: ProfileReport) -> ProfileReport:
    """``report`` with the rates that each stage reached, where its work and its time are known."""
    inputs = len(report.inputs)
    return evolve(report, stages=tuple(_with_rates(stage, inputs) for stage in report.stages))


def _with_rates(stage: StageFigures, inputs: int) -> StageFigures:
    # A stage's times are an input's, its work is that of all inputs.
    seconds = stage.time_ms.mean / 1e3 * inputs
    if seconds <= 0:
        return stage
    flops, moved = stage.flops, stage.bytes
    return evolve(
        stage,
        flops_per_s=None if flops is None else flops / seconds,
        bytes_per_s=None if moved is None else moved / seconds,
    )


def plain_of(report: ProfileReport) -> dict[str, Any]:
    """``report`` as plain values; LLMInvalidRequestError where JSON cannot say one of them."""
    to_json(report)
    return cast("dict[str, Any]", to_plain(report))


def write_report(report: ProfileReport) -> bytes:
    """``report`` as JSON, each field of the outermost object on a line of its own."""
    return in_lines(plain_of(report))


def read_report(data: bytes | str, name: str = "the report") -> ProfileReport:
    """The report that ``write_report`` wrote; LLMInvalidRequestError says what is wrong with it."""
    import msgspec

    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"{name} is not JSON: {error}") from error
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise LLMInvalidRequestError(
            f"{name} is not the report of a profile: its format is {found!r}; {FORMAT!r} is needed",
            param="format",
        )
    try:
        return from_plain(plain, ProfileReport)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{name}: {error.message}", param=error.param) from error


def read_file(path: Path) -> ProfileReport:
    """The report in the file ``path``, or in the file ``report.json`` of the folder ``path``."""
    return read_report(*bytes_and_name(path, "a profile"))
