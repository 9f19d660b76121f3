"""A mock whose clock and alarm are moved by the test, spoken to over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.bench.mock.server import Mock, listen_on
from headrace.bench.mock.settings import MockSettings

from .asking import request


class Hand:
    """The mock's clock, and its alarm; ``set_for`` are the instants it was to wake at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.set_for: list[float] = []
        self._act: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def clock(self) -> float:
        return self.now

    def alarm(self, act: Callable[[], None]) -> Hand:
        self._act = act
        return self

    def set(self, instant: float | None) -> None:
        if instant is not None:
            self.set_for.append(instant)
        self._changed.set()

    def close(self) -> None:
        self._act = lambda: None

    async def until_set(self) -> None:
        await asyncio.wait_for(self._changed.wait(), 20)
        self._changed.clear()

    def wake(self, late_s: float = 0.0) -> None:
        """Time goes on to ``late_s`` after what is due next."""
        self.now = max(self.now, self.set_for[-1] + late_s)
        self._act()


class Caller:
    """A streamed chat that was asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        """The whole answer."""
        got = await asyncio.wait_for(self._reader.read(), 20)
        self.leave()
        await self._writer.wait_closed()
        return got

    def leave(self) -> None:
        self._writer.close()


async def ask(port: int, *, stream: bool = True, **headers: str) -> Caller:
    """A chat, asked for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    writer.write(request(body=body, connection="close", **headers))
    await writer.drain()
    return Caller(reader, writer)


def play(act: Callable[[Mock, Hand, int], Awaitable[None]], **settings: object) -> None:
    """Run ``act`` with a mock, its hand, and the port it listens on."""

    async def run() -> None:
        hand = Hand()
        mock = Mock(MockSettings(**settings), alarm=hand.alarm, clock=hand.clock)  # type: ignore[arg-type]
        listener = listen_on("127.0.0.1", 0)
        await mock.listen(listener)
        try:
            await act(mock, hand, listener.getsockname()[1])
        finally:
            await mock.close()

    asyncio.run(run())
