"""Where records go: a JSONL file, the log, OpenTelemetry (``traffic.otel``).

A sink is anything that is called with a CallRecord; it must be quick, for it runs between calls on
the event loop. Prometheus needs none of its own: the tally that every call is counted in is shown
by ``numbers.prometheus``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import evolve, fields, frozen

from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.numbers.timeline import end_to_end, queue_time, time_to_first_token

_KEYS = ("api_key", "key", "token", "authorization")


class JsonlFile:
    """Appends one JSON object a line to a file that only its owner can read.

    A line is a CallRecord as ``contracts.convert`` reads it (``from_json(line, CallRecord)``),
    without the fields that hold nothing. Prompts and answers are left out unless ``content`` is
    set; keys are left out always. Each line is one write at the end of the file, so several
    processes may share it, and it may be cut by ``logrotate`` with ``copytruncate``.

    With ``max_bytes`` the file is bounded: a line that would make it longer goes to a new one, and
    the full ones, at most ``keep``, are ``<path>.1`` (the latest), ``<path>.2`` and so on.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        content: bool = False,
        max_bytes: int | None = None,
        keep: int = 3,
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, must be at least 1, or None for no bound")
        if keep < 0:
            raise ValueError(f"keep is {keep}, must be at least 0")
        self.path = Path(path)
        self._content = content
        self._max_bytes, self._keep = max_bytes, keep
        self._descriptor: int | None = _open_for_lines(self.path)

    def __call__(self, record: CallRecord) -> None:
        """Write ``record``; after ``close`` it is dropped."""
        self.write((record,))

    def write(self, records: Iterable[CallRecord]) -> None:
        """Write several in one piece."""
        if self._descriptor is None:
            return
        lines = memoryview(b"".join(write_line(each, content=self._content) for each in records))
        if self._max_bytes is not None:
            held = os.fstat(self._descriptor).st_size
            if held and held + len(lines) > self._max_bytes:
                self._descriptor = _begin_another(self.path, self._descriptor, self._keep)
        while lines:
            lines = lines[os.write(self._descriptor, lines) :]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _open_for_lines(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _begin_another(path: Path, full: int, keep: int) -> int:
    """Put the file of ``full`` aside, unless another process has done so; the new one, opened.

    Whoever holds the lock of the full file renames it; who waited for that finds another file in
    its place.
    """
    import fcntl

    fcntl.flock(full, fcntl.LOCK_EX)
    try:
        if _is_still(path, full):
            places = [path, *(path.with_name(f"{path.name}.{i}") for i in range(1, keep + 1))]
            for newer, older in reversed(list(pairwise(places))):
                if newer.exists():
                    newer.replace(older)
            if not keep:
                path.unlink()
        another = _open_for_lines(path)
    finally:
        fcntl.flock(full, fcntl.LOCK_UN)
    os.close(full)
    return another


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_line(record: CallRecord, *, content: bool = False) -> bytes:
    """``record`` as one line of JSON with its line end."""
    shapes = _shapes()
    line = shapes.of_record(record)
    line.timeline = shapes.of_timeline(record.timeline)
    if record.usage is not None:
        line.usage = shapes.of_usage(record.usage)
    if record.request is not None:
        line.request = _said(record.request) if content else None
    if record.response is not None:
        line.response = _said(record.response) if content else None
    encoded: bytes = shapes.encode(line)
    return encoded + b"\n"


def log_records(
    logger: logging.Logger | None = None, level: int = logging.INFO
) -> Callable[[CallRecord], None]:
    """A sink that logs one line a call: its numbers as text, and again in ``extra``.

    Failed calls are logged as warnings where ``level`` is below that. Never a prompt, an answer or
    a key.
    """
    target = logging.getLogger("headrace.calls") if logger is None else logger

    def sink(record: CallRecord) -> None:
        failed = record.error_kind is not None
        at = max(level, logging.WARNING) if failed else level
        if target.isEnabledFor(at):
            numbers = _numbers(record)
            target.log(at, "%s", _sentence(record, numbers), extra=numbers)

    return sink


def _numbers(record: CallRecord) -> dict[str, Any]:
    """What a log line says of a call, seconds as milliseconds; what is unknown is left out."""
    usage = record.usage
    seconds = {
        "duration_ms": end_to_end(record.timeline),
        "ttft_ms": time_to_first_token(record.timeline),
        "queue_ms": queue_time(record.timeline),
    }
    numbers: dict[str, Any] = {
        "call_id": record.call_id,
        "request_id": record.request_id,
        "operation": record.operation,
        "provider": record.provider,
        "backend": record.backend,
        "model": record.model or record.requested_model,
        "status": record.status,
        "error_kind": record.error_kind,
        "attempts": len(record.attempts),
        "hedge": None if record.hedge is None else record.hedge.outcome,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "price_usd": None if record.price_usd is None else f"{record.price_usd:f}",
        "dropped": list(record.dropped) or None,
        "response_mode": record.response_mode,
        **{name: None if s is None else round(s * 1000, 3) for name, s in seconds.items()},
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _sentence(record: CallRecord, numbers: dict[str, Any]) -> str:
    where = numbers.get("backend", "no backend")
    said = f"{record.operation} {numbers.get('model', '?')} at {where}: "
    said += record.error_kind or record.finish_reason or "done"
    if "duration_ms" in numbers:
        said += f" after {numbers['duration_ms']:.0f} ms"
    if "prompt_tokens" in numbers or "completion_tokens" in numbers:
        said += (
            f", {numbers.get('prompt_tokens', '?')} tokens in"
            f" and {numbers.get('completion_tokens', '?')} out"
        )
    if record.price_usd is not None:
        said += f", ${_short(record.price_usd)}"
    if len(record.attempts) > 1:
        said += f", {len(record.attempts)} attempts"
    if record.hedge is not None:
        said += f", hedge {record.hedge.outcome.replace('_', ' ')}"
    if record.dropped:
        said += f", dropped {', '.join(record.dropped)}"
    return said


def _short(amount: Decimal) -> str:
    """Without the zeros at the end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _without_keys(said: LLMRequest | LLMResponse) -> LLMRequest | LLMResponse:
    if isinstance(said, LLMResponse):
        return said

    def kept(named: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in named.items() if name.lower() not in _KEYS}

    return evolve(said, metadata=kept(said.metadata), provider_options=kept(said.provider_options))


def _said(part: LLMRequest | LLMResponse) -> Any:
    from headrace.contracts.convert import to_plain

    return to_plain(_without_keys(part))


@frozen(kw_only=True)
class _Shapes:
    """What records are turned into to be written, and what writes that."""

    of_record: Callable[[CallRecord], Any]
    of_timeline: Callable[[Timeline], Any]
    of_usage: Callable[[Usage], Any]
    encode: Callable[[Any], bytes]


@cache
def _shapes() -> _Shapes:
    import msgspec

    return _Shapes(
        of_record=_shape(CallRecord),
        of_timeline=_shape(Timeline),
        of_usage=_shape(Usage),
        # What JSON has no form for stands in an option or in metadata; the record matters more.
        encode=msgspec.json.Encoder(enc_hook=str).encode,
    )


def _shape(cls: Any) -> Callable[[Any], Any]:
    """Makes of an object of ``cls`` a msgspec Struct, which is written without the fields that hold
    nothing in a third of the time that going through them here takes."""
    import msgspec

    names = [each.name for each in fields(cls)]
    # What is left out is read as the field's own default, which is one of these two.
    empty = [() if each.default == () else None for each in fields(cls)]
    make: Callable[..., Any] = msgspec.defstruct(
        cls.__name__,
        [(name, Any, nothing) for name, nothing in zip(names, empty, strict=True)],
        omit_defaults=True,
        gc=False,
    )
    values = attrgetter(*names)
    return lambda record: make(*values(record))
