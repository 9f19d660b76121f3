"""Where the gateway's records go, as the configuration has it."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import RecordSink
from headrace.gateway.config import RecordsConfig
from headrace.traffic.sinks import JsonlFile, log_records


@frozen(kw_only=True)
class Records:
    """The sinks, and the file among them that is to be closed."""

    sinks: tuple[RecordSink, ...]
    file: JsonlFile | None = None

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


def _file(config: RecordsConfig, path: Path) -> JsonlFile:
    try:
        return JsonlFile(
            path, content=config.content, max_bytes=config.max_bytes or None, keep=config.keep
        )
    except OSError as error:
        raise LLMInvalidRequestError(
            f"records.file {str(path)!r} cannot be written: {error.strerror}; its folder must be "
            "there and be ours to write",
            param="records.file",
        ) from error


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
