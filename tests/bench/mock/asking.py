"""Requests on bare sockets, for what an HTTP client would smooth over."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def request(path: str = CHAT, body: object = ASK, **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: mock", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def ask(url: str, body: object = ASK, path: str = CHAT, **headers: str) -> tuple[bytes, str]:
    """All that comes until the connection ends, and how it ended: ``end`` or ``reset``."""
    with connect(url) as sock:
        sock.sendall(request(path, body, connection="close", **headers))
        return rest(sock)


def rest(sock: socket.socket) -> tuple[bytes, str]:
    """What still comes, and how it ended."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:
        return got, "reset"
    return got, "end"


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """What comes up to and with ``mark``."""
    got = b""
    while mark not in got:
        data = sock.recv(65536)
        assert data, got
        got += data
    return got


def post(url: str, body: object = ASK, path: str = CHAT) -> dict[str, object]:
    with urlopen(Request(url + path, json.dumps(body).encode()), timeout=20) as reply:
        return json.load(reply)


def get(url: str, path: str) -> bytes:
    with urlopen(url + path, timeout=20) as reply:
        return reply.read()


def texts(stream: bytes) -> list[str]:
    """The pieces of text in a chat's stream."""
    found = []
    for line in stream.split(b"\n"):
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            found += [c["delta"]["content"] for c in choices if c["delta"].get("content")]
    return found
