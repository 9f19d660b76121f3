"""A file on its way in: a form, read piece by piece and written to disk as it comes."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from attrs import define, field
from starlette.types import Receive

from headrace.contracts.errors import LLMCancelledError, LLMInvalidRequestError
from headrace.wire.multipart import FormReader, PartBegins, PartData
from headrace.wire.openai_fields import refuse, refuse_absence

_AT_ONCE = 1 << 20
_MOST_FIELD = 4096


@define(eq=False)
class Form:
    """What a form holds: its fields, and its file in ``file`` as far as it has come."""

    file: BinaryIO
    fields: dict[str, str] = field(factory=dict)
    name: str | None = None
    size: int = 0
    lines: int = 0
    _part: str = ""
    _is_file: bool = False
    _last: bytes = b"\n"

    def take(self, reader: FormReader, piece: bytes, most: int) -> None:
        """Read ``piece``; it blocks."""
        for event in reader.feed(piece):
            match event:
                case PartBegins(name, file_name):
                    self._begin(name, file_name)
                case PartData(data) if self._is_file:
                    self._write(data, most)
                case PartData(data):
                    self.fields[self._part] += data.decode("utf-8", "replace")
                    if len(self.fields[self._part]) > _MOST_FIELD:
                        refuse(self._part, self.fields[self._part], "a short text")

    def end(self, reader: FormReader) -> None:
        """Raise LLMInvalidRequestError where it is not complete."""
        if not reader.is_complete:
            raise LLMInvalidRequestError("The form breaks off before its end.", code="bad_form")
        if self.name is None:
            refuse_absence("file", "a file with its name")
        self.lines += self._last != b"\n"
        self.file.flush()

    def _begin(self, name: str, file_name: str | None) -> None:
        if name in self.fields or (name == "file" and self.name is not None):
            refuse(name, "twice", "it once")
        self._part, self._is_file = name, name == "file"
        if self._is_file:
            self.name = file_name or "file"
        else:
            self.fields[name] = ""

    def _write(self, data: bytes, most: int) -> None:
        self.size += len(data)
        if self.size > most:
            raise too_large(most)
        self.lines += data.count(b"\n")
        self._last = data[-1:] or self._last
        self.file.write(data)


async def receive_form(
    receive: Receive, content_type: str, form: Form, *, most: int, silence_s: float
) -> None:
    """Read the form that comes into ``form``.

    Raises LLMInvalidRequestError: 413 where its file has more than ``most`` bytes, 408 where nothing
    comes for ``silence_s``.
    """
    reader, gathered = FormReader(content_type), bytearray()
    more = True
    while more:
        piece, more = await next_piece(receive, silence_s)
        gathered += piece
        if len(gathered) >= _AT_ONCE or not more:
            await asyncio.to_thread(form.take, reader, bytes(gathered), most)
            gathered.clear()
    await asyncio.to_thread(form.end, reader)


async def next_piece(receive: Receive, silence_s: float) -> tuple[bytes, bool]:
    """The next piece of a request's body, and whether more follow."""
    try:
        async with asyncio.timeout(silence_s):
            message = await receive()
    except TimeoutError:
        raise LLMInvalidRequestError(
            f"nothing of the request's body has come for {silence_s:g} s",
            status=408,
            code="request_timeout",
        ) from None
    if message["type"] == "http.disconnect":
        raise LLMCancelledError("the caller left before its request was complete")
    return message.get("body", b""), message.get("more_body", False)


def too_large(most: int) -> LLMInvalidRequestError:
    """What was brought is larger than it may be."""
    return LLMInvalidRequestError(
        f"the file is larger than this server takes ({most} bytes); split it into several",
        status=413,
        code="file_too_large",
    )
