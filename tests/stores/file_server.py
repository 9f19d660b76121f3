"""A web server of files on loopback that cuts answers short, forgets ranges, lies and sends on."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-")


class FileServer:
    """``files`` by path. ``cuts`` holds, for each answer with a body to come, after how many bytes
    the connection is broken; ``headers`` go with the answers of a path, ``moved`` sends on,
    ``status`` holds what a path answers with before it answers as usual, 0 for once as usual."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.moved: dict[str, tuple[str, dict[str, str]]] = {}
        self.status: dict[str, list[int]] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.etags = True
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.length: int | None = None
        self.sent = 0
        self.hold: threading.Event | None = None
        self.held = threading.Event()
        self.url = ""

    def put(self, path: str, data: bytes) -> str:
        """Serve ``data`` there; its URL."""
        self.files[path] = data
        return self.url + path

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            path = self.path.partition("?")[0]
            codes = server.status.get(path)
            if codes and (code := codes.pop(0)):
                self._say(code, b"not now", {})
            elif path in server.moved:
                to, headers = server.moved[path]
                self._say(302, b"", {"Location": to, **headers})
            elif path not in server.files:
                self._say(404, b"no such file", server.headers.get(path, {}))
            else:
                self._give(path, server.files[path])

        def _give(self, path: str, data: bytes) -> None:
            headers = dict(server.headers.get(path, {}))
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            if server.etags:
                headers["ETag"] = etag
            wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, etag)
            if wanted is None or not server.ranges or not same:
                self._say(200, data, headers)
                return
            start = int(wanted[1])
            if start >= len(data):
                self._say(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._say(206, data[start:], headers)

        def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(server.length or len(body)))
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts and body and status < 300 else None
            part = body if cut is None else body[:cut]
            first = len(part) // 2 if server.hold is not None and cut is None else len(part)
            server.sent += len(part)  # before the last of it is there, and somebody looks
            self.wfile.write(part[:first])
            if server.hold is not None and status < 300:
                server.held.set()
                server.hold.wait(60)
            self.wfile.write(part[first:])
            if cut is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

    return Handler


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    listening.daemon_threads = True
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        if server.hold is not None:
            server.hold.set()
        listening.shutdown()
        thread.join()
        listening.server_close()
