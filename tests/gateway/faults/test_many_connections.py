"""Callers who are slow to ask, slow to read or idle, by the hundred: the others are served meanwhile.

HEADRACE_FULL_FAULTS=1 runs with the numbers that the promises are made with.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import pytest
from attrs import fields_dict

from gateway.faults.caller import Caller, ask, ending, request, resident
from gateway.faults.conftest import FULL
from gateway.faults.upstream import HEAD, Upstream, begun, chunk, opening, piece
from gateway.served import Served
from headrace.gateway.config import ServerConfig
from net.byte_server import Peer

SLOW_ASKERS = 2000 if FULL else 500
SLOW_READERS = 200 if FULL else 50
IDLE_STREAMS = 5000 if FULL else 1000
HEADER_S = 2
HAS_HEADER_TIMEOUT = "header_timeout_ms" in fields_dict(ServerConfig)


async def long(peer: Peer, request: bytes) -> None:
    """As much as anybody takes."""
    peer.send(HEAD + chunk(opening(request) + piece(request, "once")))
    lump = chunk(piece(request, "x" * 1000)) * 8
    while True:
        await peer.send_all(lump)


PLAYS = {"begun": begun, "long": long}
BACKENDS = {name: {"max_concurrent_requests": 20_000, "idle_timeout_ms": 600_000} for name in PLAYS}
SERVER: dict[str, object] = {"max_connections": 20_000}
if HAS_HEADER_TIMEOUT:
    SERVER["header_timeout_ms"] = HEADER_S * 1000


@pytest.fixture(autouse=True, scope="module")
def many_files() -> Iterator[None]:
    """As many open files as the system lets us have, for us and the gateways started meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def need_files(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < count:
        pytest.skip(f"the system allows {hard} open files, this needs {count}")


async def opened(front: Served, count: int) -> list[Caller]:
    """So many connections, some at a time."""
    callers: list[Caller] = []
    while len(callers) < count:
        some = min(50, count - len(callers))
        callers += await asyncio.gather(*(Caller.of(front) for _ in range(some)))
    return callers


async def left(callers: list[Caller]) -> None:
    """All of them are gone."""
    for caller in callers:
        caller.leave()
    await asyncio.sleep(0)


async def drip(callers: list[Caller]) -> None:
    """A byte of a header now and then, from each, for ever."""
    while True:
        for caller in callers:
            with contextlib.suppress(ConnectionError):
                caller.send(b"x")
        await asyncio.sleep(0.5)


async def is_closed(caller: Caller) -> bool:
    with contextlib.suppress(ConnectionError):
        await caller.reader.read()
    return True


def test_many_who_never_finish_asking_keep_nobody_from_being_served(front: Served) -> None:
    need_files(2 * SLOW_ASKERS)

    async def main() -> None:
        callers = await opened(front, SLOW_ASKERS)
        for caller in callers:
            caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        dripping = asyncio.ensure_future(drip(callers))
        try:
            for _ in range(50):
                begin = time.monotonic()
                status, _, body = await ask(front, request("chat", "good"))
                assert (status, ending("chat", body)) == (200, "whole")
                assert time.monotonic() - begin < 2
        finally:
            dripping.cancel()
            await left(callers)

    asyncio.run(main())


@pytest.mark.skipif(not HAS_HEADER_TIMEOUT, reason="there is no server.header_timeout_ms yet")
def test_who_never_finishes_asking_is_let_go_in_time(front: Served) -> None:
    need_files(2 * SLOW_ASKERS)

    async def main() -> None:
        callers = await opened(front, SLOW_ASKERS)
        begin = time.monotonic()
        for caller in callers:
            caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        dripping = asyncio.ensure_future(drip(callers))
        try:
            async with asyncio.timeout(HEADER_S + 8):
                await asyncio.gather(*(is_closed(caller) for caller in callers))
            assert time.monotonic() - begin >= HEADER_S * 0.9
        finally:
            dripping.cancel()
            await left(callers)

    asyncio.run(main())


def test_slow_readers_of_long_answers_cost_little_memory(front: Served, upstream: Upstream) -> None:
    """Each takes 1 KiB a second of an answer without end; the upstream has to wait, not we to hold."""

    async def reader(loop: asyncio.AbstractEventLoop) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (front.host, front.port))
        await loop.sock_sendall(sock, request("chat", "long"))
        return sock

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await ask(front, request("chat", "good"))
        before = resident(front.process.pid)
        sockets = [await reader(loop) for _ in range(SLOW_READERS)]
        try:
            most = 0
            for _ in range(10 if FULL else 3):
                for sock in sockets:
                    assert await loop.sock_recv(sock, 1024)
                status, _, _ = await ask(front, request("chat", "good"))
                assert status == 200
                most = max(most, resident(front.process.pid))
                await asyncio.sleep(1)
            print(f"{SLOW_READERS} slow readers: {(most - before) / 2**20:.0f} MiB")
            assert most - before < 128 << 20
        finally:
            for sock in sockets:
                sock.close()

    asyncio.run(main())


def test_an_idle_stream_costs_less_than_40_kib(front: Served) -> None:
    need_files(2 * IDLE_STREAMS + 500)

    async def main() -> None:
        await ask(front, request("chat", "good"))
        before = resident(front.process.pid)
        callers: list[Caller] = []
        try:
            while len(callers) < IDLE_STREAMS:
                some = await opened(front, 100)
                callers += some
                for caller in some:
                    caller.send(request("chat", "begun"))
                for caller in some:
                    status, _ = await caller.head()
                    assert status == 200
                    await caller.until(b"once")
            each = (resident(front.process.pid) - before) / IDLE_STREAMS
            print(f"{IDLE_STREAMS} idle streams: {each / 1024:.1f} KiB each")
            assert each < 40 << 10
            status, _, _ = await ask(front, request("chat", "good"))
            assert status == 200
        finally:
            await left(callers)

    asyncio.run(main())
