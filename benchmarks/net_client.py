"""CPU per request and per streamed chunk: our transport against aiohttp and httpx, where installed.

    python benchmarks/net_client.py [--requests N] [--chunks N] [--repeats N]

The server is a child process that answers without parsing, so that the time measured here is the
client's alone: user and system CPU of this process. Clients take turns within each repeat; shown is
the median over the repeats. The streams are of 120-byte chunks: ``lone`` has one a millisecond, so
that each is a wake-up and a system call of its own; ``flood`` writes each as soon as the one before
it is written, ``burst`` all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits, parse_url

BODY = b'{"messages":[{"role":"user","content":"Say hello."}],"model":"m","stream":true}'
HEADERS = (
    ("content-type", "application/json"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("accept", "application/json"),
)
ANSWER = b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."}}]}'
EVENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":" token"}}],"padding":"'
EVENT = EVENT.ljust(116, b"x") + b'"}\n\n'


class Answers(asyncio.Protocol):
    """Answers ``/small``, and ``/lone/N``, ``/flood/N``, ``/burst/N`` with N chunks."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        # Some clients send head and body apart; a request is here when its body's end is.
        if not self.buffer.endswith(BODY):
            return
        target = self.buffer.split(b" ", 2)[1]
        self.buffer = b""
        if target == b"/small":
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self.transport.write(head % len(ANSWER) + ANSWER)
            return
        _, kind, count = target.split(b"/")
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
        if kind == b"burst":
            self.transport.write(chunk * int(count) + b"0\r\n\r\n")
        else:
            self.task = asyncio.ensure_future(self.trickle(chunk, int(count), kind))

    async def trickle(self, chunk: bytes, count: int, kind: bytes) -> None:
        for _ in range(count):
            self.transport.write(chunk)
            await asyncio.sleep(0.001 if kind == b"lone" else 0)
        self.transport.write(b"0\r\n\r\n")


def serve(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


@asynccontextmanager
async def ours(base: str) -> AsyncIterator[Any]:
    transport, limits = PooledTransport(), TimeLimits()

    async def get(path: str) -> int:
        request = HttpRequest(method="POST", url=parse_url(base + path), headers=HEADERS, body=BODY)
        size = 0
        async with aclosing(await transport.send(request, limits)) as reply:
            async for piece in reply:
                size += len(piece)
        return size

    yield get
    await transport.aclose()


@asynccontextmanager
async def ours_url_kept(base: str) -> AsyncIterator[Any]:
    transport, limits, urls = PooledTransport(), TimeLimits(), {}

    async def get(path: str) -> int:
        url = urls.get(path) or urls.setdefault(path, parse_url(base + path))
        request = HttpRequest(method="POST", url=url, headers=HEADERS, body=BODY)
        size = 0
        reply = await transport.send(request, limits)
        async for piece in reply:
            size += len(piece)
        return size

    yield get
    await transport.aclose()


@asynccontextmanager
async def aiohttp(base: str) -> AsyncIterator[Any]:
    import aiohttp as library

    async with library.ClientSession(headers=dict(HEADERS)) as session:

        async def get(path: str) -> int:
            size = 0
            async with session.post(base + path, data=BODY) as reply:
                async for piece in reply.content.iter_any():
                    size += len(piece)
            return size

        yield get


def httpx_like(name: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def client(base: str) -> AsyncIterator[Any]:
        library = __import__(name)
        async with library.AsyncClient(headers=dict(HEADERS)) as session:

            async def get(path: str) -> int:
                size = 0
                async with session.stream("POST", base + path, content=BODY) as reply:
                    async for piece in reply.aiter_raw():
                        size += len(piece)
                return size

            yield get

    return client


CLIENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "headrace": ("headrace", ours_url_kept),
    "headrace, URL parsed each time": ("headrace", ours),
    "aiohttp": ("aiohttp", aiohttp),
    "httpx": ("httpx", httpx_like("httpx")),
    "httpx2": ("httpx2", httpx_like("httpx2")),
}


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(
    client: Callable[[str], Any], base: str, requests: int, chunks: int
) -> list[float]:
    """CPU in microseconds: per request, and per chunk of each kind of stream."""
    async with client(base) as get:
        for _ in range(50):
            await get("/small")
        begin = cpu_s()
        for _ in range(requests):
            await get("/small")
        results = [(cpu_s() - begin) / requests * 1e6]
        for kind, count in (("lone", min(chunks, 1000)), ("flood", chunks), ("burst", chunks)):
            begin = cpu_s()
            size = await get(f"/{kind}/{count}")
            assert size == count * len(EVENT), (size, count)
            results.append((cpu_s() - begin) / count * 1e6)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--chunks", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    ours_end, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{ours_end.recv()}"
    clients = {}
    for name, (module, client) in CLIENTS.items():
        if find_spec(module) is None:
            print(f"{name}: skipped, not installed")
        else:
            clients[name] = client
    for loop, run in (("uvloop", uvloop.run), ("asyncio", asyncio.run)):
        samples: dict[str, list[list[float]]] = {name: [] for name in clients}
        for _ in range(options.repeats):
            for name, client in clients.items():
                samples[name].append(run(measure(client, base, options.requests, options.chunks)))
        title = f"{loop}, CPU us (Python {sys.version.split()[0]}, {os.cpu_count()} cores)"
        print(f"\n{title:50} {'request':>9} {'lone':>9} {'flood':>9} {'burst':>9}")
        for name, rows in samples.items():
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            print(f"{name:50} " + " ".join(f"{value:9.2f}" for value in medians))
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
