"""Keys stay where they belong: the caller's here, the backend's there, and neither in any text."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from gateway.faults.caller import FACES, Caller, request
from gateway.faults.upstream import END, HEAD, Upstream, answer, chunk, opening, piece, refused
from gateway.served import Served
from net.byte_server import Peer
from traffic.play import event

OURS = "sk-caller-5d1f0a7be2"
THEIRS = "sk-upstream-93c1e8a44d"
_AUTHORIZATION = re.compile(rb"authorization: ([^\r]+)", re.IGNORECASE)
CALLER = (
    b"Authorization: Bearer %b\r\nX-Api-Key: %b\r\nCookie: session=%b\r\n"
    b"Proxy-Authorization: Basic %b\r\nX-Custom: %b\r\nOpenAI-Organization: %b\r\n"
    % ((OURS.encode(),) * 6)
)


def told(request: bytes) -> str:
    """What a careless backend writes into its errors."""
    found = _AUTHORIZATION.search(request)
    return f"no good: {found[1].decode() if found else 'nothing'}"


async def good(peer: Peer, request: bytes) -> None:
    peer.send(answer(request, "fine"))


def refusing(status: int):
    async def play(peer: Peer, request: bytes) -> None:
        peer.send(refused(status, message=told(request)))

    return play


async def breaking(peer: Peer, request: bytes) -> None:
    error = event(error={"message": told(request), "code": 500})
    peer.send(HEAD + chunk(opening(request) + piece(request, "once") + error) + END)


async def broken(peer: Peer, request: bytes) -> None:
    """Its key, where an event should be."""
    words = f"data: {told(request)}\n\n".encode()
    peer.send(HEAD + chunk(opening(request) + piece(request, "once") + words) + END)


async def no_http(peer: Peer, request: bytes) -> None:
    peer.send(told(request).encode() + b"\r\n\r\n")
    peer.close()


PLAYS = {
    "fine": good,
    **{f"refusing-{status}": refusing(status) for status in (400, 401, 403, 404, 429, 500, 503)},
    "breaking": breaking,
    "broken": broken,
    "no_http": no_http,
}
BACKENDS = {name: {"api_key": THEIRS, "breaker_failures": 0} for name in PLAYS if name != "good"}
SERVER = {"api_keys": [OURS]}


async def everything(front: Served, data: bytes) -> bytes:
    """All the bytes that come back, headers too."""
    caller = await Caller.of(front)
    try:
        caller.send(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return await asyncio.wait_for(caller.reader.read(), 30)
    finally:
        caller.close()


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_backend_is_shown_its_own_key_and_nothing_of_the_callers(
    front: Served, upstream: Upstream, face: str, stream: bool
) -> None:
    data = request(face, "fine", stream=stream, headers=CALLER)
    assert b" 200 " in asyncio.run(everything(front, data))
    asked = upstream.asked["fine"][-1]
    assert f"bearer {THEIRS}".encode() in asked.lower()
    assert OURS.encode() not in asked
    names = {line.partition(b":")[0].lower() for line in asked.split(b"\r\n")[1:]}
    assert not names & {b"cookie", b"x-api-key", b"proxy-authorization", b"x-custom"}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_backends_key_is_in_no_answer(front: Served, face: str, stream: bool) -> None:
    async def main() -> None:
        for model in PLAYS:
            data = request(face, model, stream=stream, headers=CALLER)
            answered = await everything(front, data)
            assert answered, model
            assert THEIRS.encode() not in answered, model
            assert OURS.encode() not in answered, model

    asyncio.run(main())


def test_no_key_is_in_what_the_gateway_tells_of_itself(front: Served) -> None:
    front.show_key(OURS)
    authorization = {"authorization": f"Bearer {OURS}"}
    for path in ("/snapshot", "/metrics", "/v1/models", "/openapi.json", "/ready"):
        body = front.get(path, **authorization).body.decode()
        assert OURS not in body
        assert THEIRS not in body
    assert json.loads(front.get("/v1/models", **authorization).body)["data"]


def test_no_key_is_in_the_log(front: Served) -> None:
    """After all of the above."""

    async def main() -> None:
        for face in FACES:
            for model in PLAYS:
                await everything(front, request(face, model, headers=CALLER))

    asyncio.run(main())
    assert OURS not in front.log
    assert THEIRS not in front.log
    assert "session=" not in front.log
