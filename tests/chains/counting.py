"""A server of typed answers that follow from the prompt, after a set delay. It counts what is asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

_END_OF_HEAD = b"\r\n\r\n"


class Counting:
    """Answers ``{"kind": "even" or "odd", "note": ...}`` from another thread."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.asked: Counter[str] = Counter()
        self.url = ""
        self.open: set[asyncio.Transport] = set()
        self._reached = threading.Condition()
        self._total = 0

    @property
    def total(self) -> int:
        """How many requests there were."""
        return self._total

    def wait_for(self, total: int, until_s: float = 120.0) -> None:
        """Until there were so many requests."""
        with self._reached:
            assert self._reached.wait_for(lambda: self._total >= total, until_s), self._total

    def forget(self) -> None:
        """Count from zero."""
        with self._reached:
            self._total = 0
            self.asked.clear()

    def take(self, prompt: str) -> None:
        with self._reached:
            self._total += 1
            self.asked[prompt] += 1
            self._reached.notify_all()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Counting) -> None:
        self._server, self._got = server, bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._server.open.discard(self._transport)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(_END_OF_HEAD)
        if end < 0:
            return
        head = self._got[:end].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r", 1)[0])
        body = end + len(_END_OF_HEAD)
        if len(self._got) < body + length:
            return
        asked = json.loads(self._got[body : body + length])
        del self._got[: body + length]
        prompt = asked["messages"][-1]["content"]
        self._server.take(prompt)
        asyncio.get_running_loop().call_later(self._server.delay_s, self._answer, prompt)

    def _answer(self, prompt: str) -> None:
        if self._transport is None:
            return
        drawn = blake2b(prompt.encode(), digest_size=8).hexdigest()
        said = {"kind": "odd" if int(drawn, 16) % 2 else "even", "note": drawn}
        message = {"role": "assistant", "content": json.dumps(said)}
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50},
        }
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
        self._transport.write(head.encode() + _END_OF_HEAD + data)


@contextmanager
def counting(delay_s: float = 0.02) -> Iterator[Counting]:
    server = Counting(delay_s)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def serve() -> None:
        listening = await loop.create_server(
            lambda: _Connection(server), "127.0.0.1", 0, backlog=512
        )
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await ended.wait()
        listening.close()
        for transport in tuple(server.open):
            transport.abort()
        await asyncio.sleep(0)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
