"""A server that behaves as badly as its path says: ``/<behaviour>/v1/chat/completions``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def chunk(text: str | None = None, finish_reason: str | None = None) -> bytes:
    """One event of a chat stream."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "far"}
    return b"data: " + json.dumps({**body, "choices": [choice]}).encode() + b"\n\n"


class Upstream(ThreadingHTTPServer):
    """``seen`` holds the path, headers and body of every request; ``released`` ends all hanging."""

    daemon_threads = True
    # Those that hang are not waited for.
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, behaviour: str) -> list[tuple[str, dict[str, str], Any]]:
        """What was asked of one behaviour."""
        return [each for each in self.seen if each[0].startswith(f"/{behaviour}/")]


@contextmanager
def upstream() -> Iterator[Upstream]:
    """An Upstream that runs within the block."""
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, json.loads(body)))
        self.close_connection = True
        getattr(self, f"be_{self.path.split('/')[1]}")()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        headers = {"content_type": "application/json", **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, message: str, **headers: str) -> None:
        detail = {"message": message, "type": "some_error", "param": None, "code": None}
        self.answer(status, json.dumps({"error": detail}).encode(), **headers)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()

    def be_good(self) -> None:
        self.begin_stream()
        self.wfile.write(chunk("far ") + chunk("away") + chunk(None, "stop") + b"data: [DONE]\n\n")

    def be_unstreaming(self) -> None:
        message = {"role": "assistant", "content": "all at once"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        body = {"id": "c-2", "object": "chat.completion", "created": 1, "model": "far"}
        self.answer(200, json.dumps({**body, "choices": [choice], "usage": usage}).encode())

    def be_hanging(self) -> None:
        self.server.released.wait()

    def be_silent_later(self) -> None:
        self.begin_stream()
        self.wfile.write(chunk("Well, ") + chunk("once "))
        self.server.released.wait()

    def be_cut(self) -> None:
        self.begin_stream()
        self.wfile.write(chunk("Well, ") + chunk("once ") + chunk("upon ")[:20])

    def be_closing(self) -> None:
        """Says nothing and hangs up."""

    def be_no_http(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    def be_no_json(self) -> None:
        self.answer(200, b"<html>hello</html>")

    def be_no_answer(self) -> None:
        self.answer(200, b'{"hello": "world"}')

    def be_no_events(self) -> None:
        self.answer(200, b"data: {{{\n\n", content_type="text/event-stream")

    def be_empty_stream(self) -> None:
        self.answer(200, b"", content_type="text/event-stream")

    def be_broken(self) -> None:
        self.error(500, "it broke within")

    def be_broken_in_html(self) -> None:
        self.answer(502, b"<h1>Bad Gateway</h1>", content_type="text/html")

    def be_limited(self) -> None:
        self.error(429, "slow down", retry_after="7")

    def be_refusing(self) -> None:
        self.error(400, "temperature is too hot for me")

    def be_indiscreet(self) -> None:
        self.error(401, f"Incorrect API key provided: {self.headers['authorization']}")

    def be_failing_later(self) -> None:
        self.begin_stream()
        said = {"error": {"message": "out of memory", "type": "server_error", "code": 500}}
        self.wfile.write(
            chunk("Well, ") + chunk("once ") + b"data: " + json.dumps(said).encode() + b"\n\n"
        )
