"""Cancellation and time limits: whatever phase a request is in, its connection closes at once."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from headrace.contracts.errors import LLMTimeoutError
from headrace.net.pool import PooledTransport
from headrace.net.transport import NO_LIMITS, HttpRequest, TimeLimits, Url
from net.byte_server import Gone, ok, saying, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


async def fetch(transport, url, limits=NO_LIMITS, **fields):
    reply = await transport.send(HttpRequest(url=url, **fields), limits)
    return await reply.read(1 << 30)


async def silent(peer):
    await peer.gone.wait()


def saying_and_staying(data):
    async def script(peer):
        await peer.request()
        peer.send(data)
        await peer.gone.wait()

    return script


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", HEAD, HEAD + b"half"])
def test_cancelling_closes_the_servers_side_whatever_has_been_said(run, said):
    async def main():
        transport = PooledTransport()
        async with serving(saying_and_staying(said)) as server:
            task = asyncio.ensure_future(fetch(transport, server.url))
            peer = await server.peer()
            await peer.asked.wait()
            for _ in range(10):  # the answer is on its way to the one who waits
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await peer.gone.wait()
            await transport.aclose()

    run(main)


def test_cancelling_at_any_turn_of_the_loop_leaves_nothing_behind(run):
    async def script(peer):
        while True:
            await peer.request()
            peer.send(HEAD)
            await asyncio.sleep(0)
            peer.send(b"nine byte")

    async def main():
        async with serving(script) as server:
            for turns in range(40):
                transport = PooledTransport(max_connections=1)
                task = asyncio.ensure_future(fetch(transport, server.url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                # Its place is free again, whether the connection lived or not.
                assert await fetch(transport, server.url) == b"nine byte"
                await transport.aclose()
            for peer in server.peers:
                await peer.gone.wait()

    run(main)


def test_cancelling_at_any_turn_of_a_second_try_gives_its_place_back(run):
    async def script(peer):
        await peer.request()
        peer.send(ok(b"first"))
        await peer.request()
        peer.close()

    async def main():
        async with serving(script) as server:
            for turns in range(40):
                transport = PooledTransport(max_connections=1)
                assert await fetch(transport, server.url) == b"first"
                task = asyncio.ensure_future(fetch(transport, server.url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                limits = TimeLimits(queue_s=10)
                assert await fetch(transport, server.url, limits) == b"first"
                await transport.aclose()

    run(main)


def listening_and_full():
    """A listening socket that completes no further connection: its backlog is used up."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
        fillers.append(filler)
    return listening, fillers


def test_cancelling_while_connecting_closes_the_socket(run):
    async def main():
        listening, fillers = listening_and_full()
        transport = PooledTransport()
        try:
            url = Url(host="127.0.0.1", port=listening.getsockname()[1])
            task = asyncio.ensure_future(fetch(transport, url))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(LLMTimeoutError, match=r"connect_s of 0.02 s .* connecting"):
                await fetch(transport, url, TimeLimits(connect_s=0.02))
            with pytest.raises(LLMTimeoutError, match=r"total_s of 0.02 s .* connecting"):
                await fetch(transport, url, TimeLimits(total_s=0.02))
        finally:
            await transport.aclose()
            for sock in (listening, *fillers):
                sock.close()

    run(main)


@pytest.mark.parametrize(
    ("script", "limits", "message"),
    [
        (silent, TimeLimits(first_byte_s=0.02), r"first_byte_s of 0.02 s .* headers"),
        (saying_and_staying(b"HTTP/1.1 2"), TimeLimits(first_byte_s=0.02), r"first_byte_s .* hea"),
        (saying_and_staying(HEAD), TimeLimits(idle_s=0.02), r"idle_s of 0.02 s .* body"),
        (saying_and_staying(HEAD + b"half"), TimeLimits(idle_s=0.02), r"idle_s of 0.02 s .* body"),
        (silent, TimeLimits(total_s=0.02), r"total_s of 0.02 s .* headers"),
        (saying_and_staying(HEAD + b"half"), TimeLimits(total_s=0.02), r"total_s of .* body"),
    ],
)
def test_a_limit_that_runs_out_is_named_with_its_seconds_and_closes_the_connection(
    run, script, limits, message
):
    async def main():
        transport = PooledTransport()
        async with serving(script) as server:
            with pytest.raises(LLMTimeoutError, match=message) as caught:
                await fetch(transport, server.url, limits)
            assert f"127.0.0.1:{server.url.port}" in str(caught.value)
            await server.peers[0].gone.wait()
            await transport.aclose()

    run(main)


def test_a_limit_that_runs_out_on_a_kept_connection_is_that_of_its_own_request(run):
    async def main():
        transport = PooledTransport()
        async with serving(saying(ok(b"first"), then="stay")) as server:
            long = TimeLimits(first_byte_s=50, total_s=100)
            assert await fetch(transport, server.url, long) == b"first"
            with pytest.raises(LLMTimeoutError, match=r"first_byte_s of 0.02 s"):
                await fetch(transport, server.url, TimeLimits(first_byte_s=0.02))
            await transport.aclose()

    run(main)


def test_a_body_that_trickles_longer_than_the_idle_limit_but_never_rests_so_long_is_whole(run):
    async def trickle(peer):
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.03)
            peer.send(b"x")

    async def main():
        transport = PooledTransport()
        async with serving(trickle) as server:
            assert await fetch(transport, server.url, TimeLimits(idle_s=0.25)) == b"x" * 10
            await transport.aclose()

    run(main)


def test_a_reader_who_takes_its_time_is_not_an_idle_server(run):
    async def main():
        transport = PooledTransport()
        async with serving(saying_and_staying(HEAD)) as server:
            limits = TimeLimits(idle_s=0.2)
            reply = await transport.send(HttpRequest(url=server.url), limits)
            waiting = asyncio.ensure_future(anext(aiter(reply)))
            await asyncio.sleep(0)
            server.peers[0].send(b"half")
            assert await waiting == b"half"
            await asyncio.sleep(0.5)  # longer than the limit, and nobody waits for a piece
            server.peers[0].send(b" done")
            assert await reply.read(100) == b" done"
            await transport.aclose()

    run(main)


class Holdup(asyncio.Protocol):
    """Answers through another socket, then blocks the loop inside the callback of this one."""

    def __init__(self, peer):
        self.peer = peer

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.peer.send(ok(b"in time"))
        time.sleep(0.2)


def test_a_loop_that_was_held_up_looks_at_the_socket_before_it_calls_a_limit_missed(run):
    async def main():
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        transport = PooledTransport()
        url = Url(host="127.0.0.1", port=listening.getsockname()[1])
        task = asyncio.ensure_future(fetch(transport, url, TimeLimits(first_byte_s=0.1)))
        peer, _ = await loop.sock_accept(listening)
        near, far = socket.socketpair()
        holdup, _ = await loop.create_connection(lambda: Holdup(peer), sock=near)
        try:
            assert await loop.sock_recv(peer, 1000)
            far.send(b"now")
            assert await task == b"in time"
        finally:
            await transport.aclose()
            holdup.close()
            for sock in (far, peer, listening):
                sock.close()

    run(main)


def test_a_server_that_stops_reading_makes_the_request_run_out_of_time(run):
    async def deaf(peer):
        peer.transport.pause_reading()
        await asyncio.sleep(30)

    async def main():
        transport = PooledTransport()
        async with serving(deaf) as server:
            body = bytes(30_000_000)
            with pytest.raises(LLMTimeoutError, match=r"idle_s of 0.1 s .* sending the request"):
                await fetch(transport, server.url, TimeLimits(idle_s=0.1), method="POST", body=body)
            await transport.aclose()

    run(main)


def test_a_server_that_reads_slowly_but_reads_is_sent_the_whole_request(run):
    async def slow(peer):
        size = 0
        while size < 20_000_000:
            size += len(await peer.some())
            peer.transport.pause_reading()
            await asyncio.sleep(0.01)
            peer.transport.resume_reading()
        peer.send(ok(b"thanks"))

    async def main():
        transport = PooledTransport()
        async with serving(slow) as server:
            limits = TimeLimits(idle_s=0.3, first_byte_s=20)
            body = bytes(20_000_000)
            assert await fetch(transport, server.url, limits, method="POST", body=body) == b"thanks"
            await transport.aclose()

    run(main)


def test_a_slow_reader_holds_the_server_up_and_still_gets_all_fifty_megabytes(run):
    block, blocks = b"0123456789abcdef" * 4096, 800

    async def flood(peer):
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(block) * blocks))
        for _ in range(blocks):
            await peer.send_all(block)

    async def main():
        transport = PooledTransport()
        async with serving(flood) as server:
            reply = await transport.send(HttpRequest(url=server.url), NO_LIMITS)
            peer, seen = server.peers[0], -1
            while peer.sent != seen:  # until it gets rid of nothing more
                seen = peer.sent
                await asyncio.sleep(0.1)
            # The rest of this is in the kernel's buffers for two sockets.
            assert seen < len(block) * blocks // 2
            size, largest = 0, 0
            async for piece in reply:
                size += len(piece)
                largest = max(largest, len(piece))
                await asyncio.sleep(0)
            assert size == len(block) * blocks
            assert largest <= 768 * 1024  # what waits for us stays near 256 KiB and one read
            await transport.aclose()

    run(main)


def test_an_answer_before_the_request_is_sent_is_taken_and_the_connection_closed(run):
    async def impatient(peer):
        await peer.some()
        peer.transport.pause_reading()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        await asyncio.sleep(0.05)
        peer.transport.resume_reading()
        try:
            while True:
                await peer.some()
        except Gone:
            return

    async def main():
        transport = PooledTransport()
        async with serving(impatient) as server:
            request = HttpRequest(method="POST", url=server.url, body=bytes(30_000_000))
            reply = await transport.send(request, NO_LIMITS)
            assert reply.status == 413
            assert reply.sent_at <= reply.first_byte_at
            assert await reply.read(10) == b"much"
            await server.peers[0].gone.wait()
            await transport.aclose()

    run(main)


def test_a_streamed_body_goes_out_as_it_comes(run):
    async def echo(peer):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await peer.some()
            peer.asked.set()
        peer.send(ok(body.partition(b"\r\n\r\n")[2]))

    async def main():
        transport = PooledTransport()
        async with serving(echo) as server:

            async def pieces():
                yield b"first"
                peer = await server.peer()
                await peer.asked.wait()  # the server has some of it before the rest is made
                yield b""
                yield b"x" * 300

            body = await fetch(transport, server.url, method="POST", body=pieces())
            assert body == b"5\r\nfirst\r\n12c\r\n" + b"x" * 300 + b"\r\n0\r\n\r\n"
            await transport.aclose()

    run(main)


def test_a_streamed_body_is_made_no_faster_than_the_server_reads(run):
    made = 0

    async def pieces():
        nonlocal made
        for _ in range(600):
            made += 1
            yield bytes(65536)

    async def late(peer):
        await peer.server.go.wait()
        peer.transport.resume_reading()
        await peer.request()
        peer.send(ok(b"done"))

    async def main():
        transport = PooledTransport()
        async with serving(late) as server:
            server.go = asyncio.Event()
            task = asyncio.ensure_future(fetch(transport, server.url, method="POST", body=pieces()))
            (await server.peer()).transport.pause_reading()
            seen = -1
            while made != seen:
                seen = made
                await asyncio.sleep(0.1)
            assert seen < 300
            server.go.set()
            assert await task == b"done"
            assert made == 600
            await transport.aclose()

    run(main)


def test_an_error_of_the_body_reaches_the_sender_and_closes_the_connection(run):
    async def pieces():
        yield b"first"
        raise KeyError("the source ran dry")

    async def main():
        transport = PooledTransport()
        async with serving(silent) as server:
            with pytest.raises(KeyError, match="the source ran dry"):
                await fetch(transport, server.url, method="POST", body=pieces())
            await (await server.peer()).gone.wait()
            await transport.aclose()

    run(main)


def test_an_early_answer_or_a_cancellation_ends_the_making_of_the_body(run):
    ended = []

    async def pieces():
        try:
            yield b"first"
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    async def early(peer):
        await peer.some()
        peer.send(ok(b"enough"))
        await peer.gone.wait()

    async def main():
        transport = PooledTransport()
        async with serving(early) as server:
            assert await fetch(transport, server.url, method="POST", body=pieces()) == b"enough"
            await server.peers[0].gone.wait()
        async with serving(silent) as server:
            task = asyncio.ensure_future(fetch(transport, server.url, method="POST", body=pieces()))
            peer = await server.peer()
            await peer.some()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await peer.gone.wait()
        await transport.aclose()

    run(main)
    assert ended == [True, True]
