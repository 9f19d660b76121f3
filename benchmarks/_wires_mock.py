"""A backend of every format that costs next to nothing: its answers are written beforehand.

It is told what to do by the model's name, ``say-<tokens>``: so many words, a stream's one each 5 ms
after the first. Its first path segment is the format that it speaks.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Any

import uvloop

from headrace.backends.row import FORMATS, codec
from headrace.contracts.responses import LLMDelta, LLMResponse, Usage

WORD = "zebra"
PAUSE_S = 0.005

_MODEL = re.compile(rb"say-([0-9]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n"


def words(tokens: int) -> list[str]:
    """What is said, word by word; not always the same one, as no model would."""
    return [f" {WORD}{n % 512:04d}" for n in range(tokens)]


@cache
def _stream(module: str, tokens: int) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """What comes first, with the first word; the other words; the end."""
    wire = codec(module)
    said = words(tokens)
    writer = wire.stream_writer(
        response_id=wire.answer_id(None, "0123456789abcdef"),
        model=f"say-{tokens}",
        created=1767225600,
        include_usage=True,
    )
    head = _HEAD % (wire.STREAM_TYPE.encode(), b"transfer-encoding: chunked")
    pieces = [_chunk(writer.write(LLMDelta(text_delta=word))) for word in said]
    end = writer.write(LLMDelta(finish_reason="stop", raw_finish_reason="stop"))
    end += writer.write(LLMDelta(usage_delta=_usage(tokens))) + writer.finish()
    return head + pieces[0], tuple(pieces[1:]), _chunk(end) + b"0\r\n\r\n"


@cache
def _whole(module: str, tokens: int) -> bytes:
    wire = codec(module)
    body: bytes = wire.write_response(
        LLMResponse(
            text="".join(words(tokens)),
            finish_reason="stop",
            raw_finish_reason="stop",
            usage=_usage(tokens),
        ),
        response_id=wire.answer_id(None, "0123456789abcdef"),
        model=f"say-{tokens}",
        created=1767225600,
    )
    return _HEAD % (b"application/json", b"content-length: %d" % len(body)) + body


def _usage(tokens: int) -> Usage:
    return Usage(prompt_tokens=9, completion_tokens=tokens, total_tokens=9 + tokens)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _module(path: bytes) -> str:
    """The wire module of the format that is asked at ``path``."""
    name, _, rest = path[1:].decode().partition("/")
    row = FORMATS[name]
    return row.completions if rest.endswith("completions") and "chat" not in rest else row.chat  # type: ignore[return-value]


def _is_stream(path: bytes, body: bytes) -> bool:
    """Whether a stream is asked for, in any format's way."""
    if b'"stream":' in body:
        return b'"stream":true' in body
    # Gemini and TGI say so in the path, and Ollama streams unless told not to.
    return b"tream" in path or path.endswith((b"/api/chat", b"/api/generate"))


class _Answers(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        size = end + 4 + (0 if length is None else int(length[1]))
        if end < 0 or len(data) < size:
            self.buffer = data
            return
        self.buffer = b""
        self._answer(data.split(b" ", 2)[1], data[:end], data[end + 4 :])

    def _answer(self, path: bytes, head: bytes, body: bytes) -> None:
        asked = _MODEL.search(path) or _MODEL.search(body)
        if asked is None:  # a gateway asks how we are
            self.transport.write(_HEAD % (b"application/json", b"content-length: 2") + b"{}")
            return
        module, tokens = _module(path.partition(b"?")[0]), int(asked[1])
        if _is_stream(path, body):
            first, self.rest, self.end = _stream(module, tokens)
            self.place = 0
            self.transport.write(first)
            self.timer = self.loop.call_later(PAUSE_S, self._next)
        else:
            self.transport.write(_whole(module, tokens))

    def _next(self) -> None:
        if self.place < len(self.rest):
            self.transport.write(self.rest[self.place])
            self.place += 1
            self.timer = self.loop.call_later(PAUSE_S, self._next)
        else:
            self.transport.write(self.end)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answers, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
