"""The page at ``/``: a few files of ours, read once, that need nothing from anywhere else.

The browser is told to run and load nothing but them, so that no model's answer can become code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from attrs import frozen
from starlette.types import Receive, Scope, Send

from headrace.gateway.asgi import Headers, answer, header
from headrace.gateway.standing import standing_of

_PREFIX = "/page/"
_FILES = (
    "page.css",
    "icon.svg",
    "main.js",
    "feed.js",
    "format.js",
    "figures.js",
    "charts.js",
    "heat.js",
    "tables.js",
    "playground.js",
    "markdown.js",
    "theme.js",
)
PAGE_PATHS: Mapping[str, str] = {"/": "index.html", **{_PREFIX + name: name for name in _FILES}}
"""From each path of the page to its file."""

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text can be turned into markup at all; browsers that do not know this still have ours.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_SAFETY: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # The files change with the server: ask each time, and be told by the tag that nothing did.
    (b"cache-control", b"no-cache"),
]


@frozen
class _File:
    body: bytes
    content_type: bytes
    tag: bytes


class Page:
    """An ASGI application that answers for PAGE_PATHS; where the server wants a key, it asks for one."""

    def __init__(self) -> None:
        self._files = {
            (path, needs_key): _read(name, needs_key)
            for path, name in PAGE_PATHS.items()
            for needs_key in (False, True)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs_key = bool(standing_of(scope).config.server.api_keys)
        file = self._files[scope["path"], needs_key]
        headers = [*scope["headrace.headers"], *_SAFETY, (b"etag", file.tag)]
        if file.tag in (header(scope, b"if-none-match") or b""):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body"})
            return
        await answer(send, 200, file.body, headers, content_type=file.content_type)


def _read(name: str, needs_key: bool) -> _File:
    from importlib.resources import files

    body = (files("headrace.gateway") / "page_files" / name).read_bytes()
    if needs_key:
        body = body.replace(b'data-needs-key="no"', b'data-needs-key="yes"')
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()
    return _File(body, _TYPES[PurePosixPath(name).suffix], tag)
