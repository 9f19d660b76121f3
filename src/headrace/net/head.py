"""A request's head as bytes: what may stand in it, and how it is written. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.transport import HttpRequest

# RFC 9110: a name is a token; a value is anything but control characters, of which CR, LF and NUL
# would let a value write headers, or a second request, of its own.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset(
    [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
    ]
)
_BODY_EXPECTED = frozenset(("POST", "PUT", "PATCH"))


def write_head(request: HttpRequest) -> bytes:
    """Request line and headers, the empty line included."""
    method, url, body = request.method, request.url, request.body
    if method != "POST" and (not _TOKEN.fullmatch(method) or method == "CONNECT"):
        raise LLMInvalidRequestError(f"bad HTTP method {method!r}: expected GET, POST or the like")
    target, proxy = url.target, url.proxy
    if proxy is not None and url.scheme == "http":
        target = f"http://{url.authority}{target}"  # RFC 9112, 3.2.2: what a proxy is asked
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {url.authority}"]
    if proxy is not None and url.scheme == "http" and proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    encoding_given = False
    for name, value in request.headers:
        if _checked(name) == "accept-encoding":
            encoding_given = True
        lines.append(f"{name}: {value}")
    if not "".join(lines[1:]).isprintable():
        _refuse_control_characters(request)
    if not encoding_given:
        lines.append("Accept-Encoding: identity")
    if not isinstance(body, bytes):
        lines.append("Transfer-Encoding: chunked")
    elif body or method in _BODY_EXPECTED:
        lines.append(f"Content-Length: {len(body)}")
    lines.append("\r\n")
    text = "\r\n".join(lines)
    if not text.isascii():
        _refuse_what_latin1_lacks(request)
    return text.encode("latin-1")


@lru_cache
def _checked(name: str) -> str:
    """The header's name in small letters, where it is one that may be given."""
    lower = name.lower()
    if lower in _OURS:
        raise LLMInvalidRequestError(
            f"header {name!r} is written by the transport and cannot be given"
        )
    if not _TOKEN.fullmatch(name):
        raise LLMInvalidRequestError(f"bad header name {name!r}: expected letters, digits, '-'")
    return lower


def _refuse_control_characters(request: HttpRequest) -> None:
    for name, value in request.headers:
        if _CONTROL.search(value):
            raise LLMInvalidRequestError(
                f"bad value of header {name!r}: it holds a line end or another control character"
            )


def _refuse_what_latin1_lacks(request: HttpRequest) -> None:
    # Looked for by hand: a UnicodeEncodeError would carry the whole head, keys and all.
    for name, value in request.headers:
        if any(ord(c) > 255 for c in value):
            raise LLMInvalidRequestError(
                f"bad value of header {name!r}: it holds a character beyond Latin-1"
            )
