"""The other form of Gemini's streams: one JSON array that grows, for who does not say ``alt=sse``.

Everything else is as ``wire.gemini`` has it.
"""

from __future__ import annotations

from typing import Any

from headrace.contracts.errors import LLMError
from headrace.wire.gemini import (
    OWN_FIELDS,
    answer_id,
    read_error,
    read_request,
    read_response,
    read_whole,
    status_of,
    write_error,
    write_request,
    write_response,
)
from headrace.wire.gemini_stream import StreamWriter as Events
from headrace.wire.json import encode

__all__ = [
    "OWN_FIELDS",
    "PING",
    "STREAM_TYPE",
    "answer_id",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_writer",
    "write_error",
    "write_request",
    "write_response",
]

STREAM_TYPE = "application/json"
"""The media type of such a stream; ``read_response`` reads it where it has come to its end."""
PING = b"\n"
"""Space between two answers: keeps an idle connection open."""


class StreamWriter(Events):
    """Writes deltas as the entries of an array."""

    def __init__(self, *, response_id: str, model: str) -> None:
        self._begun = False
        super().__init__(response_id=response_id, model=model)

    def write(self, delta: Any) -> bytes:
        """The entries for ``delta``."""
        return self._joined(super().write(delta))

    def finish(self) -> bytes:
        """The end of a whole stream."""
        return self._joined(super().finish()) + b"]"

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off."""
        return self._joined(super().error(error)) + b"]"

    def _event(self, value: dict[str, Any]) -> bytes:
        return encode(value)

    def _joined(self, entry: bytes) -> bytes:
        if not entry:
            return b""
        begin, self._begun = (b",\r\n" if self._begun else b"["), True
        return begin + entry


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; its usage is always told."""
    return StreamWriter(response_id=response_id, model=model)
