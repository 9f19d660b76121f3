"""A server that says OpenAI's chat format and does nothing else; prints its port and serves.

A request's ``max_tokens`` (or ``max_completion_tokens``) is the number of tokens of its answer, and
so of the chunks where it is streamed. Chunks are written one by one, each stream in its turn.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
_STREAMS = re.compile(rb'"stream": *true')
_BASE = {"id": "chatcmpl-0123456789", "created": 1767225600, "model": "gpt-4o-mini-2024-07-18"}


def _chunk(choices: list[object], **more: object) -> bytes:
    value = {**_BASE, "object": "chat.completion.chunk", "choices": choices, **more}
    event = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _choice(delta: dict[str, object], reason: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}


_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_0\r\ntransfer-encoding: chunked\r\n\r\n"
)
_FIRST = _chunk(_choice({"role": "assistant", "content": ""}))
# Not always the same one: a client may take that for a model that has lost itself.
_WORDS = [f" w{number:04d}" for number in range(512)]
_TOKENS_SENT = [_chunk(_choice({"content": word})) for word in _WORDS]
_LAST = _chunk(_choice({}, "stop"))
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class _Answers(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        self.buffer = b""
        asked = _TOKENS.search(body)
        tokens = int(asked[1]) if asked else 1
        if _STREAMS.search(body):
            self.task = asyncio.ensure_future(self._stream(tokens))
        else:
            self.transport.write(_whole(tokens))

    async def _stream(self, tokens: int) -> None:
        write = self.transport.write
        write(_HEAD + _FIRST)
        for number in range(tokens):
            write(_TOKENS_SENT[number % 512])
            await asyncio.sleep(0)
        write(_LAST + _chunk([], usage=_usage(tokens)) + _DONE)


def _whole(tokens: int) -> bytes:
    text = "".join(_WORDS[number % 512] for number in range(tokens))
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    value = {**_BASE, "object": "chat.completion", "choices": [choice], "usage": _usage(tokens)}
    body = json.dumps(value, separators=(",", ":")).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_0\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        sys.exit(asyncio.run(_serve()))
    uvloop.run(_serve())
