"""A server in a thread that does to each connection what a test says, and a plan that asks it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from headrace.contracts.load import Closed, LoadPlan

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Caller:
    """One connection, as the server sees it."""

    def __init__(self, sock: socket.socket, server: Scripted) -> None:
        self.sock, self.server = sock, server
        self._rest = b""

    def request(self) -> bytes | None:
        """The next whole request to a model; the list of models is answered by itself."""
        while True:
            while b"\r\n\r\n" not in self._rest:
                data = self.sock.recv(65536)
                if not data:
                    return None
                self._rest += data
            head, _, rest = self._rest.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            while len(rest) < size:
                rest += self.sock.recv(65536)
            body, self._rest = rest[:size], rest[size:]
            if head.startswith(b"GET "):
                self.sock.sendall(self.server.models)
                continue
            if not head.startswith(b"POST /v1/"):  # whether it counts tokens, say
                self.sock.sendall(whole(b"{}", "404 Not Found"))
                continue
            self.server.requests.append((head, body))
            return body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)


class Scripted:
    """``url`` is where it listens; ``requests`` are the heads and bodies that came."""

    def __init__(self, script: Callable[[Caller], None], tls: ssl.SSLContext | None = None) -> None:
        self.script, self.tls = script, tls
        self.requests: list[tuple[bytes, bytes]] = []
        self.models = whole(b'{"object":"list","data":[{"id":"m"}]}')
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.listener.getsockname()[1]}"
        self.stopped = threading.Event()
        self._socks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError):
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            with sock:
                self.script(Caller(sock, self))

    def stop(self) -> None:
        """Let nobody in any more, and drop who is there."""
        self.stopped.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(
    script: Callable[[Caller], None], tls: ssl.SSLContext | None = None
) -> Iterator[Scripted]:
    server = Scripted(script, tls)
    try:
        yield server
    finally:
        server.stop()


def whole(body: bytes, status: str = "200 OK", *more: bytes) -> bytes:
    lines = b"".join(b"\r\n" + line for line in more)
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d%b\r\n\r\n%b" % (
        status.encode(),
        len(body),
        lines,
        body,
    )


BEGIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(content: str | None = None, **fields: object) -> bytes:
    if content is not None:
        delta = {"content": content}
        fields = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}
    return b"data: " + json.dumps({"id": "r", "model": "m", **fields}).encode() + b"\n\n"


FINISH = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(*texts: str, usage: bool = True) -> bytes:
    events = [*(event(text) for text in texts), FINISH, *([USAGE] if usage else []), DONE]
    return BEGIN + b"".join(map(chunk, events)) + END


def answering(caller: Caller) -> None:
    """Two pieces of text to whatever is asked."""
    while caller.request() is not None:
        caller.send(answer("one", " two"))


def plan(server: Scripted, **more: object) -> LoadPlan:
    settings = {"arrivals": Closed(concurrency=2), "requests": 6, "timeout_s": 5.0, "drain_s": 5.0}
    return LoadPlan(url=server.url, **{**settings, **more})
