"""The transport over sockets: per origin, a stack of kept connections and a queue of those waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.net.clock import Clock, SystemClock
from headrace.net.deadline import limit_error
from headrace.net.head import write_head
from headrace.net.http1 import Connection, cause_of
from headrace.net.reply import Http1Reply
from headrace.net.tls import default_context, tls_failure
from headrace.net.transport import HttpRequest, Proxy, TimeLimits, Url

if TYPE_CHECKING:
    import ssl

    from headrace.net.channels import Channels


class _Origin:
    """Connections to one place. ``taken`` counts the open ones and those being opened."""

    __slots__ = ("idle", "name", "taken", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0
        self.idle: list[Connection] = []
        self.waiters: deque[asyncio.Future[Connection | None]] = deque()


class PooledTransport:
    """Meets Transport with HTTP/1.1 over TCP, TLS and unix sockets.

    At most ``max_connections`` to one origin (scheme, host and port; or socket path); further
    requests wait in the order they came. The connection used last is used next, so that the others
    grow old: after ``keep_idle_s`` seconds of rest, or sooner where the server said so by
    Keep-Alive, one is closed.

    A kept connection may be closed by its server just as a request goes out. Such a request, when
    not one byte of an answer has come, is sent once more on a new connection. That is safe for the
    caller, who has seen nothing; a server that did the work and died before its first byte does it
    twice. A streamed body cannot be sent again and is not.

    ``admits`` is asked, with the host and the address that its name led to, before anything is sent
    on a new connection; what it does not admit is closed. Of what a proxy connects to, the proxy
    decides.

    It belongs to the event loop of its first request. Under TLS, a body without stated length
    cannot be told from one that an attacker cut short.
    """

    def __init__(
        self,
        *,
        max_connections: int = 128,
        keep_idle_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        admits: Callable[[str, str], bool] | None = None,
    ) -> None:
        if max_connections < 1:
            raise LLMInvalidRequestError(
                f"max_connections is {max_connections}: expected 1 or more"
            )
        self._max_connections = max_connections
        self._keep_idle_s = keep_idle_s
        self._tls = tls
        self._admits = admits
        self._monotonic = (SystemClock() if clock is None else clock).monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origins: dict[str, _Origin] = {}
        self._live: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._channels: Channels | None = None
        self._emptied: asyncio.Event | None = None

    async def send(self, request: HttpRequest, limits: TimeLimits) -> Http1Reply:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._settle_on(loop)
        head = write_head(request)
        total_at = inf if limits.total_s is None else loop.time() + limits.total_s
        url = request.url
        origin = self._origins.get(url.origin)
        if origin is None:
            origin = self._origins[url.origin] = _Origin(url.origin)
        connection = self._take_idle(origin, loop)
        if connection is None:
            connection = await self._wait_for_connection(origin, url, limits, total_at)
        reply = connection.begin(request, head, limits, total_at)
        try:
            await reply.wait_for_head()
        except LLMUnavailableError:
            if not reply.keeps_slot:
                raise
        except BaseException:
            if reply.keeps_slot:
                self._free_place(origin)
            raise
        else:
            return reply
        connection = await self._connect(origin, url, limits, total_at)
        reply = connection.begin(request, head, limits, total_at)
        reply.sends = 2
        await reply.wait_for_head()
        return reply

    # For those who take an answer's bytes as they come (see net.reply.Receiver).

    def take(self, url: Url) -> Connection | None:
        """A kept connection to the place of ``url``, if there is one that can be used now."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._settle_on(loop)
        origin = self._origins.get(url.origin)
        return None if origin is None else self._take_idle(origin, loop)

    async def open(
        self, url: Url, limits: TimeLimits, total_at: float, *, in_kept_place: bool = False
    ) -> Connection:
        """A connection to the place of ``url``, new or freed by another; raises as ``send``.

        ``in_kept_place``: a receiver's ``keeps_slot`` was set, and this one takes its place.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._settle_on(loop)
        origin = self._origins.get(url.origin)
        if origin is None:
            origin = self._origins[url.origin] = _Origin(url.origin)
        if in_kept_place:
            return await self._connect(origin, url, limits, total_at)
        return await self._wait_for_connection(origin, url, limits, total_at)

    @property
    def channels(self) -> Channels:
        """Its connections by gRPC, which are closed with it."""
        if self._channels is None:
            from headrace.net.channels import Channels

            self._channels = Channels(self._tls, self._monotonic)
        return self._channels

    async def aclose(self) -> None:
        self._closed = True
        if self._channels is not None:
            await self._channels.aclose()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._loop is None or self._loop.is_closed():
            return
        for origin in self._origins.values():
            for waiter in origin.waiters:
                if not waiter.done():
                    origin.taken += 1  # given back when the waiter finds us closed
                    waiter.set_result(None)
            origin.waiters.clear()
        for connection in tuple(self._live):
            connection.fail(LLMUnavailableError(f"{connection.peer}: our transport was closed"))
        if self._live:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            await self._emptied.wait()

    # The connections' side.

    def released(self, connection: Connection) -> None:
        if self._closed:
            connection.drop()
            return
        origin = self._origins[connection.origin]
        while origin.waiters:
            waiter = origin.waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        assert self._loop is not None
        keep_s = self._keep_idle_s
        hint = connection.keep_alive_s()
        if hint is not None:
            keep_s = min(keep_s, hint)
        if keep_s <= 0:
            connection.drop()
            return
        connection.idle_until = self._loop.time() + keep_s
        origin.idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(keep_s, self._sweep)

    def lost(self, connection: Connection) -> None:
        self._live.discard(connection)
        if not self._live and self._emptied is not None:
            self._emptied.set()
        origin = self._origins.get(connection.origin)
        if origin is None:
            return
        if connection in origin.idle:
            origin.idle.remove(connection)
        if connection.adopted:
            self._free_place(origin)

    # Finding a connection.

    def _take_idle(self, origin: _Origin, loop: asyncio.AbstractEventLoop) -> Connection | None:
        idle = origin.idle
        while idle:
            connection = idle.pop()
            if connection.alive() and connection.idle_until > loop.time():
                return connection
            connection.drop()
        return None

    async def _wait_for_connection(
        self, origin: _Origin, url: Url, limits: TimeLimits, total_at: float
    ) -> Connection:
        while origin.taken >= self._max_connections:
            connection = await self._wait_in_queue(origin, limits, total_at)
            if connection is None:
                break
            if connection.alive():
                return connection
            connection.drop()  # the server closed it on its way to us
        else:
            origin.taken += 1
        return await self._connect(origin, url, limits, total_at)

    async def _wait_in_queue(
        self, origin: _Origin, limits: TimeLimits, total_at: float
    ) -> Connection | None:
        """A connection that became free, or ``None``: a place in which to open one."""
        assert self._loop is not None
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        origin.waiters.append(waiter)
        until, total = self._until(limits.queue_s, total_at)
        try:
            async with asyncio.timeout_at(until):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                connection = waiter.result()  # it came too late for us: the next one has it
                if connection is None:
                    self._free_place(origin)
                else:
                    self.released(connection)
            elif waiter in origin.waiters:
                origin.waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                seconds = (limits.total_s if total else limits.queue_s) or 0.0
                raise limit_error(origin.name, "queue_s", seconds, total=total) from None
            raise

    async def _connect(
        self, origin: _Origin, url: Url, limits: TimeLimits, total_at: float
    ) -> Connection:
        """Open a connection in a place that was taken for it."""
        peer = url.origin if url.unix_path is not None else f"{url.host}:{url.port}"
        if url.proxy is not None:
            peer += f" (through the proxy {url.proxy.host}:{url.proxy.port})"
        until, total = self._until(limits.connect_s, total_at)
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                connection = await self._open(url, peer)
        except BaseException as error:
            self._free_place(origin)
            if limit.expired() and isinstance(error, TimeoutError):
                seconds = (limits.total_s if total else limits.connect_s) or 0.0
                raise limit_error(peer, "connect_s", seconds, total=total) from None
            if isinstance(error, OSError | UnicodeError):
                raise _connect_error(peer, error) from error
            raise
        if not connection.lost:
            self._live.add(connection)
        if self._closed or not connection.alive():
            connection.drop()
            self._free_place(origin)
            how = "our transport was closed" if self._closed else "closed the connection at once"
            raise LLMUnavailableError(f"{peer}: {how}")
        if self._admits is not None and url.proxy is None and url.unix_path is None:
            address = connection.address()
            if not self._admits(url.host, address):
                connection.drop()
                self._free_place(origin)
                raise LLMUnavailableError(
                    f"{peer} is at {address}, to which no connection is admitted",
                    transient=False,
                    code="private_host",
                )
        connection.adopted = True
        return connection

    async def _open(self, url: Url, peer: str) -> Connection:
        if self._closed:
            raise LLMUnavailableError(f"{peer}: our transport is closed")
        assert self._loop is not None

        def connection() -> Connection:
            return Connection(self, url.origin, peer, self._monotonic)

        if url.unix_path is not None:
            return (await self._loop.create_unix_connection(connection, url.unix_path))[1]
        if url.scheme == "http":
            place = url.proxy or url
            return (await self._loop.create_connection(connection, place.host, place.port))[1]
        context = self._tls or default_context()
        if url.proxy is not None:
            return await self._tunnelled(connection, url, url.proxy, context)
        return (
            await self._loop.create_connection(
                connection, url.host, url.port, ssl=context, server_hostname=url.host
            )
        )[1]

    async def _tunnelled(
        self, connection: Callable[[], Connection], url: Url, proxy: Proxy, context: ssl.SSLContext
    ) -> Connection:
        from headrace.net.tunnel import open_tunnel

        assert self._loop is not None
        sock = await open_tunnel(url, proxy)
        try:
            made = await self._loop.create_connection(
                connection, sock=sock, ssl=context, server_hostname=url.host
            )
        except BaseException:
            sock.close()
            raise
        return made[1]

    def _free_place(self, origin: _Origin) -> None:
        """Give a place to open a connection in to the next in the queue, or back."""
        while origin.waiters:
            waiter = origin.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        origin.taken -= 1

    def _until(self, seconds: float | None, total_at: float) -> tuple[float | None, bool]:
        """When a phase must end, by the loop's clock, and whether the total limit says so."""
        assert self._loop is not None
        at = inf if seconds is None else self._loop.time() + seconds
        until = min(at, total_at)
        return (None if until == inf else until), total_at < at

    # Upkeep.

    def _sweep(self) -> None:
        """Close the connections that have rested too long and forget origins without any."""
        assert self._loop is not None
        now = self._loop.time() + 0.001  # uvloop's timers count in milliseconds
        earliest = inf
        for origin in tuple(self._origins.values()):
            for connection in tuple(origin.idle):
                if connection.idle_until <= now:
                    origin.idle.remove(connection)
                    connection.drop()
                else:
                    earliest = min(earliest, connection.idle_until)
            if not origin.taken:
                del self._origins[origin.name]
        self._sweeper = None
        if earliest < inf:
            self._sweeper = self._loop.call_at(earliest, self._sweep)

    def _settle_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    "this transport belongs to another event loop, which still runs; make one for"
                    " each loop"
                )
            # Its loop has ended without aclose: those connections cannot even be closed any more.
            self._origins.clear()
            self._live.clear()
            self._sweeper = None
            self._emptied = None
        self._loop = loop


def _connect_error(peer: str, error: OSError | UnicodeError) -> LLMError:
    if isinstance(error, UnicodeError):
        return LLMInvalidRequestError(f"{peer} is no host name: {error}")
    tls = tls_failure(error)
    if tls is None:
        return LLMUnavailableError(f"cannot connect to {peer}: {cause_of(error)}")
    # A wrong certificate is wrong the next time, too.
    transient = not tls.startswith("certificate")
    return LLMUnavailableError(f"TLS with {peer} failed: {tls}", transient=transient)
