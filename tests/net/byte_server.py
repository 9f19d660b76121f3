"""A server that says exactly the bytes a test tells it to, over real sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

from headrace.net.transport import Url

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Peer(asyncio.Protocol):
    """The server's side of one connection; ``gone`` is set when the client has closed it."""

    def __init__(self, server: ByteServer) -> None:
        self.server = server
        self.number = -1
        self.gone = asyncio.Event()
        self.asked = asyncio.Event()
        self.sent = 0
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport):
        self.transport = transport
        self.number = len(self.server.peers)
        self.server.peers.append(self)
        self.server.arrived.set()
        self.server.most_open = max(self.server.most_open, self.server.open)
        self.task = asyncio.ensure_future(self._run())

    def data_received(self, data):
        self._buffer += data
        self._news.set()

    def eof_received(self):
        self._end()

    def connection_lost(self, exc):
        self._end()

    def pause_writing(self):
        self._room.clear()

    def resume_writing(self):
        self._room.set()

    def _end(self):
        self.gone.set()
        self._news.set()
        self._room.set()

    async def _run(self):
        try:
            await self.server.script(self)
        except (asyncio.CancelledError, Gone):
            pass
        except Exception as error:
            self.server.failures.append(error)

    async def some(self) -> bytes:
        """What the client sent since the last look."""
        while not self._buffer:
            if self.gone.is_set():
                raise Gone
            self._news.clear()
            await self._news.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def request(self) -> bytes:
        """One whole request."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.some()
        head, _, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        while length and len(body) < int(length[1]):
            body += await self.some()
        while b"transfer-encoding: chunked" in head.lower() and not body.endswith(b"0\r\n\r\n"):
            body += await self.some()
        self.asked.set()
        self.server.requests.append(head + b"\r\n\r\n" + body)
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def send_all(self, data: bytes) -> None:
        """Send, and wait while the client takes nothing more."""
        self.transport.write(data)
        await self._room.wait()
        if self.gone.is_set():
            raise Gone
        self.sent += len(data)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Gone(Exception):
    """The client has closed the connection."""


class ByteServer:
    """``peers`` are its connections in order; ``most_open`` is how many were open at once."""

    def __init__(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []
        self.failures: list[Exception] = []
        self.arrived = asyncio.Event()
        self.most_open = 0
        self.url: Url

    @property
    def open(self) -> int:
        return sum(not peer.gone.is_set() for peer in self.peers)

    async def peer(self, number: int = 0) -> Peer:
        while len(self.peers) <= number:
            self.arrived.clear()
            await self.arrived.wait()
        return self.peers[number]


@asynccontextmanager
async def serving(script, *, tls: ssl.SSLContext | None = None, unix_path: str | None = None):
    """A server that runs ``script`` for every connection; a failing script fails the test."""
    server = ByteServer(script)
    loop = asyncio.get_running_loop()
    if unix_path is not None:
        listening = await loop.create_unix_server(lambda: Peer(server), unix_path)
        server.url = Url(unix_path=unix_path)
    else:
        listening = await loop.create_server(lambda: Peer(server), "127.0.0.1", 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        scheme = "http" if tls is None else "https"
        server.url = Url(scheme=scheme, host="localhost" if tls else "127.0.0.1", port=port)
    try:
        yield server
    finally:
        listening.close()
        for peer in server.peers:
            peer.task.cancel()
            peer.transport.abort()
        await asyncio.gather(*(peer.task for peer in server.peers), return_exceptions=True)
        await listening.wait_closed()
    assert not server.failures, server.failures


def saying(*answers: bytes, then: str = "close"):
    """A script: one answer for each request, then close, reset or stay."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            peer.send(answer)
        if then == "close":
            peer.close()
        elif then == "reset":
            # Let the bytes out first: a reset throws away what is unsent.
            await asyncio.sleep(0.01)
            peer.reset()
        else:
            await peer.gone.wait()

    return script


def ok(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), headers, body)


async def answering(peer: Peer) -> None:
    """A script: every request is answered with its number on this connection."""
    number = 0
    while True:
        await peer.request()
        number += 1
        peer.send(ok(b"%d.%d" % (peer.number, number)))
