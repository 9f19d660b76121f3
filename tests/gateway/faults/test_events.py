"""Streams that are badly written, oddly written or cut anywhere, on their way through the gateway.

What is valid arrives whole and in order; what is not ends in an error event, and without ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

import pytest

from gateway.faults.caller import FACES, streamed
from gateway.faults.upstream import END, HEAD, Upstream, chunk, opening, piece
from gateway.served import Served
from net.byte_server import Peer
from traffic.play import ENDING, event

TEXT = "ça va ☕ \U0001f600"
_CASE = re.compile(rb"case ([a-z0-9 ,]+)")

Body = Callable[[bytes], bytes]
"""From the request to the bytes of the stream's events."""


def pieces(request: bytes) -> list[bytes]:
    """The events of a good stream with TEXT in two pieces, written as they are and not escaped."""
    said = []
    for text in ("ça ", "va ☕ \U0001f600"):
        plain, escaped = (json.dumps(text, ensure_ascii=ascii_only) for ascii_only in (False, True))
        said.append(piece(request, text).replace(escaped.encode(), plain.encode()))
    ending = (piece(request, "", "stop"), *ENDING[1:])
    return [each for each in (opening(request), *said, *ending) if each]


def whole(request: bytes) -> bytes:
    return b"".join(pieces(request))


def between(what: bytes) -> Body:
    """The good stream with ``what`` before each event and at the end."""
    return lambda request: what + what.join(pieces(request)) + what


def first_then(*rest: bytes) -> Body:
    """One good piece, and then what is no event."""
    return lambda request: opening(request) + piece(request, "once") + b"".join(rest)


VALID: dict[str, Body] = {
    "as usual": whole,
    "carriage return and line feed": lambda request: whole(request).replace(b"\n", b"\r\n"),
    "carriage returns": lambda request: whole(request).replace(b"\n", b"\r"),
    "mixed line ends": lambda request: whole(request).replace(b"\n\n", b"\r\n\n"),
    "a byte order mark": lambda request: b"\xef\xbb\xbf" + whole(request),
    "comments": between(b": keep-alive\n\n:\n"),
    "no space after the colon": lambda request: whole(request).replace(b"data: ", b"data:"),
    "other fields": between(b"id: 7\nretry: 10\nevent: message\n"),
    "fields that nobody knows": between(b"colour: red\nnothing\n"),
    "empty events": between(b"\n\nevent: message\n\n"),
    "many lines of data": lambda request: whole(request).replace(b', "', b',\ndata: "'),
    "no final blank line": lambda request: whole(request)[:-1],
    "no final line end": lambda request: whole(request)[:-2],
}
INVALID: dict[str, Body] = {
    "broken json": first_then(b'data: {"choices": [{\n\n'),
    "json that is cut": first_then(b'data: {"choices": ['),
    "a number": first_then(b"data: 5\n\n"),
    "a list": first_then(b"data: []\n\n"),
    "no json": first_then(b"data: <html>502 Bad Gateway</html>\n\n"),
    "invalid text": first_then(
        b'data: {"id": "r", "choices": [{"index": 0, "delta": {"content": "\xff\xfe"}, '
        b'"text": "\xff\xfe"}]}\n\n'
    ),
    "an error": first_then(event(error={"message": "out of memory", "code": 500})),
    "nothing more": first_then(b""),
    "no end": first_then(b": the connection is closed now\n"),
}


def case_of(request: bytes) -> str:
    found = _CASE.search(request)
    assert found, request
    return found[1].decode()


async def written(peer: Peer, request: bytes) -> None:
    """The case that the caller names, in one go."""
    case = case_of(request)
    peer.send(HEAD + chunk({**VALID, **INVALID}[case](request)) + END)


async def byte_by_byte(peer: Peer, request: bytes) -> None:
    body = whole(request).replace(b"\n", b"\r\n")
    peer.send(HEAD)
    for place in range(len(body)):
        peer.send(chunk(body[place : place + 1]))
        await asyncio.sleep(0)
    peer.send(END)


async def cut_at(peer: Peer, request: bytes) -> None:
    """The good stream in two parts; the caller names the place."""
    body = chunk(whole(request).replace(b"\n", b"\r\n")) + END
    at = int(case_of(request)) % len(body)
    peer.send(HEAD + body[:at])
    await asyncio.sleep(0.001)
    peer.send(body[at:])


async def ends_at(peer: Peer, request: bytes) -> None:
    """The good stream up to a place that the caller names, where the connection ends."""
    body = chunk(whole(request)) + END
    peer.send(HEAD + body[: int(case_of(request))])
    await asyncio.sleep(0.002)
    peer.close()


PLAYS = {
    "written": written,
    "byte_by_byte": byte_by_byte,
    "cut_at": cut_at,
    "ends_at": ends_at,
}
BACKENDS = {name: {"breaker_failures": 0} for name in PLAYS}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("case", VALID)
def test_what_is_valid_arrives_whole(front: Served, face: str, case: str) -> None:
    assert asyncio.run(streamed(front, face, "written", f"case {case}")) == (TEXT, "whole")


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("case", INVALID)
def test_what_is_not_valid_is_an_error_after_what_was(front: Served, face: str, case: str) -> None:
    assert asyncio.run(streamed(front, face, "written", f"case {case}")) == ("once", "error")


@pytest.mark.parametrize("face", FACES)
def test_single_bytes_are_put_together(front: Served, face: str) -> None:
    assert asyncio.run(streamed(front, face, "byte_by_byte")) == (TEXT, "whole")


@pytest.mark.parametrize(("face", "step"), [("chat", 1), ("completions", 1), ("messages", 9)])
def test_a_stream_in_two_parts_is_one_wherever_it_was_parted(
    front: Served, face: str, step: int
) -> None:
    async def main() -> None:
        for at in range(1, 1000, step):
            heard = await streamed(front, face, "cut_at", f"case {at}")
            assert (at, *heard) == (at, TEXT, "whole")

    asyncio.run(main())


def test_a_stream_that_ends_anywhere_before_its_end_is_never_taken_for_a_whole_one(
    front: Served, upstream: Upstream
) -> None:
    async def main() -> None:
        request = b"POST /x/v1/chat/completions HTTP/1.1\r\n"
        body = chunk(whole(request)) + END
        # From there on the model has said why it ended, and there is nothing left to say.
        said_why = body.index(b'"finish_reason": "stop"')
        for at in range(1, len(body), 3):
            text, how = await streamed(front, "chat", "ends_at", f"case {at}")
            assert TEXT.startswith(text), at
            if at < said_why:
                assert how in {"error", "502", "503", "cut"}, (at, how)
            if how == "whole":
                assert text == TEXT, at

    asyncio.run(main())
