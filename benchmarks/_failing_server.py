"""A chat server that answers after a fixed time, and fails as it is told; it counts what it did.

A process of its own: ``python -m benchmarks._failing_server '{"port": 8000, ...}'``. At SIGTERM it
prints one line of JSON: how many requests met which fate, and what was answered in each half second
since the first request.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
from collections import Counter
from random import Random
from typing import Any

SLICE_S = 0.5
_END = b"\r\n\r\n"


class Fates:
    """What becomes of requests: ``shares`` always, and ``storm`` (begin, end, share) of 429."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.random = Random(told.get("seed", 0))
        self.counts: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.began: float | None = None

    def draw(self) -> str:
        now = asyncio.get_running_loop().time()
        if self.began is None:
            self.began = now
        age_s = now - self.began
        begin, end, share = self.told.get("storm", (0, 0, 0))
        at = self.random.random()
        fate = "answered"
        for name, part in {
            **({"refused": share} if begin <= age_s < end else {}),
            **self.told.get("shares", {}),
        }.items():
            at -= part
            if at < 0:
                fate = name
                break
        self.counts[fate] += 1
        if fate == "answered":
            self.answered[int(age_s / SLICE_S)] += 1
        return fate


class Connection(asyncio.Protocol):
    def __init__(self, fates: Fates) -> None:
        self._fates, self._held = fates, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(_END)
        if not end:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._held = body[length:]
        self._meet(self._fates.draw())

    def _meet(self, fate: str) -> None:
        told = self._fates.told
        if fate == "refused":
            body = b'{"error": {"message": "Too many requests."}}'
            wait_s = f"retry-after: {told.get('retry_after_s', 1)}"
            self._send(b"429 Too Many Requests", body, wait_s.encode() + b"\r\n")
        elif fate == "reset":
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif fate != "hung":
            text = '{"word": "cu' if fate == "truncated" else '{"word": "whole"}'
            message = {"role": "assistant", "content": text}
            whole = {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
            }
            body = json.dumps(whole).encode()
            loop = asyncio.get_running_loop()
            loop.call_later(told.get("took_s", 0.02), self._send, b"200 OK", body)

    def _send(self, status: bytes, body: bytes, more: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
                % (status, len(body), more, body)
            )


async def main(told: dict[str, Any]) -> None:
    fates, loop = Fates(told), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(fates), "127.0.0.1", told["port"])
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    print("ready", flush=True)
    await over.wait()
    slices = [fates.answered[i] for i in range(max(fates.answered, default=-1) + 1)]
    print(json.dumps({"fates": fates.counts, "answered": slices}), flush=True)
    server.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(json.loads(sys.argv[1])))
