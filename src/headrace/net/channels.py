"""Calls by gRPC: one connection to each server, kept for the calls to come.

grpcio, the extra ``grpc``, is loaded by the first call. It repeats nothing by itself: whether a call is
made once more is for those above.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.net.deadline import limit_error
from headrace.net.tls import default_context
from headrace.net.transport import Headers, TimeLimits, Url

if TYPE_CHECKING:
    import ssl

    import grpc.aio

_MOST_ANSWER_BYTES = 64 << 20
_IDLE_MS = 30_000
TOO_LARGE = "Received message larger than max"
"""What grpcio says at either end."""


@frozen(kw_only=True)
class GrpcAnswer:
    """What came of a call: ``code`` is its status by gRPC's name, ``body`` the message where it is OK
    and ``said`` the server's words where it is not. ``first_byte_at`` is ``None`` where nothing came.
    """

    code: str
    body: bytes = field(default=b"", repr=False)
    said: str = ""
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    sent_at: float
    first_byte_at: float | None


def require_grpc(needed_by: str) -> None:
    """Raise LLMInvalidRequestError where grpcio is not installed."""
    if find_spec("grpc") is None:
        raise LLMInvalidRequestError(
            f"{needed_by} needs grpcio: pip install 'headrace[grpc]'", param="base_url"
        )


class Channels:
    """Connections to servers of gRPC. ``tls`` has the roots that they are verified against.

    They belong to the event loop of the first call; one that nobody uses for half a minute is closed,
    and opened again by the next call.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tls, self._monotonic = tls, monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[str, grpc.aio.Channel] = {}
        self._closed = False

    async def call(
        self, url: Url, method: str, message: bytes, metadata: Headers, limits: TimeLimits
    ) -> GrpcAnswer:
        """The answer of the server at ``url`` to ``method``, whatever its status.

        Raises LLMUnavailableError, LLMTimeoutError (naming the phase) or LLMBadResponseError where
        the answer is too large. Cancelling it ends the call.
        """
        # Whatever goes wrong comes to us as an error; grpcio would write it to the terminal too.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        loop = asyncio.get_running_loop()
        peer, channel = f"{url.host}:{url.port}", self._channel(url, loop)
        phase = _phases(peer, limits, loop)
        call: Any = None
        sent_at, first_byte_at = self._monotonic(), None
        try:
            try:
                async with phase("connect_s"):
                    connected = await _connected(channel)
            except LLMError:
                self._forget(url, channel)
                raise
            if not connected:
                self._forget(url, channel)
            sent_at = self._monotonic()
            call = channel.unary_unary(method)(message, metadata=metadata)
            async with phase("first_byte_s"):
                headers = _plain(await call.initial_metadata())
            first_byte_at = self._monotonic()
            async with phase("idle_s"):
                body = await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _closed(peer) from None  # grpcio says so of a call whose channel was closed
        except grpc.aio.UsageError:
            raise _closed(peer) from None
        except grpc.aio.AioRpcError as failed:
            code, said = failed.code().name, failed.details() or ""
            if code == "RESOURCE_EXHAUSTED" and TOO_LARGE in said and "SERVER" not in said:
                raise LLMBadResponseError(
                    f"{peer}: the answer is larger than {_MOST_ANSWER_BYTES} bytes"
                ) from None
            told = _plain(failed.initial_metadata()) | _plain(failed.trailing_metadata())
            return GrpcAnswer(
                code=code,
                said=said,
                headers=told,
                sent_at=sent_at,
                # What grpcio says by itself is that nobody answers.
                first_byte_at=None if code == "UNAVAILABLE" and not told else first_byte_at,
            )
        finally:
            if call is not None:
                call.cancel()
        return GrpcAnswer(
            code="OK", body=body, headers=headers, sent_at=sent_at, first_byte_at=first_byte_at
        )

    async def aclose(self) -> None:
        """Close every connection, and end the calls on them."""
        self._closed = True
        opened, self._open = list(self._open.values()), {}
        if self._loop is asyncio.get_running_loop():
            for channel in opened:
                await channel.close()

    def _forget(self, url: Url, channel: grpc.aio.Channel) -> None:
        """Let the next call begin anew: a channel that failed waits longer and longer between its
        attempts, and calls fail until then. Those that have it are let go on."""
        if self._open.get(url.origin) is channel:
            del self._open[url.origin]

    def _channel(self, url: Url, loop: asyncio.AbstractEventLoop) -> grpc.aio.Channel:
        if self._closed:
            raise _closed(f"{url.host}:{url.port}")
        if loop is not self._loop:
            self._loop, self._open = loop, {}
        channel = self._open.get(url.origin)
        if channel is None:
            channel = self._open[url.origin] = self._opened(url)
        return channel

    def _opened(self, url: Url) -> grpc.aio.Channel:
        import grpc

        host = f"[{url.host}]" if ":" in url.host else url.host
        target = f"dns:///{host}:{url.port}"
        options = [
            ("grpc.max_receive_message_length", _MOST_ANSWER_BYTES),
            ("grpc.max_send_message_length", -1),
            # Its own choices of proxies and of repeating calls; both are made elsewhere.
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            # Connections are not shared with other clients in this program.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.client_idle_timeout_ms", _IDLE_MS),
        ]
        if url.scheme == "http":
            return grpc.aio.insecure_channel(target, options=options)
        roots = _roots(self._tls or default_context())
        return grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(root_certificates=roots), options=options
        )


def _phases(
    peer: str, limits: TimeLimits, loop: asyncio.AbstractEventLoop
) -> Callable[[str], AbstractAsyncContextManager[None]]:
    """Bounds what is done within it, by the field of ``limits`` that it is called with."""
    until = inf if limits.total_s is None else loop.time() + limits.total_s

    @asynccontextmanager
    async def phase(name: str) -> AsyncIterator[None]:
        seconds: float | None = getattr(limits, name)
        at = inf if seconds is None else loop.time() + seconds
        limit = asyncio.timeout_at(None if min(at, until) == inf else min(at, until))
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            total = until <= at
            ran_out = (limits.total_s if total else seconds) or 0.0
            raise limit_error(peer, name, ran_out, total=total) from None

    return phase


async def _connected(channel: grpc.aio.Channel) -> bool:
    """Whether a connection is had; where none can be, a call itself tells why."""
    import grpc

    states = grpc.ChannelConnectivity
    ends = (states.READY, states.TRANSIENT_FAILURE, states.SHUTDOWN)
    while (state := channel.get_state(try_to_connect=True)) not in ends:
        await channel.wait_for_state_change(state)
    return state is states.READY


def _roots(context: ssl.SSLContext) -> bytes | None:
    """The certificates that ``context`` trusts; ``None``, which are grpcio's own, if it has none."""
    import ssl

    found = {ssl.DER_cert_to_PEM_cert(each) for each in context.get_ca_certs(binary_form=True)}
    folder = ssl.get_default_verify_paths().capath
    if context is default_context() and folder is not None:
        # OpenSSL reads those of a folder when it meets them.
        for path in Path(folder).glob("????????.[0-9]"):
            found.add(path.read_text(encoding="ascii", errors="replace"))
    return "\n".join(sorted(found)).encode() or None


def _plain(metadata: Any) -> dict[str, str]:
    return {str(key): value for key, value in metadata or () if isinstance(value, str)}


def _closed(peer: str) -> LLMError:
    return LLMUnavailableError(f"{peer}: our transport was closed")
