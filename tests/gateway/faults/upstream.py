"""Upstreams that say exactly what a test tells them to, on a loop and a thread of their own.

Run as a program it is one that streams without end, for those who want to kill it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from net.byte_server import ByteServer, Peer, serving
from traffic.play import ENDING, OPENING, event, said

Play = Callable[[Peer, bytes], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def refused(status: int, headers: bytes = b"", message: str = "") -> bytes:
    body = b'{"error": {"message": "%b", "type": "error"}}' % (message or f"says {status}").encode()
    length = b"Content-Length: %d\r\n" % len(body)
    kind = b"Content-Type: application/json\r\n"
    return b"HTTP/1.1 %d No\r\n%b%b%b\r\n%b" % (status, kind, length, headers, body)


def wants_text(request: bytes) -> bool:
    """Whether it came to /completions, where pieces have another form."""
    return b"/chat/completions " not in request.partition(b"\r\n")[0]


def piece(request: bytes, text: str, reason: str | None = None) -> bytes:
    """One event with ``text``, in the form of the path that ``request`` came to."""
    if wants_text(request):
        return event(choices=[{"index": 0, "text": text, "finish_reason": reason}])
    return said(text, reason)


def opening(request: bytes) -> bytes:
    """What comes before the first text."""
    return b"" if wants_text(request) else OPENING


def answer(request: bytes, *texts: str) -> bytes:
    """A whole answer of these pieces: a stream where one was asked for, else JSON."""
    if b'"stream":true' not in request.replace(b" ", b""):
        whole = "".join(texts)
        message = {"text": whole} if wants_text(request) else {}
        if not message:
            message = {"message": {"role": "assistant", "content": whole}}
        choice = {"index": 0, "finish_reason": "stop", **message}
        body = event(choices=[choice]).removeprefix(b"data: ").strip()
        kind = b"Content-Type: application/json\r\n"
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)
    ending = (piece(request, "", "stop"), *ENDING[1:]) if wants_text(request) else ENDING
    said_there = b"".join(piece(request, text) for text in texts)
    return HEAD + chunk(opening(request) + said_there + b"".join(ending)) + END


async def good(peer: Peer, request: bytes) -> None:
    peer.send(answer(request, "fi", "ne"))


def always(data: bytes) -> Play:
    """Whatever is asked, these bytes."""

    async def play(peer: Peer, request: bytes) -> None:
        peer.send(data)

    return play


async def hanging(peer: Peer, request: bytes) -> None:
    """Not a byte."""
    await peer.gone.wait()


async def begun(peer: Peer, request: bytes) -> None:
    """One piece, and then silence."""
    peer.send(HEAD + chunk(opening(request) + piece(request, "once")))
    await peer.gone.wait()


async def endless(peer: Peer, request: bytes) -> None:
    """A piece now and then, for ever."""
    peer.send(HEAD + chunk(opening(request) + piece(request, "once")))
    while not peer.gone.is_set():
        await asyncio.sleep(0.2)
        peer.send(chunk(piece(request, " more")))


class Upstream:
    """``plays`` says by name what a backend does; ``base_url`` is where one of that name is.

    ``asked`` are the requests by name, ``hits`` how many they were and ``times`` when they came;
    ``ended`` says by the request's mark (a word in it) when its connection was closed.
    """

    def __init__(self) -> None:
        self.plays: dict[str, Play] = {"good": good}
        self.asked: dict[str, list[bytes]] = {}
        self.times: dict[str, list[float]] = {}
        self.hits: Counter[str] = Counter()
        self.server: ByteServer
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        assert self._begun.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        if self._failure is not None:
            raise self._failure

    def base_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.url.port}/{name}/v1"

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as failure:
            self._failure = failure

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._play) as self.server:
            self._begun.set()
            await self._end.wait()

    async def _play(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            name = request.split(b"/", 2)[1].decode()
            self.hits[name] += 1
            self.times.setdefault(name, []).append(time.monotonic())
            self.asked.setdefault(name, []).append(request)
            await self.plays[name](peer, request)


async def _stream_for_ever() -> None:
    async def play(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if b"/models" in request.partition(b"\r\n")[0]:
                peer.send(refused(404))
            else:
                await endless(peer, request)

    async with serving(play) as server:
        print(server.url.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(_stream_for_ever()))
