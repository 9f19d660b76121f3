"""A program that serves a model, as an engine does, and no more than tests need of one.

It refuses flags that it does not know. Written with sockets and threads alone, so that it starts in
a few hundredths of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time

_CHUNKED = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_AS_LINES = ("text/event-stream", "application/x-ndjson")


def main() -> None:
    parser = argparse.ArgumentParser(prog="stand-in")
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--api-key")
    parser.add_argument("--slow-start", type=float, default=0.0, help="seconds of loading")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--crash-after", type=int, default=0, help="answers, then death")
    parser.add_argument("--children", type=int, default=0, help="processes of its own")
    parser.add_argument("--pieces", type=int, default=3)
    parser.add_argument("--piece-s", type=float, default=0.0)
    parser.add_argument("--ready-path", default="/health")
    parser.add_argument("--base-path", default="/v1")
    parser.add_argument("--lists-nothing", action="store_true")
    asked = parser.parse_args()
    if "missing" in asked.model:
        sys.exit(f"stand-in: error: there is no model {asked.model!r}")
    if asked.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(asked.children):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
    print(f"stand-in: loading {asked.model}", flush=True)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((asked.host, asked.port))
    except OSError as refused:
        sys.exit(f"stand-in: error: {refused}")
    listener.listen(64)
    server = _Server(asked)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=server.serve, args=(connection,), daemon=True).start()


class _Server:
    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._ready_at = time.monotonic() + asked.slow_start
        self._answered = 0

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while self._one(connection, file):
                pass

    def _one(self, connection, file) -> bool:
        line = file.readline()
        if not line:
            return False
        method, path, _ = line.decode().split()
        headers = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", 0)))
        key = self._asked.api_key
        if key and headers.get("authorization") != f"Bearer {key}":
            self._plain(connection, 401, {"error": {"message": "wrong key"}})
        elif self._asked.never_ready or time.monotonic() < self._ready_at:
            self._plain(connection, 503, {"error": {"message": "loading"}})
        elif path == self._asked.ready_path:
            self._plain(connection, 200, {})
        elif path == f"{self._asked.base_path}/models" and not self._asked.lists_nothing:
            name = self._asked.served_model_name or self._asked.model
            self._plain(connection, 200, {"object": "list", "data": [{"id": name}]})
        elif method == "POST" and path == f"{self._asked.base_path}/chat/completions":
            self._stream(connection, json.loads(body)["model"])
        elif method == "POST" and path == "/api/chat":
            self._lines(connection, json.loads(body)["model"])
        else:
            self._plain(connection, 404, {"error": {"message": "not found"}})
        return True

    def _plain(self, connection, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _stream(self, connection, model: str) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{_CHUNKED}".encode())
        for i in range(self._asked.pieces):
            delta = {"content": f"{os.getpid() if i == 0 else ' and on'}"}
            self._event(connection, {"model": model, "choices": [{"index": 0, "delta": delta}]})
            time.sleep(self._asked.piece_s)
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._event(connection, {"model": model, "choices": [end]})
        self._chunk(connection, b"data: [DONE]\n\n")
        connection.sendall(b"0\r\n\r\n")
        self._answered += 1
        if self._asked.crash_after and self._answered >= self._asked.crash_after:
            print("stand-in: a fault that nobody foresaw", flush=True)
            os._exit(3)

    def _lines(self, connection, model: str) -> None:
        """As ``_stream``, in Ollama's form."""
        connection.sendall(f"HTTP/1.1 200 OK\r\n{_CHUNKED}".replace(*_AS_LINES).encode())
        for i in range(self._asked.pieces + 1):
            said = "" if i == self._asked.pieces else f"{os.getpid() if i == 0 else ' and on'}"
            line = {"model": model, "message": {"content": said}, "done": not said}
            self._chunk(connection, json.dumps(line).encode() + b"\n")
            time.sleep(self._asked.piece_s)
        connection.sendall(b"0\r\n\r\n")

    def _event(self, connection, value: dict[str, object]) -> None:
        whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, **value}
        self._chunk(connection, b"data: " + json.dumps(whole).encode() + b"\n\n")

    def _chunk(self, connection, data: bytes) -> None:
        connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")


if __name__ == "__main__":
    main()
