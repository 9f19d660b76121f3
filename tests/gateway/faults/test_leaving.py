"""Callers who leave, in every state of their call: the upstream is let go of at once."""

from __future__ import annotations

import asyncio
import re
import statistics
import time

import pytest

from gateway.faults.caller import FACES, Caller, request
from gateway.faults.conftest import FULL
from gateway.faults.upstream import HEAD, Upstream, chunk, opening, piece
from gateway.served import Served, until
from net.byte_server import Peer

# In three states at four faces: five hundred in all, each of them in time.
LEAVERS = 42 if FULL else 12
_MARK = re.compile(rb"leaver [0-9]+ [a-z]+ [a-z]+")
came: dict[bytes, Peer] = {}
"""The connection on which each caller's request has come."""
gone: dict[bytes, float] = {}
"""When it was closed."""


async def noted(peer: Peer, request: bytes) -> bytes:
    found = _MARK.search(request)
    assert found, request
    came[found[0]] = peer
    return found[0]


async def silent(peer: Peer, request: bytes) -> None:
    mark = await noted(peer, request)
    await peer.gone.wait()
    gone[mark] = time.monotonic()


async def talking(peer: Peer, request: bytes) -> None:
    mark = await noted(peer, request)
    peer.send(HEAD + chunk(opening(request) + piece(request, "once")))
    while not peer.gone.is_set():
        peer.send(chunk(piece(request, " more")))
        await asyncio.sleep(0.005)
    gone[mark] = time.monotonic()


PLAYS = {"silent": silent, "talking": talking, "narrow": silent}
BACKENDS = {"narrow": {"max_concurrent_requests": 1}}


@pytest.fixture(autouse=True)
def nobody() -> None:
    came.clear()
    gone.clear()


async def within(what, patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.001)


async def departures(
    front: Served, upstream: Upstream, face: str, model: str, *, stream: bool, word: bytes = b""
) -> list[float]:
    """How long after each caller left the upstream saw its own connection closed."""
    took = []
    for number in range(LEAVERS):
        mark = f"leaver {number} {face} {model}"
        caller = await Caller.of(front)
        caller.send(request(face, model, mark, stream=stream))
        await within(lambda mark=mark: mark.encode() in came)
        if word:
            await caller.head()
            await caller.until(word)
        left = caller.leave()
        await within(lambda mark=mark: mark.encode() in gone)
        took.append(gone[mark.encode()] - left)
    return took


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("state", "model", "stream", "word"),
    [
        ("before the first byte", "silent", True, b""),
        ("streaming", "talking", True, b"once"),
        ("not streaming", "talking", False, b""),
    ],
)
def test_the_upstream_is_let_go_of_when_the_caller_leaves(
    front: Served,
    upstream: Upstream,
    face: str,
    state: str,
    model: str,
    stream: bool,
    word: bytes,
) -> None:
    took = asyncio.run(departures(front, upstream, face, model, stream=stream, word=word))
    assert statistics.median(took) < 0.05, took
    assert max(took) < (0.05 if FULL else 1), took
    until(front.quiet)


@pytest.mark.parametrize("face", FACES)
def test_who_leaves_the_queue_is_never_asked_for(
    front: Served, upstream: Upstream, face: str
) -> None:
    async def main() -> None:
        first = await Caller.of(front)
        first.send(request(face, "narrow", f"leaver 0 {face} first"))
        await within(lambda: len(came) == 1)
        waiting = [await Caller.of(front) for _ in range(LEAVERS)]
        for number, caller in enumerate(waiting):
            caller.send(request(face, "narrow", f"leaver {number} {face} waiting"))
        await asyncio.to_thread(until, lambda: front.metric("vllm:num_requests_waiting") == LEAVERS)
        for caller in waiting:
            caller.leave()
        await asyncio.to_thread(until, lambda: front.metric("vllm:num_requests_waiting") == 0)
        first.leave()
        await within(lambda: len(gone) == 1)
        # Whoever comes now goes straight in: no place went to one who had left.
        last = await Caller.of(front)
        last.send(request(face, "narrow", f"leaver 0 {face} last"))
        await within(lambda: len(came) == 2)
        last.leave()
        await within(lambda: len(gone) == 2)

    asyncio.run(main())
