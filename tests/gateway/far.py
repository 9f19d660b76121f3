"""A quick provider in a thread of its own, that says in each answer how it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

NO_MODEL = {"engine": {"enabled": False}, "embeddings": {"enabled": False}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
PATIENCE_S = 60.0
LIST = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()


class Far:
    """Answers ``<name> <model> <key>``; a stream says it word by word.

    While ``held`` it holds back the end of every stream but those of the model ``free`` (a gateway
    asks for one where its caller does not). ``open`` is how many it answers now, and
    ``left`` how many callers of a stream went away before its end. At ``/metrics`` it shows
    ``metrics``; nothing there, and it does not answer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = self.open = self.left = 0
        self.url = ""
        self.metrics = b""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._free: asyncio.Event

    @property
    def held(self) -> bool:
        return not self._free.is_set()

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self._free.clear)

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._free.set)

    def backend(self, **settings: object) -> dict[str, object]:
        """What a configuration says of it."""
        return {
            "name": self.name,
            "base_url": f"{self.url}/v1",
            "models": ["m", "free"],
            "max_retries": 0,
            "breaker_failures": 0,
            **settings,
        }

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._free = asyncio.Event()
        self._free.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                headers = dict(_headers(head))
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if head.startswith(b"GET /metrics "):
                    if not self.metrics:
                        await asyncio.sleep(PATIENCE_S)
                    length = f"content-length: {len(self.metrics)}"
                    writer.write(_head("text/plain", length) + self.metrics)
                    continue
                if head.startswith(b"GET "):
                    writer.write(_head("application/json", f"content-length: {len(LIST)}") + LIST)
                    continue
                self.asked += 1
                self.open += 1
                try:
                    await self._answer(writer, headers, json.loads(body) if body else {})
                finally:
                    self.open -= 1
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, headers: Mapping[str, str], body: Any
    ) -> None:
        key = headers.get("authorization", "no key").removeprefix("Bearer ")
        words = [self.name, str(body.get("model")), key]
        kind = "chat.completion.chunk" if body.get("stream") else "chat.completion"
        about = {"id": "c-1", "object": kind, "created": 1, "model": body.get("model")}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = json.dumps({**about, "choices": [choice], "usage": USAGE}).encode()
            writer.write(_head("application/json", f"content-length: {len(whole)}") + whole)
            await writer.drain()
            return
        writer.write(_head("text/event-stream", "transfer-encoding: chunked"))
        for place, word in enumerate(words):
            text = word if place == 0 else f" {word}"
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            _event(writer, {**about, "choices": [choice]})
        while self.held and body.get("model") != "free":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), 0.05)
            if writer.is_closing():
                self.left += 1
                raise ConnectionResetError
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        _event(writer, {**about, "choices": [end], "usage": USAGE})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


@contextlib.contextmanager
def far(*names: str) -> Iterator[list[Far]]:
    """Providers of these names that run within the block."""
    made = [Far(name) for name in names]
    for each in made:
        each.start()
    try:
        yield made
    finally:
        for each in made:
            each.stop()


def _headers(head: bytes) -> Iterator[tuple[str, str]]:
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _head(content_type: str, framing: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode()


def _event(writer: asyncio.StreamWriter, value: object) -> None:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
