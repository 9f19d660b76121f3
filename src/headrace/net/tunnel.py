"""A tunnel through an HTTP proxy (RFC 9110, 9.3.6): a socket whose other end is the target."""

from __future__ import annotations

import asyncio
import re
import socket

from headrace.contracts.errors import LLMBadResponseError
from headrace.net.proxy import refused_by
from headrace.net.transport import Proxy, Url

_HEAD_LIMIT = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}(?: [ -~]{0,100})?)")


async def open_tunnel(url: Url, proxy: Proxy) -> socket.socket:
    """A connected socket to ``url``'s host and port by way of ``proxy``.

    Raises OSError where the proxy is not reached, LLMUnavailableError where it refuses, and
    LLMBadResponseError where it speaks no HTTP.
    """
    loop = asyncio.get_running_loop()
    sock = await _connected(loop, proxy)
    try:
        host = f"[{url.host}]" if ":" in url.host else url.host
        lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        await loop.sock_sendall(sock, "\r\n".join([*lines, "\r\n"]).encode("ascii"))
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await loop.sock_recv(sock, _HEAD_LIMIT)
            head += piece
            if not piece or len(head) > _HEAD_LIMIT:
                raise _bad(proxy, "ended" if not piece else "is too long")
        status = _STATUS.match(head)
        if status is None:
            raise _bad(proxy, "is no HTTP")
        answer = status[1].decode("ascii").strip()
        if not answer.startswith("2"):
            raise refused_by(proxy, url, answer)
        if not head.endswith(b"\r\n\r\n") or head.count(b"\r\n\r\n") > 1:
            # Whoever speaks before TLS has begun is not the target.
            raise _bad(proxy, "goes on after its end")
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(loop: asyncio.AbstractEventLoop, proxy: Proxy) -> socket.socket:
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    last: OSError = OSError(f"{proxy.host} has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def _bad(proxy: Proxy, how: str) -> LLMBadResponseError:
    return LLMBadResponseError(
        f"the answer of the proxy {proxy.host}:{proxy.port} to CONNECT {how}", transient=True
    )
