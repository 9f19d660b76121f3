"""What answers are read as, however they are framed and wherever they are cut."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from attrs import evolve

from headrace.contracts.errors import LLMBadResponseError, LLMCancelledError, LLMUnavailableError
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits
from net.byte_server import ok, saying, serving

LIMITS = TimeLimits(first_byte_s=20, idle_s=20)


async def ask(server, method="GET", limit=1 << 20, **fields):
    """One request with a transport of its own: the reply, and its body."""
    transport = PooledTransport()
    try:
        request = HttpRequest(method=method, url=server.url, **fields)
        reply = await transport.send(request, LIMITS)
        return reply, await reply.read(limit)
    finally:
        await transport.aclose()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "stated length": ok(b"hello world"),
    "chunks": CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "chunk extensions and trailers": CHUNKED
    + b'5;a=b;c="d"\r\nhello\r\n6;x\r\n world\r\n0\r\nX-Sum: 1\r\nStatus: 500\r\n\r\n',
    "until the connection closes": b"HTTP/1.1 200 OK\r\n\r\nhello world",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello world",
    "interim answers first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n"
    b"Link: </a>\r\nContent-Type: wrong\r\n\r\n" + ok(b"hello world"),
    "no reason phrase": b"HTTP/1.1 200\r\nContent-Length: 11\r\n\r\nhello world",
    "an upgrade offered that nobody asked for": b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\n"
    b"Connection: Upgrade\r\nContent-Length: 11\r\n\r\nhello world",
    "an upgrade offered, in chunks": b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_is_read_whole_however_it_is_framed(run, kind):
    async def main():
        async with serving(saying(WHOLE[kind])) as server:
            reply, body = await ask(server)
            assert reply.status == 200
            assert body == b"hello world"
            assert "x-sum" not in reply.headers
            assert "link" not in reply.headers

    run(main)


@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_that_trickles_in_two_pieces_is_the_same_wherever_it_is_split(run, kind):
    answer = WHOLE[kind]

    async def halves(peer):
        for cut in range(1, len(answer)):
            await peer.request()
            peer.send(answer[:cut])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            peer.send(answer[cut:])
            if kind in ("until the connection closes", "HTTP/1.0"):
                peer.close()
                return

    async def main():
        transport = PooledTransport()
        async with serving(halves) as server:
            for _ in range(1, len(answer)):
                reply = await transport.send(HttpRequest(url=server.url), LIMITS)
                assert reply.status == 200
                assert await reply.read(100) == b"hello world"
            await transport.aclose()

    run(main)


def test_an_answer_that_comes_byte_by_byte_is_read(run):
    answer = WHOLE["chunk extensions and trailers"]

    async def trickle(peer):
        await peer.request()
        for i in range(len(answer)):
            peer.send(answer[i : i + 1])
            await asyncio.sleep(0)

    async def main():
        async with serving(trickle) as server:
            assert (await ask(server))[1] == b"hello world"

    run(main)


@pytest.mark.parametrize("kind", ["stated length", "chunks", "interim answers first"])
def test_an_answer_cut_short_is_an_error_wherever_it_is_cut(run, kind):
    answer = WHOLE[kind]
    cuts = iter(range(1, len(answer)))

    async def cut(peer):
        await peer.request()
        peer.send(answer[: next(cuts)])
        peer.close()

    async def main():
        async with serving(cut) as server:
            for _ in range(1, len(answer)):
                with pytest.raises(LLMBadResponseError, match="closed the connection inside"):
                    await ask(server)

    run(main)


def test_what_came_before_the_cut_is_handed_out_before_the_error(run):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
        async with serving(saying(answer)) as server:
            transport = PooledTransport()
            reply = await transport.send(HttpRequest(url=server.url), LIMITS)
            assert await anext(aiter(reply)) == b"hello"
            with pytest.raises(LLMBadResponseError, match="after 5 of 9 bytes") as caught:
                await anext(aiter(reply))
            assert caught.value.transient
            with pytest.raises(LLMBadResponseError):  # and it stays an error
                await reply.read(100)
            await transport.aclose()

    run(main)


@pytest.mark.parametrize(
    ("answer", "where"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nConte", "inside the answer's headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "after 5 of 9 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "after 5 bytes"),
    ],
)
def test_a_reset_says_how_far_the_answer_had_come(run, answer, where):
    async def main():
        async with serving(saying(answer, then="reset")) as server:
            with pytest.raises(LLMUnavailableError, match=where) as caught:
                await ask(server)
            assert f"127.0.0.1:{server.url.port}" in str(caught.value)

    run(main)


def test_a_connection_closed_without_an_answer_is_unavailable(run):
    async def main():
        async with serving(saying(b"")) as server:
            with pytest.raises(LLMUnavailableError, match="closed the connection without"):
                await ask(server)
            assert len(server.peers) == 1  # a new connection is not tried again

    run(main)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "not HTTP/1.1"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "not HTTP/1.1"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "not HTTP/1.1",
        ),
        (CHUNKED + b"5\r\nhelloX", "not HTTP/1.1"),
        (CHUNKED + b"zz\r\n", "not HTTP/1.1"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nPRI *",
            "switched protocols",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "switched protocols"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 66_000 + b"\r\n\r\n", "headers of more than 65536"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 17_000, "headers of more than 65536"),
        (b"HTTP/1.1 200 " + b"O" * 70_000, "headers of more than 65536"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000, "headers of more than 65536"),
        (CHUNKED + b"5;" + b"e" * 70_000, "chunk framing or trailers of more than 65536"),
        (CHUNKED + b"0\r\nX: " + b"t" * 70_000, "chunk framing or trailers of more than 65536"),
    ],
)
def test_what_is_not_http_or_has_no_bounds_is_refused_and_the_connection_closed(
    run, answer, complaint
):
    async def main():
        async with serving(saying(answer, then="stay")) as server:
            with pytest.raises(LLMBadResponseError, match=complaint):
                await ask(server)
            await server.peers[0].gone.wait()

    run(main)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_an_answer_that_has_no_body_is_over_with_its_headers(run, method, answer):
    async def main():
        async with serving(saying(answer, then="stay")) as server:
            reply, body = await ask(server, method)
            assert reply.status in (200, 204, 304)
            assert body == b""

    run(main)


def test_a_connection_carries_the_next_request_after_an_answer_to_head(run):
    async def main():
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
        transport = PooledTransport()
        async with serving(saying(head, head, ok(b"body"))) as server:
            for _ in range(2):
                reply = await transport.send(HttpRequest(method="HEAD", url=server.url), LIMITS)
                assert await reply.read(10) == b""
            reply = await transport.send(HttpRequest(url=server.url), LIMITS)
            assert reply.connection_reused
            assert await reply.read(10) == b"body"
            await transport.aclose()

    run(main)


def test_a_redirect_is_handed_back_as_it_is(run):
    async def main():
        answer = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"
        async with serving(saying(answer)) as server:
            reply, _ = await ask(server)
            assert (reply.status, reply.headers["location"]) == (302, "http://elsewhere/")
            assert len(server.requests) == 1

    run(main)


def test_header_names_are_lower_case_and_repeated_ones_are_joined(run):
    async def main():
        headers = b"X-Request-ID: 7\r\nVia:  one \r\nEmpty:\r\nVIA: two\r\nLatin: caf\xe9\r\n"
        async with serving(saying(ok(b"", headers))) as server:
            reply, _ = await ask(server)
            assert reply.headers == {
                "content-length": "0",
                "x-request-id": "7",
                "via": "one, two",
                "empty": "",
                "latin": "café",
            }

    run(main)


def test_the_body_past_the_limit_is_refused_and_the_connection_closed(run):
    async def main():
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx",
            CHUNKED + b"b\r\n" + b"x" * 11 + b"\r\n",
        ):
            async with serving(saying(answer, then="stay")) as server:
                with pytest.raises(LLMBadResponseError, match="the limit is 10 bytes"):
                    await ask(server, limit=10)
                await server.peers[0].gone.wait()

    run(main)


def test_a_reply_closed_before_its_end_closes_the_connection_and_does_not_pass_for_whole(run):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
        async with serving(saying(answer, then="stay")) as server:
            transport = PooledTransport()
            async with aclosing(await transport.send(HttpRequest(url=server.url), LIMITS)) as reply:
                assert await anext(aiter(reply)) == b"hello"
            await server.peers[0].gone.wait()
            with pytest.raises(LLMCancelledError):
                await reply.read(100)
            await transport.aclose()

    run(main)


def test_instants_are_of_the_clock_handed_in(run):
    class Counting:
        def __init__(self):
            self.now = 0.0

        def monotonic(self):
            self.now += 1.0
            return self.now

        def wall(self):
            return 0.0

        async def sleep(self, seconds):
            raise AssertionError("nothing sleeps")

    async def main():
        async with serving(saying(ok(b"a"), ok(b"b"))) as server:
            transport = PooledTransport(clock=Counting())
            request = HttpRequest(url=server.url)
            first = await transport.send(request, LIMITS)
            assert (first.sent_at, first.first_byte_at) == (1.0, 2.0)
            second = await transport.send(evolve(request, body=b"x"), LIMITS)
            assert (second.sent_at, second.first_byte_at) == (3.0, 4.0)
            await transport.aclose()

    run(main)


def test_two_tasks_cannot_read_one_answer(run):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        async with serving(saying(answer, then="stay")) as server:
            transport = PooledTransport()
            reply = await transport.send(HttpRequest(url=server.url), LIMITS)
            reading = asyncio.ensure_future(reply.read(100))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="two tasks"):
                await reply.read(100)
            await transport.aclose()
            with pytest.raises(LLMUnavailableError, match="our transport was closed"):
                await reading

    run(main)
