"""Whether a request goes through an HTTP proxy, and through which.

To an ``https`` target a tunnel is opened (CONNECT), in which TLS is with the target itself: the
proxy sees its name and nothing else. A request to an ``http`` target is handed to the proxy, which
reads all of it, as anybody on the way does. Loopback and unix sockets are reached without.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping

from attrs import evolve, field, frozen

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError
from headrace.net.hosts import address_of, is_loopback_host
from headrace.net.transport import (
    HttpReply,
    HttpRequest,
    Proxy,
    TimeLimits,
    Transport,
    Url,
    as_http,
    parse_url,
)

ENVIRONMENT = "environment"
"""The setting that means: as the variables say."""

# Up to the last '@', for a password may hold one, or a '/', that should have been written as %40.
_USER = re.compile(r"^([a-zA-Z0-9+.-]*://)?.*@", re.DOTALL)
_MOST_URLS = 256


def masked(proxy: str | None) -> str | None:
    """``proxy`` without its user and password, to be shown."""
    return None if proxy is None else _USER.sub(r"\g<1>***@", proxy)


def read_proxy(text: str, source: str = "proxy") -> Proxy:
    """``http://[user:password@]host:port``; the errors name ``source`` and show no password."""
    from urllib.parse import unquote, urlsplit

    shown = masked(text)
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme != "http":
            raise LLMInvalidRequestError(
                f"{source} is {shown!r}: proxies are reached by http:// only, not by "
                f"{parts.scheme}:// (https targets are tunnelled through it)",
                param="proxy",
            )
        place = parse_url(f"http://{parts.netloc.rpartition('@')[2]}")
    except (ValueError, LLMInvalidRequestError) as error:
        if isinstance(error, LLMInvalidRequestError) and error.param == "proxy":
            raise
        # Not the error's own words: they may quote what stands before the '@'.
        raise LLMInvalidRequestError(
            f"{source} is {shown!r}, expected http://host:port", param="proxy"
        ) from None
    authorization = None
    if parts.username is not None:
        known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(known.encode()).decode()}"
    return Proxy(host=place.host, port=place.port, authorization=authorization)


def check_proxy(proxy: str | None) -> None:
    """Raise LLMInvalidRequestError where the setting ``proxy`` is none that ``find_proxies`` takes."""
    if proxy is not None and proxy != ENVIRONMENT:
        read_proxy(proxy)


@frozen(kw_only=True)
class Proxies:
    """Which proxy for which target: ``http`` and ``https`` by its scheme, ``bypass`` none at all.

    The proxies are texts and read when they are needed: a wrong one matters to nobody else. Each
    has with it where it was said, for the errors.
    """

    http: tuple[str, str] | None = field(default=None, repr=False)
    https: tuple[str, str] | None = field(default=None, repr=False)
    bypass: tuple[str, ...] = ()

    def for_url(self, url: Url) -> Proxy | None:
        """The proxy on the way to ``url``; raises LLMInvalidRequestError where it is no address."""
        said = self.https if url.scheme == "https" else self.http
        if said is None or url.unix_path is not None or is_loopback_host(url.host):
            return None
        if any(_covers(entry, url) for entry in self.bypass):
            return None
        text, source = said
        return read_proxy(text, source)


def find_proxies(proxy: str | None, environment: Mapping[str, str]) -> Proxies:
    """The proxies that the setting ``proxy`` means.

    ``None`` is none at all, an address is for all targets, and ENVIRONMENT as curl and others do
    it: ``https_proxy`` and ``http_proxy`` by the target's scheme, else ``all_proxy``, but for what
    ``no_proxy`` names; each in small or capital letters, the small ones first. ``HTTP_PROXY`` is
    not believed where ``REQUEST_METHOD`` is set: there it is a header of somebody's request
    (https://httpoxy.org).
    """
    if proxy is None:
        return Proxies()
    if proxy != ENVIRONMENT:
        return Proxies(http=(proxy, "proxy"), https=(proxy, "proxy"))

    def named(*names: str) -> tuple[str, str] | None:
        for name in names:
            if text := environment.get(name, "").strip():
                return text, name
        return None

    cgi = "REQUEST_METHOD" in environment
    every = named("all_proxy", "ALL_PROXY")
    bypass = named("no_proxy", "NO_PROXY")
    return Proxies(
        http=named("http_proxy", *(() if cgi else ("HTTP_PROXY",))) or every,
        https=named("https_proxy", "HTTPS_PROXY") or every,
        bypass=() if bypass is None else tuple(re.split(r"[,\s]+", bypass[0].lower())),
    )


def _covers(entry: str, url: Url) -> bool:
    """Whether an entry of no_proxy means ``url``: ``*``, a name with all below it, an address, a
    network; behind each a port may stand."""
    if entry == "*":
        return True
    host, _, port = entry.rpartition(":")
    if host and port.isdigit() and (":" not in host or host.endswith("]")):
        if int(port) != url.port:
            return False
    else:
        host = entry
    host = host.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
    if not host:
        return False
    target = url.host.lower().rstrip(".")
    address = address_of(target)
    if address is not None:
        try:
            return address in ipaddress.ip_network(host, strict=False)
        except ValueError:
            return False
    return target == host or target.endswith(f".{host}")


class Through:
    """Meets Transport: what ``inner`` carries goes through ``proxy``."""

    def __init__(self, inner: Transport, proxy: Proxy) -> None:
        self._inner, self._proxy = inner, proxy
        self._urls: dict[Url, Url] = {}

    async def send(self, request: HttpRequest, limits: TimeLimits) -> HttpReply:
        url = self._urls.get(request.url)
        if url is None:
            if len(self._urls) >= _MOST_URLS:
                self._urls.clear()
            url = self._urls[request.url] = evolve(request.url, proxy=self._proxy)
        reply = await self._inner.send(evolve(request, url=url), limits)
        if reply.status == 407:
            await reply.aclose()
            raise refused_by(self._proxy, url, "407 Proxy Authentication Required")
        return reply

    async def aclose(self) -> None:
        """``inner`` is somebody else's to close."""


def through(transport: Transport, proxies: Proxies, base_url: str) -> Transport:
    """``transport``, by way of the proxy where there is one for ``base_url``."""
    proxy = proxies.for_url(parse_url(as_http(base_url)))
    return transport if proxy is None else Through(transport, proxy)


def refused_by(proxy: Proxy, url: Url, answer: str) -> LLMUnavailableError:
    """The error for a proxy that does not let us through, with the status line of its ``answer``."""
    hint = "; look at the user and password in its address" if answer.startswith("407") else ""
    return LLMUnavailableError(
        f"the proxy {proxy.host}:{proxy.port} refused to connect to {url.host}:{url.port}: "
        f"{answer}{hint}",
        transient=answer.startswith("5"),
        code="proxy_refused",
    )
