"""The one seam to the network: what is sent, what comes back, and who carries it.

Nothing here does I/O. ``net.pool`` carries requests over sockets, ``net.scripted`` answers from a
script. Reprs and errors never show a header's value, a body, or a URL's query: all may hold keys.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Literal, Protocol, TypeAlias

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError

Scheme: TypeAlias = Literal["http", "https"]
Headers: TypeAlias = tuple[tuple[str, str], ...]

# RFC 9112: a target is visible ASCII. A space or a line end in it would begin another request.
_TARGET = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._~:%-]+")


def _without_query(target: str) -> str:
    path, mark, _ = target.partition("?")
    return repr(path + "?..." if mark else path)


def _check_target(_: object, __: object, target: str) -> None:
    if not (target.startswith("/") or target == "*") or not _TARGET.fullmatch(target):
        raise LLMInvalidRequestError(
            f"bad request target {_without_query(target)}: it must begin with '/' and be visible"
            " ASCII; percent-encode the rest",
            param="url",
        )


def _check_host(_: object, __: object, host: str) -> None:
    if not _HOST.fullmatch(host):
        raise LLMInvalidRequestError(f"bad host {host!r}: expected a name or an address")


@frozen(kw_only=True)
class Proxy:
    """An HTTP proxy, and what it wants to see in ``Proxy-Authorization``."""

    host: str = field(validator=_check_host)
    port: int
    authorization: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Url:
    """Where a request goes, parsed once; make others of the same place with ``attrs.evolve``.

    ``host`` is without brackets; ``target`` is path and query as they go on the wire. With
    ``unix_path`` the connection is made to that socket and ``host`` is only what Host says; with
    ``proxy`` it is made by way of that.
    """

    scheme: Scheme = "http"
    host: str = field(default="localhost", validator=_check_host)
    port: int = 80
    target: str = field(default="/", validator=_check_target, repr=_without_query)
    unix_path: str | None = None
    proxy: Proxy | None = None
    authority: str = field(init=False, eq=False, repr=False)
    """What the Host header says."""
    origin: str = field(init=False, eq=False, repr=False)
    """Where connections go: requests of one origin may share them."""

    @authority.default
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return host if usual else f"{host}:{self.port}"

    @origin.default
    def _origin(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        origin = f"{self.scheme}://{host}:{self.port}"
        if self.proxy is None:
            return origin
        # Two users of one proxy share no connection; the number tells them apart and means nothing.
        user = "" if self.proxy.authorization is None else f" (user {hash(self.proxy):x})"
        return f"{origin} through {self.proxy.host}:{self.proxy.port}{user}"


def parse_url(text: str) -> Url:
    """``http://``, ``https://``, or ``http+unix://%2Frun%2Fengine.sock/path`` for a unix socket."""
    from urllib.parse import unquote, urlsplit

    # urlsplit drops line ends and tabs without a word, so they are looked for before it.
    if any(c <= " " or c == "\x7f" for c in text):
        raise LLMInvalidRequestError("bad URL: it holds a space or a control character")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise LLMInvalidRequestError(f"bad URL: {error}") from None
    if "@" in parts.netloc:
        raise LLMInvalidRequestError("bad URL: user and password do not belong in it; use a header")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if parts.scheme == "http+unix":
        path = unquote(parts.netloc)
        if not path.startswith("/") or "\0" in path:
            raise LLMInvalidRequestError(
                f"bad unix socket path {path!r}: expected an absolute path, percent-encoded"
            )
        return Url(target=target, unix_path=path)
    if parts.scheme not in ("http", "https"):
        raise LLMInvalidRequestError(
            f"bad URL scheme {parts.scheme!r}; known: http, https, http+unix"
        )
    if port == 0:
        raise LLMInvalidRequestError("bad URL: port 0 cannot be connected to")
    secure = parts.scheme == "https"
    return Url(
        scheme="https" if secure else "http",
        host=_ascii_host(parts.hostname or ""),
        port=port or (443 if secure else 80),
        target=target,
    )


def as_http(base_url: str) -> str:
    """``grpc://`` and ``grpcs://`` as the schemes that say the same of connections."""
    for scheme in ("grpc", "grpcs"):
        if base_url.startswith(f"{scheme}://"):
            return scheme.replace("grpc", "http") + base_url.removeprefix(scheme)
    return base_url


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError as error:
        raise LLMInvalidRequestError(f"bad host {host!r}: {error}") from None


def _names_only(headers: Headers) -> str:
    return "(" + ", ".join(name for name, _ in headers) + ")"


def _size_only(body: bytes | AsyncIterable[bytes]) -> str:
    return f"<{len(body)} bytes>" if isinstance(body, bytes) else "<stream>"


@frozen(kw_only=True)
class HttpRequest:
    """One request.

    Host, Content-Length, Transfer-Encoding and Connection are written by the transport and refused
    among ``headers``; Accept-Encoding is ``identity`` unless given. A ``body`` that is not bytes is
    sent in chunks as it comes, each piece when the socket has room for it.
    """

    method: str = "GET"
    url: Url
    headers: Headers = field(default=(), repr=_names_only)
    body: bytes | AsyncIterable[bytes] = field(default=b"", repr=_size_only)


@frozen(kw_only=True)
class TimeLimits:
    """How long each phase of a request may take, in seconds; ``None`` is without limit.

    ``queue_s`` waits for a free connection of the pool; ``connect_s`` is name look-up, connecting
    and TLS together; ``first_byte_s`` runs from the request being sent to the end of the answer's
    headers; ``idle_s`` is the longest silence inside the answer's body, counted only while somebody
    waits for a piece, and the longest stall while a request is being sent; ``total_s`` covers it
    all.
    """

    queue_s: float | None = None
    connect_s: float | None = 10.0
    first_byte_s: float | None = 60.0
    idle_s: float | None = 60.0
    total_s: float | None = None


NO_LIMITS = TimeLimits(connect_s=None, first_byte_s=None, idle_s=None)


class HttpReply(Protocol):
    """An answer whose headers are here and whose body is still coming.

    Iterate it, once, for the body, or ``read`` it; then, or instead, ``aclose`` it, best with
    ``contextlib.aclosing``. An answer that is neither read to its end nor closed keeps its
    connection.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; the values of a repeated header are joined by ``", "``."""

    @property
    def sent_at(self) -> float:
        """When the request had been handed to the socket: an instant of the transport's clock."""

    @property
    def first_byte_at(self) -> float:
        """When the first byte of the answer came: an instant of the transport's clock."""

    @property
    def connection_reused(self) -> bool: ...

    @property
    def sends(self) -> int:
        """How often the request was sent for it; 2 where a kept connection proved closed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body without its framing: each piece is all that has come and was not yet taken.

        Raises LLMTimeoutError, LLMUnavailableError (reset) or LLMBadResponseError (cut short, not
        HTTP) where the body does not reach its end; it never just stops.
        """

    async def read(self, limit: int) -> bytes:
        """The whole body; more than ``limit`` bytes is an LLMBadResponseError."""

    async def aclose(self) -> None:
        """Have done with it: before the end of the body this closes the connection at once."""


class Transport(Protocol):
    """Carries requests."""

    async def send(self, request: HttpRequest, limits: TimeLimits) -> HttpReply:
        """Send it and wait for the headers of the answer, whatever its status; 3xx is not followed.

        Raises LLMInvalidRequestError, LLMUnavailableError, LLMTimeoutError (naming the phase) or
        LLMBadResponseError. Cancelling it, or a wait for the body, closes the connection at once.
        """

    async def aclose(self) -> None:
        """Close every connection, also those in use; a second call does nothing."""
