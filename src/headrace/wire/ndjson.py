"""Lines of JSON, reading and writing; what they say is left to the formats.

https://github.com/ndjson/ndjson-spec
"""

from __future__ import annotations

from headrace.contracts.errors import LLMBadResponseError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""How large one line may be; generous, since a line can hold an image."""

STREAM_TYPE = "application/x-ndjson"
"""The media type of such a stream."""


class Reader:
    """Cuts a byte stream into lines, wherever the pieces of the stream begin and end.

    Lines with nothing in them are passed over.
    """

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, in order."""
        rest = self._rest
        end = data.rfind(b"\n")
        if end < 0:
            rest += data
            self._bound(len(rest))
            return []
        whole = data[:end]
        if rest:
            whole = bytes(rest) + whole
            rest.clear()
        rest += data[end + 1 :]
        self._bound(len(rest))
        lines = [line for each in whole.split(b"\n") if (line := each.strip())]
        if len(whole) > self._max_line_bytes:
            self._bound(max(map(len, lines), default=0))
        return lines

    def close(self) -> list[bytes]:
        """Ends the stream: what stands behind the last line feed is a line too."""
        last = bytes(self._rest).strip()
        self._rest.clear()
        return [last] if last else []

    def _bound(self, length: int) -> None:
        if length > self._max_line_bytes:
            raise LLMBadResponseError(
                f"A line of the stream is larger than {self._max_line_bytes} bytes."
            )


def write(data: bytes) -> bytes:
    """A line with ``data``, which is JSON without line feeds."""
    return data + b"\n"
