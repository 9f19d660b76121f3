"""HTTP at its edges: what is right is answered in order, what is wrong is refused and ends there."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from gateway.faults.caller import Caller, Cut, ask, ending, request, text_of
from gateway.faults.upstream import Upstream, answer
from gateway.served import Served
from net.byte_server import Peer

_SAYS = re.compile(rb"say ([a-z0-9]+)")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SERVER = {"body_timeout_ms": 1000, "max_body_bytes": 1 << 20}


async def echo(peer: Peer, request: bytes) -> None:
    """Whatever the caller wants said; ``slow`` only after a while."""
    found = _SAYS.search(request)
    assert found, request
    if found[1].startswith(b"slow"):
        await asyncio.sleep(0.1)
    peer.send(answer(request, found[1].decode()))


PLAYS = {"echo": echo}


def whole(word: str, **how) -> bytes:
    return request("chat", "echo", f"say {word}", stream=False, **how)


def said(body: bytes) -> str:
    return json.loads(body)["choices"][0]["message"]["content"]


def body_of(word: str = "hello") -> bytes:
    return whole(word).partition(b"\r\n\r\n")[2]


def chunked(*chunks: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


async def answers(
    front: Served, data: bytes, *, half_close: bool = False
) -> tuple[list[int], bool]:
    """The statuses of all answers to ``data``, and whether the gateway closed after them."""
    caller = await Caller.of(front)
    try:
        caller.send(data)
        if half_close:
            caller.writer.write_eof()
        statuses = []
        while True:
            try:
                status, _, _ = await asyncio.wait_for(caller.whole(), 2)
            except (Cut, ConnectionError):
                return statuses, True
            except TimeoutError:
                return statuses, False
            statuses.append(status)
    finally:
        caller.close()


def test_two_requests_in_one_packet_are_answered_in_order(front: Served) -> None:
    async def main() -> None:
        caller = await Caller.of(front)
        caller.send(whole("slow1") + whole("second"))
        heard = [said((await caller.whole())[2]) for _ in range(2)]
        assert heard == ["slow1", "second"]
        caller.close()

    asyncio.run(main())


def test_requests_of_all_kinds_in_one_packet_are_answered_in_order(front: Served) -> None:
    """Streams and whole answers, of both ways and of none."""
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    packet = (
        request("chat", "echo", "say slow1")
        + health
        + whole("second")
        + request("messages", "echo", "say slow2")
        + request("chat", "echo", "say third")
        + health
        + request("chat", "nobody", "say nothing")
        + whole("slow3")
    )

    async def main() -> None:
        caller = await Caller.of(front)
        caller.send(packet)
        heard: list[object] = []
        for kind in ("chat", "health", "whole", "messages", "chat", "health", "error", "whole"):
            status, _, body = await caller.whole()
            if kind in {"chat", "messages"}:
                assert ending(kind, body) == "whole"
                heard.append(text_of(kind, body))
            elif kind == "whole":
                heard.append(said(body))
            else:
                heard.append(status)
        assert heard == ["slow1", 200, "second", "slow2", "third", 200, 404, "slow3"]
        caller.close()

    asyncio.run(main())


def test_a_request_that_comes_byte_by_byte_is_a_request(front: Served) -> None:
    async def main() -> None:
        caller = await Caller.of(front)
        data = whole("hello")
        for place in range(len(data)):
            caller.send(data[place : place + 1])
            await asyncio.sleep(0)
        assert said((await caller.whole())[2]) == "hello"
        caller.close()

    asyncio.run(main())


GOOD = {
    "one chunk": chunked(chunk(body_of()), b"0\r\n\r\n"),
    "many chunks": chunked(*(chunk(bytes([b])) for b in body_of()), b"0\r\n\r\n"),
    "an extension": chunked(chunk(body_of(), b";name=value"), b"0\r\n\r\n"),
    "a trailer": chunked(chunk(body_of()), b"0\r\nX-Checksum: 1\r\n\r\n"),
    "a content coding that is none": whole("hello", headers=b"Accept-Encoding: gzip\r\n"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_allowed_is_answered(front: Served, case: str) -> None:
    status, _, body = asyncio.run(ask(front, GOOD[case]))
    assert (status, said(body)) == (200, "hello")


def test_an_upgrade_that_nobody_takes_is_answered_as_if_it_were_not_there(front: Served) -> None:
    """Clients that would like HTTP/2 (curl --http2) say so in the request itself."""
    headers = b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    status, _, body = asyncio.run(ask(front, whole("hello", headers=headers)))
    assert (status, said(body)) == (200, "hello")


def test_who_waits_to_be_told_to_go_on_is_told(front: Served) -> None:
    async def main() -> None:
        caller = await Caller.of(front)
        head, _, body = whole("hello", headers=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        caller.send(head + b"\r\n\r\n")
        assert (await caller.head())[0] == 100
        caller.send(body)
        assert said((await caller.whole())[2]) == "hello"
        caller.close()

    asyncio.run(main())


LENGTH = b"Content-Length: %d\r\n"
WRONG = {
    "a length and chunks": HEAD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(body_of())
    + b"0\r\n\r\n",
    "chunks and a length": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    + chunk(body_of())
    + b"0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
    "a length below nothing": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "a length with a sign": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "a length in another base": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "a length that is a list": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length beyond all numbers": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "another coding after chunks": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n{}",
    "a chunk size that is none": chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk size below nothing": chunked(b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size beyond all numbers": chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is longer than its size": chunked(b"1\r\n{}\r\n0\r\n\r\n"),
    "a name with a space": HEAD + b"X Y: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": HEAD + b"X-A: 1\r\n X-Evil: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a bare line feed in a header": HEAD + b"X-A: 1\nX-Evil: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return in a header": HEAD + b"X-A: 1\rX: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a zero byte in a header": HEAD + b"X-A: 1\0\r\nContent-Length: 2\r\n\r\n{}",
    "a space in the path": b"POST /v1/chat /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_can_be_misread_is_refused_and_the_connection_ends(
    front: Served, upstream: Upstream, case: str
) -> None:
    before = upstream.hits["echo"]
    follower = whole("smuggled")
    statuses, closed = asyncio.run(answers(front, WRONG[case] + follower))
    assert len(statuses) == 1, statuses
    assert statuses[0] in {400, 413}
    assert closed
    assert upstream.hits["echo"] == before


async def _after_good_ones(front: Served, data: bytes) -> tuple[list[int], bool]:
    """As ``answers``, on a connection that has carried requests of one head already."""
    caller = await Caller.of(front)
    try:
        for word in ("a", "bc", "hello"):
            caller.send(whole(word))
            assert said((await caller.whole())[2]) == word
        caller.send(data)
        statuses = []
        while True:
            try:
                status, _, _ = await asyncio.wait_for(caller.whole(), 2)
            except (Cut, ConnectionError):
                return statuses, True
            except TimeoutError:
                return statuses, False
            statuses.append(status)
    finally:
        caller.close()


@pytest.mark.parametrize("case", WRONG)
def test_what_can_be_misread_is_refused_after_good_requests_as_well(
    front: Served, upstream: Upstream, case: str
) -> None:
    before = upstream.hits["echo"]
    statuses, closed = asyncio.run(_after_good_ones(front, WRONG[case] + whole("smuggled")))
    assert len(statuses) == 1, statuses
    assert statuses[0] in {400, 413}
    assert closed
    assert upstream.hits["echo"] == before + 3


def test_a_body_that_is_longer_or_shorter_than_it_said_is_told_apart_after_good_ones(
    front: Served, upstream: Upstream
) -> None:
    head, _, body = whole("hello").partition(b"\r\n\r\n")
    assert head.endswith(b"%d" % len(body))
    head = head.removesuffix(b"%d" % len(body))
    before = upstream.hits["echo"]
    data = head + b"%d\r\n\r\n" % (len(body) + 1) + body
    assert asyncio.run(_after_good_ones(front, data)) == ([408], True)
    assert upstream.hits["echo"] == before + 3
    data = head + b"%d\r\n\r\n" % len(body) + body + b"and more\r\n\r\n"
    statuses, closed = asyncio.run(_after_good_ones(front, data))
    assert statuses[:1] == [200]
    assert set(statuses[1:]) <= {400}
    assert closed


def test_requests_of_one_head_are_each_answered_however_they_come(front: Served) -> None:
    """Whole, in two pieces, two in one packet, longer and shorter ones, and streams among them."""

    async def main() -> None:
        caller = await Caller.of(front)
        for word in ("a", "bb", "c" * 2000, "d"):
            caller.send(whole(word))
            assert said((await caller.whole())[2]) == word
        for cut in (10, 100, -3):
            data = whole("cut")
            caller.send(data[:cut])
            await asyncio.sleep(0.01)
            caller.send(data[cut:])
            assert said((await caller.whole())[2]) == "cut"
        caller.send(whole("slow1") + whole("second"))
        assert [said((await caller.whole())[2]) for _ in range(2)] == ["slow1", "second"]
        caller.send(whole("slow2"))
        await asyncio.sleep(0.01)
        caller.send(whole("third"))  # while the other is being answered
        assert [said((await caller.whole())[2]) for _ in range(2)] == ["slow2", "third"]
        for word in ("e", "f"):
            caller.send(request("chat", "echo", f"say {word}", stream=True))
            assert text_of("chat", (await caller.whole())[2]) == word
            caller.send(whole(word))
            assert said((await caller.whole())[2]) == word
        caller.close()

    asyncio.run(main())


def test_a_body_that_is_wrong_is_refused_behind_a_head_that_is_known(front: Served) -> None:
    """And what the fast way does not take goes the general way, on the same connection."""

    async def main() -> None:
        caller = await Caller.of(front)
        head = HEAD + b"Content-Length: %d\r\n\r\n"
        bodies = {
            b"{": 400,
            b'{"model": "echo", "messages": []}': 400,
            b'{"model": "none", "messages": [{"role": "user", "content": "say x"}]}': 404,
            body_of().replace(b'"stream"', b'"tools": [], "stream"'): 200,
        }
        for _ in range(2):
            for body, status in bodies.items():
                caller.send(head % len(body_of()) + body_of())
                assert said((await caller.whole())[2]) == "hello"
                caller.send(head % len(body) + body)
                assert (await caller.whole())[0] == status
        caller.close()

    asyncio.run(main())


def test_a_body_that_is_shorter_than_it_said_is_not_answered(
    front: Served, upstream: Upstream
) -> None:
    before = upstream.hits["echo"]
    body = body_of()
    data = HEAD + LENGTH % (len(body) + 10) + b"\r\n" + body
    statuses, _ = asyncio.run(answers(front, data))
    assert statuses == [408]
    # One who has ended its own side, too, will not send the rest.
    statuses, closed = asyncio.run(answers(front, data, half_close=True))
    assert (set(statuses) <= {400, 408, 499}, closed) == (True, True)
    assert upstream.hits["echo"] == before


def test_where_a_body_did_not_come_the_connection_ends(front: Served) -> None:
    data = HEAD + LENGTH % 100 + b"\r\n{"
    assert asyncio.run(answers(front, data)) == ([408], True)


def test_what_follows_a_body_is_the_next_request_and_has_to_be_one(
    front: Served, upstream: Upstream
) -> None:
    body = body_of()
    data = HEAD + LENGTH % len(body) + b"\r\n" + body + b"and more\r\n\r\n"
    statuses, closed = asyncio.run(answers(front, data))
    assert statuses[:1] == [200]
    assert set(statuses[1:]) <= {400}
    assert closed


@pytest.mark.parametrize(
    "headers",
    [
        b"X-A: " + b"a" * 100_000 + b"\r\n",
        b"".join(b"X-%d: %b\r\n" % (n, b"a" * 90) for n in range(1100)),
        b"X-A: " + b"a" * 200_000,  # and never an end
    ],
    ids=["one long", "many", "one without end"],
)
def test_headers_of_100_kib_are_431(front: Served, upstream: Upstream, headers: bytes) -> None:
    before = upstream.hits["echo"]
    body = body_of()
    data = HEAD + headers + LENGTH % len(body) + b"\r\n" + body
    statuses, closed = asyncio.run(answers(front, data))
    assert (statuses, closed) == ([431], True)
    assert upstream.hits["echo"] == before


def test_an_address_of_100_kib_is_refused(front: Served) -> None:
    data = b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    statuses, _ = asyncio.run(answers(front, data))
    assert statuses in ([431], [414], [400])


def test_chunks_of_next_to_nothing_do_not_get_round_the_limit_of_a_body(
    front: Served, upstream: Upstream
) -> None:
    """Each byte comes with a kilobyte of extension."""
    before = upstream.hits["echo"]

    async def main() -> None:
        caller = await Caller.of(front)
        caller.send(chunked())
        padded = chunk(b" ", b";" + b"a" * 1000)
        for _ in range(3000):
            caller.send(padded)
            await asyncio.sleep(0)
        try:
            status, _, _ = await caller.whole()
        except (Cut, ConnectionError):
            return
        finally:
            caller.leave()
        assert status in {400, 408, 413}

    asyncio.run(main())
    assert upstream.hits["echo"] == before


def test_nothing_in_a_body_becomes_a_header(front: Served, upstream: Upstream) -> None:
    async def main() -> None:
        evil = "echo\r\nX-Evil: 1"
        for model in (evil, "echo"):
            for headers in (b"", b"X-Request-Id: 1%0d%0aX-Evil: 1\r\n"):
                data = request("chat", model, f"say hello {evil}", stream=False, headers=headers)
                status, answered, _ = await ask(front, data)
                assert status == (200 if model == "echo" else 404)
                assert "x-evil" not in answered
        for asked in upstream.asked["echo"]:
            assert b"x-evil" not in asked.partition(b"\r\n\r\n")[0].lower()

    asyncio.run(main())


def test_an_old_client_gets_an_answer_it_can_read(front: Served) -> None:
    """HTTP/1.0 knows no chunks: the answer says its length, or ends with the connection."""

    async def main() -> None:
        caller = await Caller.of(front)
        caller.send(whole("hello").replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
        status, headers = await caller.head()
        assert (status, "transfer-encoding" in headers) == (200, False)
        assert said(await caller.body(headers)) == "hello"
        assert await caller.reader.read() == b""
        caller.close()

    asyncio.run(main())
