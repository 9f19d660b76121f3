"""One HTTP/1.1 connection: bytes of a request out, the parsed answer in, one at a time.

The parser is llhttp (in httptools), strict as it comes. What it leaves to its user is done here:
answers to HEAD, bodies that end with the connection, limits on headers, and bytes nobody asked for.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
from collections.abc import AsyncIterable, Callable
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMUnavailableError
from headrace.net.deadline import Deadline
from headrace.net.known_head import KnownHead
from headrace.net.reply import Http1Reply, Receiver
from headrace.net.tls import tls_failure
from headrace.net.transport import HttpRequest, TimeLimits

HEAD_LIMIT = 64 * 1024
# Up to this size the body is joined to the head: one copy is cheaper than a second system call.
_JOIN_LIMIT = 64 * 1024
_KEEP_ALIVE = re.compile(r"timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Owner(Protocol):
    """The pool, as its connections see it."""

    def released(self, connection: Connection) -> None:
        """The answer is complete and the connection can carry another request."""

    def lost(self, connection: Connection) -> None:
        """The socket is closed."""


class _Refused(Exception):
    """Stops the parser; ``Connection._complaint`` says why."""


class Connection(asyncio.Protocol):
    """A socket and the one exchange that is on it, if any."""

    __slots__ = (
        "_answered",
        "_closing",
        "_complaint",
        "_done",
        "_drained",
        "_framed",
        "_head_size",
        "_headers",
        "_in_body",
        "_interim",
        "_keep",
        "_keep_slot",
        "_known",
        "_limits",
        "_loop",
        "_method",
        "_monotonic",
        "_offer",
        "_offered_upgrade",
        "_owner",
        "_parser",
        "_paused",
        "_poll",
        "_quiet",
        "_received",
        "_reply",
        "_sender",
        "_transport",
        "_unsent",
        "adopted",
        "deadline",
        "idle_until",
        "lost",
        "origin",
        "peer",
        "used",
    )

    def __init__(
        self,
        owner: Owner,
        origin: str,
        peer: str,
        monotonic: Callable[[], float],
    ) -> None:
        self.origin = origin
        self.peer = peer
        self.adopted = False  # the pool counts it
        self.lost = False  # the socket is closed
        self.used = False
        self.idle_until = 0.0
        self.deadline: Deadline
        self._owner = owner
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._poll: select.poll | None = None
        self._parser = HttpResponseParser(self)
        self._known: KnownHead[dict[str, str]] = KnownHead()
        self._closing = False
        self._reply: Receiver | None = None
        self._limits: TimeLimits
        self._sender: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._unsent = 0  # bytes in the write buffer at the last look
        self._keep_slot = False
        self._method = ""
        self._headers: dict[str, str] = {}
        self._reset()

    def _reset(self) -> None:
        self._answered = False  # at least one byte came
        self._in_body = False
        self._done = False
        self._keep = False
        self._framed = True  # the body says where it ends
        self._interim = False
        self._offered_upgrade = False
        self._offer: str | None = None
        self._received = 0  # bytes of body
        self._quiet = 0  # bytes since the last of body: headers, chunk framing, trailers
        self._head_size = 0
        self._complaint = ""

    # The pool's side.

    def alive(self) -> bool:
        """Whether it can be written to, as far as this machine knows, the loop's backlog included."""
        if self._closing or self._transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)

    def address(self) -> str:
        """The address of the other side of a TCP connection."""
        return str(self._transport.get_extra_info("peername")[0])

    def begin(
        self, request: HttpRequest, head: bytes, limits: TimeLimits, total_at: float
    ) -> Http1Reply:
        """Send a request; the reply's head is still to be waited for."""
        reply = Http1Reply(self._loop, self, limits.idle_s, connection_reused=self.used)
        body = request.body
        if isinstance(body, bytes):
            self.carry(reply, request.method, head, body, limits, total_at)
            return reply
        self._expect(reply, request.method, limits, total_at)
        self._keep_slot = False
        self._transport.write(head)
        self._sender = self._loop.create_task(self._send_stream(body, reply))
        return reply

    def carry(
        self,
        reply: Receiver,
        method: str,
        head: bytes,
        body: bytes,
        limits: TimeLimits,
        total_at: float,
    ) -> None:
        """Send a request whose bytes are ready; ``reply`` is told of the answer as it comes."""
        self._expect(reply, method, limits, total_at)
        self._keep_slot = self.used
        if len(body) <= _JOIN_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        if self._drained is None:
            self._sent(reply)
        else:
            self._enter_sending()

    def fail(self, error: Exception) -> None:
        """End the exchange with ``error`` and close at once."""
        reply = self._reply
        self.drop()
        if reply is not None:
            reply.finish(error)

    def drop(self) -> None:
        """Close at once; what is still unsent is not sent."""
        self._reply = None
        self._stop_sending()
        if not self._closing:
            self._closing = True
            self.deadline.close()
            self._transport.abort()

    def keep_alive_s(self) -> float | None:
        """How long the server said it would keep this connection, in seconds, less a margin."""
        hint = self._headers.get("keep-alive")
        found = None if hint is None else _KEEP_ALIVE.search(hint)
        return None if found is None else int(found[1]) - 0.5

    def _expect(self, reply: Receiver, method: str, limits: TimeLimits, total_at: float) -> None:
        self._method = method
        self._headers = {}
        if self._answered:
            self._reset()
        self._reply = reply
        self._limits = limits
        self.deadline.begin(total_at, limits.total_s)

    # The reply's side.

    def pause(self) -> None:
        if not self._closing:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._transport.resume_reading()

    # Sending.

    def _sent(self, reply: Receiver) -> None:
        if not reply.status:
            reply.sent_at = self._monotonic()
            self.deadline.enter("first_byte_s", self._limits.first_byte_s)

    def _enter_sending(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline.enter("send_s", self._limits.idle_s)

    async def _send_stream(self, body: AsyncIterable[bytes], reply: Http1Reply) -> None:
        write = self._transport.write
        try:
            async for piece in body:
                if piece:
                    write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._drained is not None:
                    if not reply.status:
                        self._enter_sending()
                    await self._drained
                    if not reply.status:
                        self.deadline.rest()
            write(b"0\r\n\r\n")
            self._sent(reply)
        except Exception as error:  # noqa: BLE001 - the caller's generator may raise anything; it
            # is the caller, waiting for the reply, who gets to see it.
            if self._reply is reply:
                self.fail(error)

    def _stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        if self._reply is not None and self._sender is None:
            self._sent(self._reply)

    def _limit_missed(self) -> None:
        if self._reply is None:
            return
        error = self.deadline.error(self.peer)
        if self.deadline.phase == "send_s" and "total_s" not in error.message:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:  # slow, but it moves
                self._enter_sending()
                return
        self.fail(error)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self._transport = transport
        self.deadline = Deadline(self._loop, self._limit_missed)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            # Under TLS, bytes on an idle socket may be a session ticket; in the clear they mean
            # that the peer closed or talks out of turn.
            secure = transport.get_extra_info("ssl_object") is not None
            self._poll.register(sock.fileno(), _GONE if secure else _GONE | select.POLLIN)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:  # nobody asked
            self.drop()
            return
        is_first = not self._answered
        if is_first and self._method != "HEAD":
            body = self._known.body_of(data)
            if body is not None:
                self._read_known(reply, body)
                return
        self._answered = True
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if not self._offered_upgrade:
                self._fail_bad("the server switched protocols, which nobody asked for")
                return
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except HttpParserError as error:
            self._keep = False
            if not self._done:
                self._fail_bad(self._complaint or f"not HTTP/1.1: {error}")
                return
        if self._done:
            if is_first and self._keep:
                self._learn(data)
            self._finish()
        elif self._quiet > HEAD_LIMIT:
            self._fail_bad(self._too_large())

    def _read_known(self, reply: Receiver, body: bytes) -> None:
        """All of an answer came, with a head that the parser has found nothing special in."""
        headers, length = self._known.means, str(len(body))
        if headers["content-length"] != length:
            headers = headers | {"content-length": length}
        self._headers = headers
        reply.first_byte_at = self._monotonic()
        if not reply.sent_at:  # the answer overtook the request
            reply.sent_at = reply.first_byte_at
        self._reply = None
        reply.take_whole(200, headers, body)
        self._let_go(keep=True)

    def _learn(self, data: bytes) -> None:
        headers, size = self._headers, self._received
        if (
            self._parser.get_status_code() == 200
            and 0 < size < len(data)
            and headers.get("content-length", "") == str(size)
            and "transfer-encoding" not in headers
            and "upgrade" not in headers
        ):
            self._known.learn(data, data[-size:], headers)

    def eof_received(self) -> None:
        self._peer_gone(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer_gone(exc)
        # What would otherwise stay until the garbage collector finds the circle.
        del self._parser
        self._poll = None
        self._drained = None
        self.lost = True
        self._owner.lost(self)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._done:
            raise _Refused
        if self._reply is not None:
            self._reply.first_byte_at = self._monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # a trailer: none of our formats has any
            return
        self._head_size += len(name) + len(value) + 4
        if self._head_size > HEAD_LIMIT:
            self._complaint = self._too_large()
            raise _Refused
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        headers = self._headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._interim = True
            self._headers = {}
            return
        headers = self._headers
        if status == 101:
            self._complaint = "the server switched protocols, which nobody asked for"
            raise _Refused
        if self._offer is not None:
            headers["upgrade"] = self._offer
        elif "upgrade" in headers and self._parser.should_upgrade():
            self._offered_upgrade = True
            return
        self._in_body = True
        self._framed = (
            "content-length" in headers
            or headers.get("transfer-encoding", "").lower().endswith("chunked")
            or status in (204, 304)
        )
        reply = self._reply
        if reply is None:
            return
        if self._method == "HEAD":
            # llhttp is not told of HEAD and would wait for a body. It is left here; any byte it
            # still reports makes the connection unfit for another request.
            self._done = True
            self._keep = self._parser.should_keep_alive() and "transfer-encoding" not in headers
        if not reply.sent_at:  # the answer overtook the request
            reply.sent_at = reply.first_byte_at
        self.deadline.rest()
        reply.start(status, headers)

    def on_body(self, body: bytes) -> None:
        if self._done:
            self._keep = False
            return
        self._quiet = 0
        self._received += len(body)
        if self._reply is not None:
            self._reply.feed(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self._done and not self._offered_upgrade:
            self._done = True
            self._keep = self._parser.should_keep_alive()

    # Endings.

    def _finish(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.finish()
        self._let_go(keep=self._keep)

    def _let_go(self, *, keep: bool) -> None:
        """The answer is complete: the connection may carry another, or is closed."""
        if not (
            keep
            and not self._closing
            and self._transport.get_write_buffer_size() == 0
            and (self._sender is None or self._sender.done())
        ):
            self.drop()
            return
        self.deadline.end()
        self._sender = None
        if self._method == "HEAD":
            self._parser = HttpResponseParser(self)
        if self._paused:
            self.resume()
        self.used = True
        self._owner.released(self)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the answer again without the offer in it.

        Servers (Apache with HTTP/2) put ``Upgrade`` into ordinary answers to say what they could
        do; llhttp then takes the body for the other protocol's.
        """
        headers, version = self._headers, self._parser.get_http_version()
        self._offer = headers.pop("upgrade")
        status = self._parser.get_status_code()
        head = [f"HTTP/{version} {status} ", *(f"{k}: {v}" for k, v in headers.items())]
        self._headers = {}
        self._head_size = 0
        self._offered_upgrade = False
        self._parser = HttpResponseParser(self)
        self.data_received("\r\n".join([*head, "\r\n"]).encode("latin-1") + rest)

    def _peer_gone(self, exc: Exception | None) -> None:
        """The peer has closed its side, or the connection broke."""
        reply = self._reply
        if reply is None:
            self.drop()
        elif self._in_body and not self._framed and exc is None:
            self._done = True
            self._finish()
        else:
            if self._keep_slot and not self._answered:
                reply.keeps_slot = True
                self.adopted = False
            self.fail(self._gone_error(exc))

    def _gone_error(self, exc: Exception | None) -> LLMError:
        how = "closed the connection"
        if exc is not None:
            how = f"broke the connection ({tls_failure(exc) or cause_of(exc)})"
        if not self._answered:
            return _caused(LLMUnavailableError(f"{self.peer} {how} without an answer"), exc)
        where = "inside the answer's headers"
        if self._in_body:
            stated = self._headers.get("content-length")
            of = f" of {stated}" if stated else ""
            where = f"inside the answer's body, after {self._received}{of} bytes"
        if exc is not None:
            return _caused(LLMUnavailableError(f"{self.peer} {how} {where}"), exc)
        return LLMBadResponseError(f"{self.peer} {how} {where}", transient=True)

    def _fail_bad(self, complaint: str) -> None:
        self.fail(LLMBadResponseError(f"bad answer from {self.peer}: {complaint}"))

    def _too_large(self) -> str:
        where = "chunk framing or trailers" if self._in_body else "headers"
        return f"{where} of more than {HEAD_LIMIT} bytes"


def cause_of(error: Exception) -> str:
    """The system's word for it: loops put words of their own, or none, in its place."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _caused(error: LLMError, cause: Exception | None) -> LLMError:
    error.__cause__ = cause
    return error
