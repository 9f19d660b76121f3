"""A transport that answers from a script, for tests: ours, and those of programs that use us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Literal, TypeAlias

from attrs import frozen

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMError,
    LLMUnavailableError,
)
from headrace.net.clock import Clock
from headrace.net.deadline import limit_error
from headrace.net.manual_clock import ManualClock
from headrace.net.transport import Headers, HttpRequest, TimeLimits

__all__ = ["Fault", "ManualClock", "Piece", "ScriptedAnswer", "ScriptedReply", "ScriptedTransport"]

# ``refuse``: no connection; ``reset``: the connection breaks after the pieces, before the headers
# where there is neither piece nor status; ``cut``: the body ends early; ``hang``: nothing more
# comes, before the headers where there are no pieces.
Fault: TypeAlias = Literal["refuse", "reset", "cut", "hang"]


@frozen(kw_only=True)
class Piece:
    """A piece of an answer's body, ``after_s`` seconds after the one before it."""

    data: bytes
    after_s: float = 0.0


@frozen(kw_only=True)
class ScriptedAnswer:
    """One answer: headers ``after_s`` seconds after sending, then the pieces, then the fault.

    A fault without any piece strikes before the headers, so that ``send`` raises it; ``cut``
    always comes after them.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | tuple[bytes | Piece, ...] = ()
    after_s: float = 0.0
    fault: Fault | None = None
    connection_reused: bool = False

    @property
    def pieces(self) -> tuple[Piece, ...]:
        body = (self.body,) if isinstance(self.body, bytes) else self.body
        return tuple(Piece(data=p) if isinstance(p, bytes) else p for p in body)


@frozen(kw_only=True)
class _Limited:
    """Waits on a clock that end in LLMTimeoutError where a limit comes before."""

    clock: Clock
    peer: str
    limits: TimeLimits
    total_at: float | None

    async def wait(self, phase: str, limit_s: float | None, seconds: float | None) -> None:
        """Wait so many seconds; ``None`` is for ever."""
        total = False
        if self.total_at is not None:
            left = self.total_at - self.clock.monotonic()
            if limit_s is None or left < limit_s:
                total, limit_s = True, max(0.0, left)
        if limit_s is not None and (seconds is None or seconds > limit_s):
            await self.clock.sleep(limit_s)
            shown = (self.limits.total_s or 0.0) if total else limit_s
            raise limit_error(self.peer, phase, shown, total=total)
        if seconds is None:
            await asyncio.get_running_loop().create_future()
        elif seconds > 0:
            await self.clock.sleep(seconds)


class ScriptedReply:
    """Meets HttpReply. ``closed_early`` tells that the caller closed or was cancelled before the end."""

    def __init__(self, answer: ScriptedAnswer, limited: _Limited, sent_at: float) -> None:
        headers: dict[str, str] = {}
        for name, value in answer.headers:
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        self.status = answer.status
        self.headers: Mapping[str, str] = headers
        self.sent_at = sent_at
        self.first_byte_at = limited.clock.monotonic()
        self.connection_reused = answer.connection_reused
        self.sends = 1
        self.closed_early = False
        self.ended = False
        self._limited = limited
        self._fault = answer.fault
        self._left = list(reversed(answer.pieces))
        self._error: LLMError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._error is not None:
            raise self._error
        if self.ended:
            raise StopAsyncIteration
        try:
            return await self._next()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except LLMError as error:
            self._error = error
            self.ended = True
            raise

    async def _next(self) -> bytes:
        idle_s = self._limited.limits.idle_s
        while self._left:
            piece = self._left.pop()
            await self._limited.wait("idle_s", idle_s, piece.after_s)
            if piece.data:
                return piece.data
        if self._fault == "hang":
            await self._limited.wait("idle_s", idle_s, None)
        if self._fault == "reset":
            raise LLMUnavailableError(f"{self._limited.peer} broke the connection (scripted)")
        if self._fault == "cut":
            raise LLMBadResponseError(
                f"{self._limited.peer} closed the connection inside the answer's body (scripted)",
                transient=True,
            )
        self.ended = True
        raise StopAsyncIteration

    async def read(self, limit: int) -> bytes:
        body = b""
        async for piece in self:
            body += piece
            if len(body) > limit:
                await self.aclose()
                raise LLMBadResponseError(f"the answer's body has more, the limit is {limit} bytes")
        return body

    async def aclose(self) -> None:
        if not self.ended:
            self.ended = self.closed_early = True
            self._error = LLMCancelledError("the answer was closed before its end")


Script: TypeAlias = Iterable[ScriptedAnswer] | Callable[[HttpRequest], ScriptedAnswer]


class ScriptedTransport:
    """Meets Transport: the n-th request gets the n-th answer, or what a function of it returns.

    ``requests`` and ``replies`` keep what was sent and handed out; ``closed`` tells that ``aclose``
    was called. Time limits hold, on the clock handed in (by default a ManualClock that moves by
    itself), except those of queue and connecting.
    """

    def __init__(self, script: Script, clock: Clock | None = None) -> None:
        self.clock: Clock = ManualClock(auto=True) if clock is None else clock
        self.requests: list[HttpRequest] = []
        self.replies: list[ScriptedReply] = []
        self.closed = False
        self._answer = script if callable(script) else None
        self._answers = iter(()) if callable(script) else iter(script)

    async def send(self, request: HttpRequest, limits: TimeLimits) -> ScriptedReply:
        peer = request.url.origin
        if self.closed:
            raise LLMUnavailableError(f"{peer}: our transport is closed")
        self.requests.append(request)
        answer = self._answer(request) if self._answer else next(self._answers, None)
        if answer is None:
            raise AssertionError(
                f"the script has no answer to request {len(self.requests)}:"
                f" {request.method} {request.url!r}"
            )
        if answer.fault == "refuse":
            raise LLMUnavailableError(f"cannot connect to {peer}: refused (scripted)")
        sent_at = self.clock.monotonic()
        total_at = None if limits.total_s is None else sent_at + limits.total_s
        limited = _Limited(clock=self.clock, peer=peer, limits=limits, total_at=total_at)
        silent = not answer.pieces and answer.fault == "hang"
        await limited.wait("first_byte_s", limits.first_byte_s, None if silent else answer.after_s)
        if not answer.pieces and answer.fault == "reset":
            raise LLMUnavailableError(f"{peer} broke the connection without an answer (scripted)")
        reply = ScriptedReply(answer, limited, sent_at)
        self.replies.append(reply)
        return reply

    async def aclose(self) -> None:
        self.closed = True
        for reply in self.replies:
            await reply.aclose()
