"""A head that is known is read as the parser would read it, or left to the parser.

The parser is the judge of both directions: whatever is taken for a message with a known head has to
be just that one message to a parser that never saw it before.
"""

from __future__ import annotations

import asyncio

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMError
from headrace.net.known_head import MOST_BYTES, KnownHead
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits
from net.byte_server import ok, serving

REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
    b"Content-Length: %d\r\nAccept: */*\r\n\r\n%b"
)
ANSWER = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: %d\r\ncontent-type: a/b\r\n\r\n%b"


class Read:
    """What a parser that is new finds in some bytes."""

    def __init__(self, kind: type, data: bytes) -> None:
        self.messages: list[tuple[object, ...]] = []
        self.begun = 0
        parser = kind(self)
        self._parser = parser
        self.error: Exception | None = None
        try:
            parser.feed_data(data)
        except Exception as error:
            self.error = error

    def on_message_begin(self) -> None:
        self.begun += 1
        self.url, self.body = b"", b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"content-length":
            self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        keeps = self._parser.should_keep_alive()
        self.messages.append((self.url, tuple(self.headers), keeps, self.body))


KINDS = {
    "request": (httptools.HttpRequestParser, REQUEST),
    "answer": (httptools.HttpResponseParser, ANSWER),
}
PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"0", b"00", b"-", b"+", b"1", b"\0", b":", b", 5"),
        *(b"Content-Length: 3\r\n", b"content-length:3\r\n", b"\r\nContent-Length: 3"),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b" folded: 1\r\n"),
        *(b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"X: 1\r\n", b"Upgrade: h2c\r\n"),
    ]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 220), st.integers(0, 4), PIECES | st.just(b"")), max_size=3
)


@pytest.mark.parametrize("kind", KINDS)
@given(
    first=st.binary(min_size=1, max_size=30) | st.just(b"{}"),
    second=st.binary(max_size=12),
    edits=EDITS,
    stated=st.none() | st.binary(min_size=1, max_size=9) | st.integers(0, 40).map(b"%d".__mod__),
)
def test_what_is_taken_for_a_known_head_is_that_to_the_parser(
    kind: str,
    first: bytes,
    second: bytes,
    edits: list[tuple[int, int, bytes]],
    stated: bytes | None,
) -> None:
    parser, form = KINDS[kind]
    known: KnownHead[str] = KnownHead()
    learnt = form % (len(first), first)
    known.learn(learnt, first, "it")
    data = form % (len(second), second)
    if stated is not None:
        data = data.replace(b"ength: %d" % len(second), b"ength: " + stated)
    for place, gone, new in edits:
        data = data[:place] + new + data[place + gone :]
    body = known.body_of(data)
    if body is None:
        return
    read = Read(parser, data)
    [usual] = Read(parser, learnt).messages
    assert read.error is None
    assert read.begun == 1
    assert read.messages == [(*usual[:3], body)]


@given(
    before=st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]),
    body=PIECES,
    behind=PIECES | st.just(b""),
    again=st.binary(min_size=1, max_size=20),
)
def test_what_was_learnt_of_more_than_one_message_is_nothing_wrong(
    before: bytes, body: bytes, behind: bytes, again: bytes
) -> None:
    known: KnownHead[str] = KnownHead()
    known.learn(before + REQUEST % (len(body), body) + behind, body, "it")
    for data in (REQUEST % (len(again), again), before + REQUEST % (len(again), again)):
        for whole in (data, data + behind, data[: -len(again)] + behind + again):
            found = known.body_of(whole)
            if found is not None:
                read = Read(httptools.HttpRequestParser, whole)
                assert (read.error, read.begun) == (None, 1)
                assert [message[3] for message in read.messages] == [found]


@given(size=st.integers(1, 3_000), cut=st.integers(1, 200))
def test_a_message_that_has_not_come_whole_is_for_the_parser(size: int, cut: int) -> None:
    known: KnownHead[str] = KnownHead()
    known.learn(ANSWER % (2, b"{}"), b"{}", "it")
    data = ANSWER % (size, b"x" * size)
    assert known.body_of(data) == b"x" * size
    assert known.body_of(data[:-cut]) is None
    assert known.body_of(data + b"x" * cut) is None


def test_a_head_that_is_long_is_not_kept() -> None:
    known: KnownHead[str] = KnownHead()
    data = b"HTTP/1.1 200 OK\r\nX: %b\r\ncontent-length: 2\r\n\r\n{}" % (b"x" * MOST_BYTES)
    known.learn(data, b"{}", "it")
    assert known.body_of(data) is None


def test_where_heads_never_come_back_they_are_learnt_less_and_less() -> None:
    known: KnownHead[int] = KnownHead()
    heads = [b"HTTP/1.1 200 OK\r\nX: %d\r\ncontent-length: 2\r\n\r\n{}" % n for n in range(100)]
    for n, data in enumerate(heads):
        assert known.body_of(data) is None
        known.learn(data, b"{}", n)
    [last] = [n for n, data in enumerate(heads) if known.body_of(data) is not None]
    assert last < 99
    assert known.means == last


LIMITS = TimeLimits(first_byte_s=20, idle_s=20)
BAD = {
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
    "a fold": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n X: 1\r\n\r\n{}",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n{}",
    "more than it said": ok(b"{}") + b"more",
    "less than it said": ok(b"hello")[:-3],
    "another status": b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a good one": ok(b"hello"),
    "nothing": ok(b""),
    "no digits at all": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", BAD)
def test_an_answer_is_the_same_whatever_came_before_it(run, case: str, method: str) -> None:
    """On a connection that has carried good answers of one head, and on a new one."""

    def script(answers: list[bytes]):
        async def play(peer) -> None:
            for answer in answers:
                await peer.request()
                peer.send(answer)
            await asyncio.sleep(0.01)
            peer.close()

        return play

    async def outcome(goods: list[bytes]) -> tuple[object, ...]:
        async with serving(script([*goods, BAD[case]])) as server:
            transport = PooledTransport()
            try:
                for good in goods:
                    reply = await transport.send(HttpRequest(url=server.url), LIMITS)
                    assert await reply.read(99) == good.partition(b"\r\n\r\n")[2]
                    assert reply.headers["content-length"] == str(
                        len(good.partition(b"\r\n\r\n")[2])
                    )
                try:
                    reply = await transport.send(HttpRequest(method=method, url=server.url), LIMITS)
                    return reply.status, dict(reply.headers), await reply.read(99)
                except LLMError as error:
                    return type(error), str(error).replace(str(server.url.port), "")
            finally:
                await transport.aclose()

    async def main() -> None:
        good = [ok(b"abc"), ok(b"a" * 12), ok(b"defg")]
        assert await outcome(good) == await outcome([])

    run(main)
