"""The answer of an HTTP/1.1 connection: what the parser puts in and the caller takes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import accumulate
from typing import Protocol

from headrace.contracts.errors import LLMBadResponseError, LLMCancelledError, LLMError
from headrace.net.deadline import Deadline

# More than this waiting to be taken, and the socket is left unread; so the peer is held up in turn.
# What is taken at once is no more than about as much: its reader makes several times its size of it,
# and hundreds of streams may have a slow reader behind them.
WAITING_LIMIT = 64 * 1024


class Source(Protocol):
    """What a reply asks of its connection."""

    peer: str
    deadline: Deadline

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def drop(self) -> None: ...


class Receiver(Protocol):
    """What a connection tells of an answer, in this order, as it comes.

    ``keeps_slot`` is set before a ``finish`` with an error where a kept connection died unanswered:
    its place in the pool is then still taken, for a second try.
    """

    status: int
    sent_at: float
    first_byte_at: float
    keeps_slot: bool

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The headers are here."""

    def feed(self, piece: bytes) -> None:
        """A piece of the body is here."""

    def finish(self, error: Exception | None = None) -> None:
        """The answer has ended: well, or by ``error``, which comes after what was received."""

    def take_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """All of the answer is here at once: this is told in place of the three others."""


class Http1Reply:
    """Meets HttpReply. It lets go of the connection with the body's last byte, read or not."""

    __slots__ = (
        "_error",
        "_idle_s",
        "_loop",
        "_paused",
        "_pieces",
        "_source",
        "_waiter",
        "_waiting",
        "connection_reused",
        "first_byte_at",
        "headers",
        "keeps_slot",
        "sends",
        "sent_at",
        "status",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Source,
        idle_s: float | None,
        *,
        connection_reused: bool,
    ) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.connection_reused = connection_reused
        # The connection died unanswered and left its place in the pool for a second try.
        self.keeps_slot = False
        self.sends = 1
        self._loop = loop
        self._source: Source | None = source
        self._idle_s = idle_s
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # The connection's side.

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The headers are here."""
        self.status = status
        self.headers = headers
        self._wake()

    def feed(self, piece: bytes) -> None:
        """A piece of the body is here."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting > WAITING_LIMIT and not self._paused and self._source is not None:
            self._paused = True
            self._source.pause()
        if self._waiter is not None:
            self._wake()

    def finish(self, error: Exception | None = None) -> None:
        """The answer has ended: well, or by ``error``, which comes after what was received."""
        self._source = None
        self._error = error
        self._wake()

    def take_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """All of the answer is here at once."""
        self.status = status
        self.headers = headers
        self._pieces.append(body)
        self._waiting = len(body)
        self._source = None
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The caller's side.

    async def wait_for_head(self) -> None:
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        pieces = self._pieces
        while not pieces:
            source = self._source
            if source is None:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            source.deadline.enter("idle_s", self._idle_s)
            await self._wait()
            if self._source is not None:
                source.deadline.rest()
        return self._take()

    def _take(self) -> bytes:
        """All that came and was not yet taken."""
        pieces = self._pieces
        if len(pieces) == 1:
            piece = pieces.pop()
        elif self._waiting <= WAITING_LIMIT:
            piece = b"".join(pieces)
            pieces.clear()
        else:
            sizes = accumulate(map(len, pieces))
            count = 1 + next(n for n, size in enumerate(sizes) if size > WAITING_LIMIT)
            piece = b"".join(pieces[:count])
            del pieces[:count]
        self._waiting -= len(piece)
        if self._paused and self._waiting <= WAITING_LIMIT:
            self._paused = False
            if self._source is not None:
                self._source.resume()
        return piece

    async def read(self, limit: int) -> bytes:
        if self._source is None and self._error is None and self._waiting <= limit:
            return self._take()  # short answers are all here by now
        stated = self.headers.get("content-length", "")
        if self._source is not None and stated.isdigit() and int(stated) > limit:
            raise await self._too_long(limit, f"{stated} bytes")
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise await self._too_long(limit, "more")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        if self._source is not None:
            source = self._source
            self.finish(LLMCancelledError(f"{source.peer}: the answer was closed before its end"))
            source.drop()
        self._pieces.clear()
        self._waiting = 0

    async def _too_long(self, limit: int, size: str) -> LLMError:
        await self.aclose()
        return LLMBadResponseError(f"the answer's body has {size}, the limit is {limit} bytes")

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks wait for one answer; it can be read by one only")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            # Cancelled: nobody will read on, so the peer is told at once by closing.
            await self.aclose()
            raise
        finally:
            self._waiter = None
