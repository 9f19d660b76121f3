"""What a sender tells that comes to its answers late, against the server's own notes."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from headrace.bench.load.line import Place
from headrace.bench.load.scan import Answer
from headrace.bench.load.sender import Call, Sender
from headrace.contracts.load import Asked

from .scripted import BEGIN, DONE, END, Caller, chunk, event, serving

ANSWERS, PIECES, STEP_S, BLOCKED_S = 12, 6, 0.01, 0.025
NEAR_S = 0.001


class Noting:
    """Sends pieces a step apart, each a write of its own, and notes when each write began and ended."""

    def __init__(self) -> None:
        self.notes: list[list[tuple[float, float]]] = []

    def __call__(self, caller: Caller) -> None:
        caller.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while caller.request() is not None:
            asked = time.monotonic()
            noted: list[tuple[float, float]] = []
            self.notes.append(noted)
            for number in range(PIECES):
                data = chunk(event(f"word {number}"))
                data = BEGIN + data if number == 0 else data
                if number == PIECES - 1:
                    data += chunk(DONE) + END
                time.sleep(max(0.0, asked + STEP_S * (2 + number) - time.monotonic()))
                before = time.monotonic()
                caller.send(data)
                noted.append((before, time.monotonic()))


async def _ask(port: int, *, kernel_times: bool) -> list[Answer]:
    """The answers of one line, whose loop stands still all the time."""
    loop = asyncio.get_running_loop()
    place = Place(
        socket.AF_INET, ("127.0.0.1", port), "here", "here", None, kernel_times=kernel_times
    )
    sender = Sender(loop, place, "chat", at_most=1, timeout_s=30.0, finished=lambda call: None)
    body = b'{"stream":true}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    answers: list[Answer] = []
    for number in range(ANSWERS):
        answer = Answer("chat")
        answers.append(answer)
        call = Call(
            number,
            Asked(),
            request,
            answer,
            phase="measured",
            intended=None,
            queued=time.monotonic(),
            then=lambda call: None,
        )
        sender.ask(call)
        while not call.ended:
            time.sleep(BLOCKED_S)
            await asyncio.sleep(0.0005)
    sender.close()
    return answers


def told(*, kernel_times: bool) -> list[tuple[Answer, list[tuple[float, float]]]]:
    noting = Noting()
    with serving(noting) as server:
        port = int(server.url.rpartition(":")[2])
        answers = asyncio.run(_ask(port, kernel_times=kernel_times))
    assert [answer.failure for answer in answers] == [None] * ANSWERS
    assert [len(answer.pieces) for answer in answers] == [PIECES] * ANSWERS
    return list(zip(answers, noting.notes, strict=True))


def right(at: float, note: tuple[float, float]) -> bool:
    return note[0] - NEAR_S <= at <= note[1] + NEAR_S


def test_by_the_kernels_times_a_piece_has_its_own_instant_or_that_of_who_waited_with_it():
    if sys.platform != "linux":
        pytest.skip("the kernel's words are Linux's")
    for answer, notes in told(kernel_times=True):
        shared = 0
        for number, at in enumerate(answer.pieces):
            whose = next(i for i in range(number, PIECES) if right(at, notes[i]))
            assert answer.pieces[number : whose + 1] == [at] * (whose + 1 - number)
            shared += number > 0 and answer.pieces[number - 1] == at
        assert answer.coalesced == shared


def test_a_late_reader_knows_more_by_the_kernels_times_than_by_its_own():
    if sys.platform != "linux":
        pytest.skip("the kernel's words are Linux's")

    def known(*, kernel_times: bool) -> int:
        return sum(
            right(at, note)
            for answer, notes in told(kernel_times=kernel_times)
            for at, note in zip(answer.pieces, notes, strict=True)
        )

    kernel, read = known(kernel_times=True), known(kernel_times=False)
    print(kernel, read)
    assert kernel > 2 * read
