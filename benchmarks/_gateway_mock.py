"""An upstream that costs next to nothing: prebuilt bytes for OpenAI's chat format; prints its port.

Two fields that every gateway hands on tell it what to do. ``max_tokens`` is the number of chunks
with text; ``seed`` is ``think time * 1000 + pause``, both in ms: how long until the answer begins,
and how long between two chunks of a stream. Each chunk is a write of its own, as a model's are.
With ``MOCK_KEEP_S`` in the environment its answers ask that idle connections be kept no longer.
"""

from __future__ import annotations

import asyncio
import json
import os
from functools import cache
from typing import Any

import uvloop

WORD = b"zebra"
"""In each chunk with text once, and in nothing else that anybody writes."""

_KEEP_S = os.environ.get("MOCK_KEEP_S")
_KEEP = b"keep-alive: timeout=%d\r\n" % int(_KEEP_S) if _KEEP_S else b""
_BASE = {"id": "chatcmpl-0123456789", "created": 1767225600, "model": "m"}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n" + _KEEP + b"\r\n"
)
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _framed(choices: list[object], **more: object) -> bytes:
    value = {**_BASE, "object": "chat.completion.chunk", "choices": choices, **more}
    event = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _choice(delta: dict[str, object], reason: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}


_FIRST = _STREAM_HEAD + _framed(_choice({"role": "assistant", "content": ""}))
# Not always the same one: a gateway may take that for a model that has lost itself.
_TEXT = [_framed(_choice({"content": f" {WORD.decode()}{n:04d}"})) for n in range(512)]


@cache
def _end(tokens: int, usage: bool) -> bytes:
    told = _framed([], usage=_usage(tokens)) if usage else b""
    return _framed(_choice({}, "stop")) + told + _DONE


@cache
def _whole(tokens: int) -> bytes:
    text = "".join(f" {WORD.decode()}{n % 512:04d}" for n in range(tokens))
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    value = {**_BASE, "object": "chat.completion", "choices": [choice], "usage": _usage(tokens)}
    body = json.dumps(value, separators=(",", ":")).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
    return head % (len(body), _KEEP) + body


_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"us"}]}'
_ANYTHING_ELSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_MODELS), _MODELS)
)


def _number(body: bytes, name: bytes) -> int:
    """The value of a field of whole numbers; 0 where it is missing."""
    at = body.find(name)
    if at < 0:
        return 0
    at += len(name)
    end = min(found for mark in b",}" if (found := body.find(mark, at)) >= 0)
    return int(body[at:end])


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
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            if not head.startswith(b"get "):
                raise ValueError(f"neither a GET nor a body with its length: {head!r}")
            self.buffer = b""
            self.transport.write(_ANYTHING_ELSE)  # a gateway asks how we are
            return
        stop = head.find(b"\r\n", at)
        length = int(head[at + 15 : stop if stop >= 0 else end])
        if len(data) < end + 4 + length:
            self.buffer = data
            return
        self.buffer = b""
        self._answer(data[end + 4 :])

    def _answer(self, body: bytes) -> None:
        tokens = _number(body, b'"max_tokens":')
        think_ms, pause_ms = divmod(_number(body, b'"seed":'), 1000)
        at = body.find(b'"stream":')
        if at >= 0 and b"true" in body[at + 9 : at + 14]:
            self.left, self.tokens, self.pause_s = tokens, tokens, pause_ms / 1000
            self.usage = b"include_usage" in body
            begin = self._begin
            if think_ms:
                self.timer = self.loop.call_later(think_ms / 1000, begin)
            else:
                begin()
        elif think_ms:
            self.timer = self.loop.call_later(think_ms / 1000, self.transport.write, _whole(tokens))
        else:
            self.transport.write(_whole(tokens))

    def _begin(self) -> None:
        self.transport.write(_FIRST)
        self._next()

    def _next(self) -> None:
        if self.left:
            self.transport.write(_TEXT[self.left & 511])
            self.left -= 1
            self.timer = self.loop.call_later(self.pause_s, self._next)
        else:
            self.transport.write(_end(self.tokens, self.usage))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answers, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
