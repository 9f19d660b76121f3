"""Callers on bare sockets: what they send, how slowly they read, and how they leave."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.served import PATIENCE_S, Served

FACES = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models",
}


def _asking(face: str, text: str) -> Mapping[str, Any]:
    if face == "completions":
        return {"prompt": text, "max_tokens": 64}
    if face == "responses":
        return {"input": text, "store": False}
    if face == "gemini":
        return {"contents": [{"parts": [{"text": text}]}]}
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 64}


def request(
    face: str, model: str, text: str = "hi", *, stream: bool = True, headers: bytes = b""
) -> bytes:
    """The bytes of one request of that face."""
    path, named = FACES[face], {"model": model, "stream": stream}
    if face == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path, named = f"{path}/{model}:{method}", {}
    body = json.dumps({**named, **_asking(face, text)}).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        % (path.encode(), headers, len(body), body)
    )


class Cut(Exception):
    """The connection ended before the answer did; ``got`` is what came of its body."""

    def __init__(self, got: bytes) -> None:
        super().__init__(got[-200:])
        self.got = got


class Caller:
    """One connection, read and written byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, front: Served) -> Caller:
        return cls(*await asyncio.open_connection(front.host, front.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The next answer's status and headers, names in small letters."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as ended:
                raise Cut(ended.partial) from ended
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, value in pairs}

    async def body(self, headers: Mapping[str, str]) -> bytes:
        """The answer's body; raises Cut where the connection ends first."""
        got = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                if "content-length" in headers:
                    return await self.reader.readexactly(int(headers["content-length"]))
                while True:
                    piece = await self.chunk()
                    if not piece:
                        return got
                    got += piece
            except (asyncio.IncompleteReadError, ConnectionError) as ended:
                raise Cut(got + getattr(ended, "partial", b"")) from ended

    async def chunk(self) -> bytes:
        """One piece of a chunked body; the last is empty."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:size]

    async def until(self, word: bytes) -> bytes:
        """The pieces of a chunked body up to the one that has ``word`` in it."""
        got = b""
        async with asyncio.timeout(PATIENCE_S):
            while word not in got:
                piece = await self.chunk()
                assert piece, got
                got += piece
        return got

    async def whole(self) -> tuple[int, dict[str, str], bytes]:
        """One whole answer."""
        status, headers = await self.head()
        return status, headers, await self.body(headers)

    def leave(self) -> float:
        """Break the connection, as a program that is killed does; when that was."""
        sock = self.writer.get_extra_info("socket")
        if sock.fileno() >= 0:  # else the gateway was first
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return time.monotonic()

    def close(self) -> None:
        self.writer.close()


async def ask(front: Served, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """One whole answer, over a connection of its own."""
    caller = await Caller.of(front)
    try:
        caller.send(data)
        return await caller.whole()
    finally:
        caller.close()


_LINE = re.compile(rb"\r\n|\r|\n")


def events(stream: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream by the rules of the HTML standard: name and data, the unfinished left out."""
    found: list[tuple[str, bytes]] = []
    name, data = "message", list[bytes]()
    *lines, _ = _LINE.split(stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        if not line:
            if data:
                found.append((name, b"\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    return found


def text_of(face: str, stream: bytes) -> str:
    """The text that a stream of that face has brought."""
    text = ""
    for _, data in events(stream):
        if data == b"[DONE]":
            continue
        value = json.loads(data)
        if face == "chat":
            for choice in value.get("choices", ()):
                text += choice.get("delta", {}).get("content") or ""
        elif face == "completions":
            text += "".join(choice.get("text") or "" for choice in value.get("choices", ()))
        elif face == "messages" and value["type"] == "content_block_delta":
            text += value["delta"].get("text", "")
        elif face == "responses" and value["type"] == "response.output_text.delta":
            text += value["delta"]
        elif face == "gemini":
            for candidate in value.get("candidates", ()):
                text += "".join(part.get("text", "") for part in candidate["content"]["parts"])
    return text


def ending(face: str, stream: bytes) -> str:
    """How a stream of that face ends: ``whole``, ``error`` (an event that says so), or ``open``."""
    found = events(stream)
    if not found:
        return "open"
    name, data = found[-1]
    if face in {"chat", "completions"}:
        if data == b"[DONE]":
            return "whole"
        return "error" if "error" in json.loads(data) else "open"
    if face == "responses" and data == b"[DONE]":
        assert found[-2][0] == "response.completed", found[-2:]
        return "whole"
    if face == "gemini":
        last = json.loads(data)
        if "error" in last:
            return "error"
        return "whole" if "finishReason" in last["candidates"][0] else "open"
    kind = json.loads(data)["type"]
    assert name == kind
    if kind in {"error", "response.failed"}:
        return "error"
    return "whole" if kind == "message_stop" else "open"


async def streamed(front: Served, face: str, model: str, text: str = "hi") -> tuple[str, str]:
    """The text of one stream, and how it ended; ``cut`` where the connection did."""
    caller = await Caller.of(front)
    try:
        caller.send(request(face, model, text))
        status, headers = await caller.head()
        if status != 200:
            await caller.body(headers)
            return "", str(status)
        try:
            body, how = await caller.body(headers), ""
        except Cut as cut:
            body, how = cut.got, "cut"
        said = ending(face, body)
        # What is cut after it said that it was whole would deceive its reader.
        assert not how or said != "whole", body
        return text_of(face, body), how or said
    finally:
        caller.close()


def resident(pid: int, what: str = "VmRSS") -> int:
    """The memory of a process that is resident now, in bytes (``VmHWM``: that ever was)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))
