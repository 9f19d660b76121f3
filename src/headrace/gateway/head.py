"""What came before a request's body, and what ASGI calls that."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httptools
from attrs import define


@define(eq=False)
class Head:
    """What came before a request's body; nobody changes it."""

    url: bytes
    method: bytes
    headers: list[tuple[bytes, bytes]]
    version: str
    keep_alive: bool

    @property
    def expects_continue(self) -> bool:
        """Whether the caller waits to be told that it may send the body."""
        return any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )


def scope_of(head: Head, root_path: str, connection: dict[str, Any]) -> dict[str, Any]:
    """The ASGI scope of a request; ``connection`` is what is the same for all on one connection."""
    url = httptools.parse_url(head.url)
    raw_path = url.path or b""
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "http_version": head.version,
        "method": head.method.decode("ascii"),
        "root_path": root_path,
        "path": root_path + (unquote(path) if "%" in path else path),
        "raw_path": root_path.encode("ascii") + raw_path,
        "query_string": url.query or b"",
        "headers": head.headers,
        **connection,
    }
