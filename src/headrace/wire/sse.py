"""Server-sent events, reading and writing; what the events say is left to the formats.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from attrs import frozen

from headrace.contracts.errors import LLMBadResponseError

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""How large one event may be; generous, since an event can hold an image."""

STREAM_TYPE = "text/event-stream"
"""The media type of such a stream."""
PING = b": ping\n\n"
"""A comment: keeps idle connections open and is seen by no reader."""

_BOM = b"\xef\xbb\xbf"


@frozen
class Event:
    """One event; ``data`` is UTF-8 as it came, its lines joined by line feeds."""

    data: bytes
    name: str = "message"


class Reader:
    """Cuts a byte stream into events, wherever the pieces of the stream begin and end.

    ``last_event_id`` and ``retry_ms`` are what the stream last said about reconnecting.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()
        self._at_start = True
        self._after_return = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order."""
        if not data:
            return []
        if self._after_return:
            self._after_return = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._at_start:
            data = bytes(self._rest) + data
            self._rest.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest += data
                return []
            self._at_start = False
            data = data.removeprefix(_BOM)
        blocks = self._whole_blocks(data)
        events: list[Event] = []
        for block in blocks:
            # Nearly every block of nearly every server is one line of data.
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(Event(block[6:]))
            elif block:
                self._read_lines(block, events)
        return events

    def close(self) -> list[Event]:
        """Ends the stream; an event that lacks its blank line is dropped, as the standard says."""
        self._rest.clear()
        return []

    def _whole_blocks(self, data: bytes) -> list[bytes]:
        """What lies between blank lines; keeps what follows the last of them for later."""
        rest = self._rest
        if rest:
            seam = len(rest) - 1
            rest += data
            end = rest.rfind(b"\n\n", seam)
            whole = bytes(rest[:end]) if end >= 0 else b""
            if end >= 0:
                del rest[: end + 2]
        else:
            end = data.rfind(b"\n\n")
            whole = data[:end] if end >= 0 else b""
            rest += data[end + 2 :] if end >= 0 else data
        blocks = whole.split(b"\n\n") if end >= 0 else []
        if len(rest) > self._max_event_bytes or (
            len(whole) > self._max_event_bytes
            and max(len(block) for block in blocks) > self._max_event_bytes
        ):
            raise LLMBadResponseError(
                f"An event of the stream is larger than {self._max_event_bytes} bytes."
            )
        return blocks

    def _read_lines(self, block: bytes, events: list[Event]) -> None:
        data: list[bytes] = []
        name = ""
        for line in (*block.split(b"\n"), b""):
            if not line:
                if data:
                    events.append(Event(b"\n".join(data), name or "message"))
                data, name = [], ""
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                self.last_event_id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit():
                self.retry_ms = int(value[:18])


def write(data: bytes, *, name: str | None = None) -> bytes:
    """An event with ``data``, of type ``name`` where it is not a plain message."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    if b"\n" not in data and b"\r" not in data:
        return head + b"data: " + data + b"\n\n"
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
