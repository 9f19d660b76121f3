"""A server whose answers follow from the prompt, with faults on demand; it counts who asked what."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], Any]
"""From the prompt, and how often it was asked before: the text; or a fault.

Faults are a status, such as ``429``; ``(429, 1.0)`` with what ``Retry-After`` says (else it is 0);
``"reset"``, ``"cut"`` (in the middle of the body) and ``"hang"``.
"""


class Answering(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers who leave are none of our errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answering

    def log_message(self, *_: Any) -> None: ...

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else json.dumps(content)
        with self.server.lock:
            before = self.server.asked[prompt]
            self.server.asked[prompt] += 1
        said = self.server.answer(prompt, before)
        if said == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if said == "hang":
            self.server.closing.wait(60)
            return
        if isinstance(said, int | tuple):
            status, wait_s = said if isinstance(said, tuple) else (said, 0)
            self._send(status, b'{"error": {"message": "not now"}}', "application/json", wait_s)
            return
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        if body.get("stream"):
            chunk = {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": said}, "finish_reason": "stop"}],
                "usage": usage,
            }
            data = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
            self._send(200, data, "text/event-stream", cut=said == "cut")
            return
        message = {"role": "assistant", "content": said}
        whole = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
        self._send(200, json.dumps(whole).encode(), "application/json", cut=said == "cut")

    def _send(
        self, status: int, data: bytes, kind: str, wait_s: float = 0, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", f"{wait_s:g}")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


@contextmanager
def answering(answer: Answer = lambda prompt, before: f"<{prompt}>") -> Iterator[Answering]:
    server = Answering(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
