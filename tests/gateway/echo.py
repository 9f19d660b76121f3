"""A provider that says what it was told, counts how often, and can be slow or broken on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Echo:
    """Answers each chat with its last message, and each embedding with its text's length.

    A text that begins with ``bad`` is refused with 400, and one that begins with ``busy`` with 429
    the first time. While ``held`` nothing is answered.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.open = self.most_open = 0
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._say(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = echo._answer(body)
                self._say(status, answer)

            def _say(self, status: int, answer: object) -> None:
                data = json.dumps(answer).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """Callers that are killed are what the tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def backend(self, **settings: object) -> dict[str, object]:
        """What a configuration says of it."""
        return {
            "name": "echo",
            "base_url": f"{self.url}/v1",
            "models": ["m"],
            "max_retries": 0,
            "breaker_failures": 0,
            "asked_whole": True,
            **settings,
        }

    def _answer(self, body: Any) -> tuple[int, object]:
        if "input" in body:
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            data = [
                {"object": "embedding", "index": i, "embedding": [float(len(text)), 0.5]}
                for i, text in enumerate(texts)
            ]
            usage = {"prompt_tokens": 2, "total_tokens": 2}
            return 200, {"object": "list", "data": data, "model": "m", "usage": usage}
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        if not isinstance(text, str):
            text = text[0]["text"]
        with self._lock:
            self.asked[text] += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            self._free.wait()
        finally:
            with self._lock:
                self.open -= 1
        if text.startswith("bad"):
            return 400, {"error": {"message": "that is bad", "type": "invalid_request_error"}}
        if text.startswith("busy") and self.asked[text] == 1:
            return 429, {"error": {"message": "later", "type": "rate_limit_error"}}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        about = {"id": "c-1", "created": 1, "model": body.get("model"), "usage": usage}
        if "prompt" in body:
            choice: dict[str, object] = {"index": 0, "text": text, "finish_reason": "stop"}
            return 200, {**about, "object": "text_completion", "choices": [choice]}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {**about, "object": "chat.completion", "choices": [choice]}


@contextlib.contextmanager
def echoing() -> Iterator[Echo]:
    """One that runs within the block."""
    echo = Echo()
    echo._thread.start()
    try:
        yield echo
    finally:
        echo.release()
        echo._server.shutdown()
        echo._server.server_close()
        echo._thread.join()
