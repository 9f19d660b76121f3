"""Callers on connections made ahead: prebuilt bytes out, answers scanned, each one checked.

An answer that is not a 200, lacks text or ends too early ends the measurement: a failure that is
counted as an answer makes a gateway look fast.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from attrs import frozen

from ._gateway_mock import WORD

BODY_BYTES = 330
PATIENCE_S = 120.0


@frozen(kw_only=True)
class Ask:
    """A chat request, and what its answer must hold."""

    model: str = "m"
    tokens: int = 16
    stream: bool = False
    think_ms: int = 0
    pause_ms: int = 0

    def bytes(self, key: str) -> bytes:
        body: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": ""}],
            "max_tokens": self.tokens,
            "seed": self.think_ms * 1000 + self.pause_ms,
            "stream": self.stream,
        }
        missing = BODY_BYTES - len(json.dumps(body))
        body["messages"] = [{"role": "user", "content": "Say something. ".ljust(missing, "x")}]
        text = json.dumps(body).encode()
        assert len(text) == BODY_BYTES
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n"
            b"user-agent: benchmark\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (key.encode(), len(text), text)
        )

    def wrong(self, content: bytes) -> str | None:
        """What is wrong with a whole answer's body, if anything is."""
        if self.stream and not content.rstrip().endswith(b"data: [DONE]"):
            return f"a stream without its end: ...{content[-300:]!r}"
        if content.count(WORD) != self.tokens:
            return f"{content.count(WORD)} words, not {self.tokens}: {content[:2000]!r}"
        return None


class Asking(Protocol):
    """A request that a crowd can be told to send, and how its answers are checked."""

    def bytes(self, key: str) -> bytes: ...

    def wrong(self, content: bytes) -> str | None: ...


class WrongAnswerError(Exception):
    """What came is not the answer that was asked for."""


def _unchunked(body: bytes) -> bytes:
    """The content of a chunked body that is all there."""
    pieces, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";", 1)[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class _Caller(asyncio.Protocol):
    """One connection; a request at a time."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.busy = False
        self.sent = self.first = 0.0
        self.parts: list[bytes] = []
        self.needed = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.crowd.leaving:
            self.crowd.fail(f"the connection was closed on us: {exc or 'in good order'}")

    def ask(self, request: bytes, sent: float | None = None) -> None:
        self.busy, self.first = True, 0.0
        self.sent = sent or perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self.first and data.find(WORD) >= 0:
            self.first = perf_counter()
        parts = self.parts
        if parts:
            parts.append(data)
            # A terminating chunk that two reads share is seen in the last two together.
            tail = data if len(data) >= 7 else parts[-2][-7:] + data
        else:
            end = data.find(b"\r\n\r\n")
            if end < 0 or not data.startswith(b"HTTP/1.1 200 "):
                self.crowd.fail(f"not a 200: {data[:300]!r}")
                return
            head = data[:end].lower()
            at = head.find(b"content-length:")
            if at >= 0:
                stop = head.find(b"\r\n", at)
                self.needed = end + 4 + int(head[at + 15 : stop if stop >= 0 else end])
            else:
                self.needed = 0
            parts.append(data)
            tail = data
        if self.needed:
            if sum(map(len, parts)) < self.needed:
                return
        elif not tail.endswith(b"\r\n0\r\n\r\n"):
            return
        answer = data if len(parts) == 1 else b"".join(parts)
        self.parts = []
        self.busy = False
        self.crowd.answered(self, answer, chunked=not self.needed)


class Crowd:
    """So many callers of one address; ``async with`` makes their connections and ends them."""

    def __init__(self, port: int, callers: int, key: str) -> None:
        self.port, self.count, self.key = port, callers, key
        self.callers: list[_Caller] = []
        self.leaving = False
        self.ask: Asking = Ask()
        self.then: Callable[[_Caller], None] = lambda caller: None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Crowd:
        loop = asyncio.get_running_loop()
        for _ in range(self.count):
            _, caller = await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self.port)
            self.callers.append(caller)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.leaving = True
        for caller in self.callers:
            caller.transport.abort()
        await asyncio.sleep(0)
        # Whoever did not wait for the answers is told here if one was wrong.
        if self.over.done() and (wrong := self.over.exception()) and raised[:1] in ((), (None,)):
            raise wrong

    def fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(WrongAnswerError(why))

    def answered(self, caller: _Caller, answer: bytes, *, chunked: bool) -> None:
        at = answer.index(b"\r\n\r\n") + 4
        complaint = self.ask.wrong(_unchunked(answer[at:]) if chunked else answer[at:])
        if complaint is not None:
            self.fail(complaint)
            return
        self.then(caller)

    async def _until_over(self) -> None:
        async with asyncio.timeout(PATIENCE_S * 10):
            await self.over
        self.over = asyncio.get_running_loop().create_future()

    def send(self, ask: Asking) -> None:
        """All ask once, and nobody waits for the answers."""
        request = ask.bytes(self.key)
        self.ask = ask
        for caller in self.callers:
            caller.ask(request)

    def answering(self) -> int:
        """How many have seen text since they asked."""
        return sum(bool(caller.first) for caller in self.callers)

    async def again_and_again(
        self, ask: Asking, *, seconds: float = float("inf"), total: float = float("inf")
    ) -> tuple[int, float]:
        """Every caller asks as soon as it is answered; the number of answers, and the seconds."""
        request = ask.bytes(self.key)
        self.ask = ask
        begin = perf_counter()
        end = begin + seconds
        asked = answered = 0

        def then(caller: _Caller) -> None:
            nonlocal asked, answered
            answered += 1
            if asked < total and perf_counter() < end:
                asked += 1
                caller.ask(request)
            elif answered == asked and not self.over.done():
                self.over.set_result(None)

        self.then = then
        for caller in self.callers[: int(min(total, self.count))]:
            asked += 1
            caller.ask(request)
        await self._until_over()
        return answered, perf_counter() - begin

    async def at_once(self, ask: Asking) -> list[float]:
        """Each caller asks once, all in one go; seconds from each one's sending to its first text."""
        request = ask.bytes(self.key)
        self.ask = ask
        firsts: list[float] = []

        def then(caller: _Caller) -> None:
            firsts.append(caller.first - caller.sent)
            if len(firsts) == self.count and not self.over.done():
                self.over.set_result(None)

        self.then = then
        for caller in self.callers:
            caller.ask(request)
        await self._until_over()
        return firsts

    async def paced(self, ask: Asking, *, rate: float, seconds: float) -> list[float]:
        """Requests at a fixed rate, whoever is free asks; seconds to the end of each answer.

        One for which nobody is free waits, and its wait is counted.
        """
        request = ask.bytes(self.key)
        self.ask = ask
        loop = asyncio.get_running_loop()
        free, waiting = deque(self.callers), deque[float]()
        total = int(rate * seconds)
        took: list[float] = []

        def then(caller: _Caller) -> None:
            took.append(perf_counter() - caller.sent)
            if waiting:
                caller.ask(request, waiting.popleft())
            else:
                free.append(caller)
            if len(took) == total and not self.over.done():
                self.over.set_result(None)

        def due() -> None:
            if free:
                free.popleft().ask(request)
            else:
                waiting.append(perf_counter())

        self.then = then
        begin = loop.time()
        for number in range(total):
            loop.call_at(begin + number / rate, due)
        await self._until_over()
        return took


async def first_answer(port: int, key: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until a whole answer comes; a gateway that starts refuses connections or requests."""
    end = perf_counter() + PATIENCE_S
    while True:
        try:
            async with Crowd(port, 1, key) as crowd:
                await crowd.again_and_again(Ask(), total=1)
                return
        except (OSError, WrongAnswerError) as not_yet:
            if process.poll() is not None or perf_counter() > end:
                sys.exit(f"it did not start: {not_yet}\n{log.read_text()[-3000:]}")
            await asyncio.sleep(0.01)
