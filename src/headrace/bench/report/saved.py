"""A report as JSON text and back: the format that ``headrace.load/1`` names.

Written without what could be a secret: the values of the plan's headers, what ``extra_body`` calls a
key or a password, and a name or password in an address. Reading is strict, and refuses another format by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_type_hints
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve, fields

from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import FORMAT, Columns, LoadReport

FILE_NAME = "report.json"
_CREDENTIALS = frozenset(
    ("apikey", "authorization", "key", "password", "secret", "token", "accesstoken")
)
HIDDEN = "(not kept)"
"""What stands in a saved report for the value of a header."""


def write_report(report: LoadReport) -> bytes:
    """``report`` as JSON, each field of the outermost object on a line of its own."""
    # The columns hold nothing but plain values, and may be millions: they are written as they are.
    plain = cast("dict[str, Any]", to_plain(evolve(without_secrets(report), requests=None)))
    _require_finite(plain, "$")
    if report.requests is not None:
        plain["requests"] = {
            f.name: _finite_column(f.name, getattr(report.requests, f.name))
            for f in fields(Columns)
        }
    return in_lines(plain)


def in_lines(plain: Mapping[str, Any]) -> bytes:
    """``plain`` as JSON, each of its fields on a line of its own."""
    import msgspec

    encode = msgspec.json.encode
    lines = [encode(name) + b": " + encode(value) for name, value in plain.items()]
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def read_report(data: bytes | str, name: str = "the report") -> LoadReport:
    """The report that ``write_report`` wrote; LLMInvalidRequestError says what is wrong with it."""
    import msgspec

    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"{name} is not JSON: {error}") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("format"), str):
        raise LLMInvalidRequestError(
            f"{name} is not the report of a load test: an object whose format is '{FORMAT}' is "
            "expected",
            param="format",
        )
    if plain["format"] != FORMAT:
        raise LLMInvalidRequestError(_other_format(name, plain), param="format")
    columns = plain.pop("requests", None)
    try:
        report = from_plain(plain, LoadReport)
        return report if columns is None else evolve(report, requests=_read_columns(columns))
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{name}: {error.message}", param=error.param) from error


def read_file(path: Path) -> LoadReport:
    """The report in the file ``path``, or in the file ``report.json`` of the folder ``path``."""
    return read_report(*bytes_and_name(path, "a load test"))


def bytes_and_name(path: Path, what: str) -> tuple[bytes, str]:
    """What the report of ``what`` at ``path``, a file or its folder, holds, and how to call it."""
    if path.is_dir():
        path = path / FILE_NAME
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise LLMInvalidRequestError(
            f"{path} cannot be read: {error.strerror}; the {FILE_NAME} of {what}, or the folder "
            "that holds it, is expected",
            param="path",
        ) from error


def without_secrets(report: LoadReport) -> LoadReport:
    """``report`` as it may be kept and shown to others."""
    return evolve(report, plan=plan_without_secrets(report.plan))


def plan_without_secrets(plan: LoadPlan) -> LoadPlan:
    """``plan`` without the values of its headers and without a password in its addresses."""
    return evolve(
        plan,
        url=without_user(plan.url),
        metrics_url=None if plan.metrics_url is None else without_user(plan.metrics_url),
        headers=tuple((name, HIDDEN) for name, _ in plan.headers),
        extra_body=None if plan.extra_body is None else _without_credentials(plan.extra_body),
    )


def _without_credentials(body: str) -> str:
    """``body`` without what its names call a key, a password or a token to get in with."""
    import json

    try:
        plain = json.loads(body)
    except ValueError:
        return HIDDEN  # no run was made with it, and what it holds nobody knows
    hidden = _hidden(plain)
    return body if hidden == plain else json.dumps(hidden, ensure_ascii=False)


def _hidden(node: Any) -> Any:
    if isinstance(node, list):
        return [_hidden(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: HIDDEN if _plain_name(name) in _CREDENTIALS else _hidden(value)
        for name, value in node.items()
    }


def _plain_name(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def without_user(url: str) -> str:
    """``url`` without the name and the password that may stand before its host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # No address at all, so nobody knows which part of it is a password.
        return HIDDEN if "@" in url else url
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _other_format(name: str, plain: dict[str, Any]) -> str:
    told = plain["format"]
    ours, _, version = FORMAT.partition("/")
    theirs, _, their_version = told.partition("/")
    wrote = plain.get("version")
    if theirs != ours:
        return f"{name} has the format {told!r}; the report of a load test has '{FORMAT}'"
    age = "other"
    if version.isdecimal() and their_version.isdecimal():
        age = "newer" if int(their_version) > int(version) else "older"
    by = f" (headrace {wrote} wrote it)" if isinstance(wrote, str) and wrote else ""
    return (
        f"{name} has the {age} format {told!r}{by}; this headrace reads '{FORMAT}': read it with "
        "the version that wrote it"
    )


def _read_columns(plain: object) -> Columns:
    """As ``from_plain`` would, in a tenth of the time: a run may have a million rows."""
    import msgspec

    if not isinstance(plain, dict):
        raise LLMInvalidRequestError(f"an object is expected, not {plain!r:.60} @ $.requests")
    kinds = get_type_hints(Columns)
    if unknown := set(plain) - set(kinds):
        raise LLMInvalidRequestError(
            f"unknown field {min(unknown)!r} @ $.requests; known: {', '.join(kinds)}"
        )
    made = {}
    for name, values in plain.items():
        try:
            made[name] = msgspec.convert(values, kinds[name])
        except msgspec.ValidationError as error:
            raise LLMInvalidRequestError(f"{error} @ $.requests.{name}") from error
    # A column that is left out, or empty, is one of which nothing is known.
    if len({len(column) for column in made.values() if column}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in made.items())
        raise LLMInvalidRequestError(
            f"columns of equal length are expected, not {lengths} @ $.requests"
        )
    return Columns(**made)


def _finite_column(name: str, values: tuple[object, ...]) -> tuple[object, ...]:
    for i, value in enumerate(values):
        if type(value) is float and not math.isfinite(value):
            raise LLMInvalidRequestError(
                f"JSON has no {value}; a finite number is expected @ $.requests.{name}[{i}]"
            )
    return values


def _require_finite(plain: object, path: str) -> None:
    if isinstance(plain, float) and not math.isfinite(plain):
        raise LLMInvalidRequestError(f"JSON has no {plain}; a finite number is expected @ {path}")
    if isinstance(plain, dict):
        for key, inner in plain.items():
            _require_finite(inner, f"{path}.{key}")
    elif isinstance(plain, list):
        for i, inner in enumerate(plain):
            _require_finite(inner, f"{path}[{i}]")
