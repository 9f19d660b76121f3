"""Two backends for one request, over real connections: the one that lost is let go of at once."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.faults.caller import FACES, Caller, request
from gateway.faults.test_leaving import within
from gateway.faults.upstream import HEAD, chunk, good, opening
from gateway.served import Served

came: set[tuple[str, bytes]] = set()
gone: set[tuple[str, bytes]] = set()
_MARK = re.compile(rb"hedged [a-z]+ [a-z]+ (True|False)")


def noted(name, before=lambda _: b""):
    """A backend that begins like this, and then says nothing more until its connection is closed."""

    async def play(peer, request):
        mark = _MARK.search(request)[0]
        came.add((name, mark))
        peer.send(before(request))
        await peer.gone.wait()
        gone.add((name, mark))

    return play


PLAYS = {
    "silent": noted("silent"),
    "opened": noted("opened", lambda asked: HEAD + chunk(opening(asked) or b": one moment\n\n")),
    "other": noted("other"),
    "good": good,
}


def route(name, *backends):
    ways = [{"backend": each} for each in backends]
    return {"name": name, "backends": ways, "hedge": {"after_ms": 20, "max_extra": 1}}


ROUTES = [
    route("quiet", "silent", "good"),
    route("empty", "opened", "good"),
    route("both", "silent", "other"),
]


@pytest.fixture(autouse=True)
def nobody() -> None:
    came.clear()
    gone.clear()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("model", "late"), [("quiet", "silent"), ("empty", "opened")])
def test_the_second_one_answers_and_the_late_one_is_closed(
    front: Served, face: str, model: str, late: str, stream: bool
) -> None:
    async def main() -> None:
        mark = f"hedged {face} {model} {stream}"
        caller = await Caller.of(front)
        caller.send(request(face, model, mark, stream=stream))
        status, headers = await caller.head()
        assert (status, headers["x-headrace-hedge"]) == (200, "won")
        await within(lambda: (late, mark.encode()) in gone)
        assert b"fi" in await caller.body(headers)
        caller.leave()

    asyncio.run(main())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("face", FACES)
def test_a_caller_who_leaves_lets_go_of_both(front: Served, face: str, stream: bool) -> None:
    async def main() -> None:
        mark = f"hedged {face} both {stream}"
        caller = await Caller.of(front)
        caller.send(request(face, "both", mark, stream=stream))
        both = {("silent", mark.encode()), ("other", mark.encode())}
        await within(lambda: both <= came)
        caller.leave()
        await within(lambda: both <= gone)

    asyncio.run(main())
