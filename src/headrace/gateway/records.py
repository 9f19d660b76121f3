"""Where the gateway's records go, as the configuration has it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import CallRecord, RecordSink
from headrace.gateway.config import RecordsConfig
from headrace.traffic.sinks import JsonlFile, log_records

log = logging.getLogger(__name__)


class Turns:
    """Writes the records of one turn of the event loop to ``file`` in one piece.

    A write for each costs as much as all else that is done for the record.
    """

    def __init__(self, file: JsonlFile) -> None:
        self._file = file
        self._held: list[CallRecord] = []

    def __call__(self, record: CallRecord) -> None:
        """Write ``record`` at the end of this turn."""
        self._held.append(record)
        if len(self._held) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """Write what is held and close the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        try:
            self._file.write(held)
        except Exception:
            # As of any sink: what was asked is answered all the same.
            log.exception("%d records could not be written to %s", len(held), self._file.path)


@frozen(kw_only=True)
class Records:
    """The sinks, and the file among them that is to be closed."""

    sinks: tuple[RecordSink, ...]
    file: Turns | None = None

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self.file is not None:
            self.file.close()


def open_records(config: RecordsConfig) -> Records:
    """The sinks of ``config``; raises LLMInvalidRequestError where one cannot be had."""
    sinks: list[RecordSink] = []
    if config.opentelemetry:
        sinks.append(_opentelemetry())
    if config.log:
        sinks.append(log_records())
    file = None if config.file is None else _file(config, Path(config.file).expanduser())
    if file is not None:
        sinks.append(file)
    return Records(sinks=tuple(sinks), file=file)


def _file(config: RecordsConfig, path: Path) -> Turns:
    try:
        file = JsonlFile(
            path, content=config.content, max_bytes=config.max_bytes or None, keep=config.keep
        )
    except OSError as error:
        raise LLMInvalidRequestError(
            f"records.file {str(path)!r} cannot be written: {error.strerror}; its folder must be "
            "there and be ours to write",
            param="records.file",
        ) from error
    return Turns(file)


def _opentelemetry() -> RecordSink:
    from headrace.traffic.otel import OpenTelemetrySink

    try:
        from headrace.gateway.tracing import set_up_sdk

        set_up_sdk()
        return OpenTelemetrySink()
    except ImportError as missing:
        raise LLMInvalidRequestError(
            f"records.opentelemetry is true: {missing}", param="records.opentelemetry"
        ) from missing
