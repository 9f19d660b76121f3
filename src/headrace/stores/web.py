"""Asking the web for a file: redirects are followed, but never into a network that nobody named.

Whoever sends us on must send us to ``https``, and to a public host; where its name leads is judged
by the address that the connection has (``guarded_transport``), for a public name may lead home.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import urljoin

from attrs import evolve, field, frozen

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMUnavailableError,
)
from headrace.net.clock import Clock
from headrace.net.hosts import is_private_host
from headrace.net.proxy import Proxies
from headrace.net.transport import (
    Headers,
    HttpReply,
    HttpRequest,
    TimeLimits,
    Transport,
    Url,
    parse_url,
)
from headrace.stores.secret import redact
from headrace.wire.openai_errors import retry_after_s

T = TypeVar("T")

LIMITS = TimeLimits(connect_s=15.0, first_byte_s=60.0, idle_s=60.0)

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MOST_COMPLAINT = 64 * 1024


def admits(private_hosts: Collection[str]) -> Callable[[str, str], bool]:
    """Whether a connection to a host, which turned out to be at an address, may be used."""
    return lambda host, address: host.lower() in private_hosts or not is_private_host(address)


@frozen(kw_only=True)
class Answer:
    """The last answer, and the headers of every one on the way to it, the first one's first."""

    reply: HttpReply
    headers: tuple[Mapping[str, str], ...]

    def header(self, name: str) -> str | None:
        """The first that any of them had under ``name``."""
        return next((said[name] for said in self.headers if name in said), None)


@frozen(kw_only=True)
class Web:
    """GET over ``transport``; ``private_hosts`` are those within private networks that may be asked,
    and the only ones that may be asked without TLS."""

    transport: Transport
    proxies: Proxies = field(factory=Proxies)
    private_hosts: frozenset[str] = frozenset()

    async def send(self, request: HttpRequest, limits: TimeLimits = LIMITS) -> HttpReply:
        """Send it where that is allowed; redirects are the caller's to follow."""
        self._check(request.url)
        proxy = self.proxies.for_url(request.url)
        if proxy is not None:
            request = evolve(request, url=evolve(request.url, proxy=proxy))
        return await self.transport.send(request, limits)

    async def get(self, url: Url, headers: Headers = (), secret: Headers = ()) -> Answer:
        """GET ``url``, whatever the status; ``secret`` headers are for its own origin alone."""
        said: list[Mapping[str, str]] = []
        first = url.origin
        for _ in range(_MOST_REDIRECTS + 1):
            known = secret if url.origin == first else ()
            reply = await self.send(HttpRequest(url=url, headers=(*headers, *known)))
            said.append(reply.headers)
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or location is None:
                return Answer(reply=reply, headers=tuple(said))
            await reply.aclose()
            url = parse_url(urljoin(f"{url.scheme}://{url.authority}{url.target}", location))
        raise LLMBadResponseError(
            f"{first} sends on more than {_MOST_REDIRECTS} times, to {url.origin} at last"
        )

    def _check(self, url: Url) -> None:
        if url.unix_path is not None:
            raise LLMInvalidRequestError("a model file is not fetched from a unix socket")
        if url.host.lower() in self.private_hosts:
            return
        if is_private_host(url.host):
            raise LLMInvalidRequestError(
                f"{url.host} lies within a private network; name it in HEADRACE_PRIVATE_HOSTS if "
                "model files may come from there",
                code="private_host",
            )
        if url.scheme != "https":
            raise LLMInvalidRequestError(
                f"{url.origin} would be asked without TLS; expected https://, or its name in "
                "HEADRACE_PRIVATE_HOSTS"
            )


async def patiently(
    ask: Callable[[], Awaitable[T]], *, tries: int, first_s: float, clock: Clock
) -> T:
    """What ``ask`` brings. What may pass is asked for again, ``tries`` times in all.

    Each wait is twice as long as the one before, the first ``first_s``, or as long as was said.
    """
    for wait_s in (first_s * 2**number for number in range(tries - 1)):
        try:
            return await ask()
        except (LLMProviderError, LLMRateLimitError) as error:
            if not error.transient:
                raise
            said_s = error.retry_after_s
        await clock.sleep(said_s or wait_s)
    return await ask()


async def refusal(reply: HttpReply, what: str, advice: Mapping[int, str] | None = None) -> LLMError:
    """The error that an answer's status means; its own words are kept, ``advice`` goes behind them."""
    async with aclosing(reply):
        try:
            body = await reply.read(_MOST_COMPLAINT)
        except LLMError:  # its status says enough
            body = b""
    said = body.decode("utf-8", "replace").strip()
    words = f"{redact(what)}: answered with status {reply.status}"
    if reply.status in (advice or {}):
        words += f"; {(advice or {})[reply.status]}"
    kind, transient = kind_of_status(reply.status)
    return kind(
        words,
        transient=transient,
        provider_message=redact(said[:500]) or None,
        retry_after_s=retry_after_s(reply.headers),
    )


def kind_of_status(status: int) -> tuple[type[LLMError], bool]:
    """The error of an HTTP status, and whether it may pass."""
    if status in (401, 403):
        return LLMAuthError, False
    if status in (404, 410):
        return LLMModelNotFoundError, False
    if status == 429:
        return LLMRateLimitError, True
    if status == 503:
        return LLMOverloadedError, True
    if status >= 500 or status == 408:
        return LLMUnavailableError, True
    return LLMBadResponseError, False
