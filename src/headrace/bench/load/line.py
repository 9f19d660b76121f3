"""One connection to the target, with a socket of our own, so that the kernel's word can be had.

An event loop's transports read for their users and lose the instant at which bytes arrived. Here
each read asks for it. TLS goes over the same reads, in memory. What a read brought is thought about
later, by way of the owner's inbox, so that the other lines are read in time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from array import array
from fcntl import ioctl
from termios import FIONREAD
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from headrace.bench.load.apart import read_apart
from headrace.bench.load.clocks import ANCILLARY_BYTES, KernelClock, ask_for_receive_times
from headrace.bench.load.framing import Framed
from headrace.bench.load.inbox import Inbox
from headrace.contracts.errors import LLMError, LLMUnavailableError

if TYPE_CHECKING:
    import ssl

_READ_BYTES = 65536
_WAITING = array("i", [0])
"""Where the kernel writes how many bytes wait; one for all lines, for it is read at once."""


class Owner(Protocol):
    """Who uses lines; told of what happens on them, never from inside ``send``."""

    read_lags: list[float]
    inbox: Inbox

    def connected(self, line: Line) -> None:
        """It can carry a request."""

    def not_connected(self, line: Line, error: LLMError) -> None:
        """It could not be made."""

    def sent(self, line: Line) -> None:
        """The last byte of the request is the kernel's."""

    def answered(self, line: Line) -> None:
        """``line.answer`` is over."""

    def lost(self, line: Line) -> None:
        """It was closed while nothing was on it."""


class Place:
    """Where lines lead: an address, what to call it, and how it is secured."""

    def __init__(
        self,
        family: socket.AddressFamily,
        address: tuple[object, ...],
        peer: str,
        host: str,
        tls: ssl.SSLContext | None,
        *,
        kernel_times: bool,
    ) -> None:
        self.family, self.address = family, address
        self.peer, self.host, self.tls = peer, host, tls
        self.clock = KernelClock() if kernel_times else None


class Line:
    """A connection that is made, kept, and carries one request at a time."""

    __slots__ = (
        "_begun",
        "_clock",
        "_fd",
        "_inbox",
        "_incoming",
        "_latest",
        "_loop",
        "_outgoing",
        "_owner",
        "_place",
        "_rest",
        "_secured",
        "_sock",
        "_timer",
        "_tls",
        "answer",
        "call",
        "closed",
        "connect_s",
        "sent",
        "stamped",
        "used",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, owner: Owner) -> None:
        self.answer: Framed | None = None
        self.call: Any = None
        self.closed = False
        self.connect_s: float | None = None
        self.sent: float | None = None
        self.stamped = False
        self.used = 0
        self._loop, self._place, self._owner = loop, place, owner
        self._rest = b""
        self._tls: ssl.SSLObject | None = None
        self._incoming: Any = None
        self._outgoing: Any = None
        self._secured = place.tls is None
        self._timer: asyncio.TimerHandle | None = None
        self._clock = place.clock
        self._inbox = owner.inbox
        self._latest = 0.0

    def connect(self, within_s: float) -> None:
        """Begin to connect; the owner is told how it went."""
        self._begun = monotonic()
        try:
            self._sock = socket.socket(self._place.family, socket.SOCK_STREAM)
        except OSError as error:
            self.closed = True
            self._loop.call_soon(self._owner.not_connected, self, _no_socket(error))
            return
        sock = self._sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        if self._clock is not None:
            self.stamped = ask_for_receive_times(sock)
        self._timer = self._loop.call_later(within_s, self._too_slow, within_s)
        begun = sock.connect_ex(self._place.address)
        if begun in (0, errno.EINPROGRESS, errno.EINTR):
            self._loop.add_writer(self._fd, self._connected)
        else:
            self._loop.call_soon(self._not_connected, OSError(begun, errno.errorcode.get(begun)))

    def send(self, request: bytes, answer: Framed) -> None:
        """Send ``request``; ``answer`` takes what comes."""
        self.answer = answer
        self.used += 1
        self.sent = None
        self._latest = 0.0
        if self._tls is not None:
            self._tls.write(request)
            request = self._outgoing.read()
        self._write(request, first=True)

    def close(self) -> None:
        """Close it without a word to the owner."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()

    def _write(self, data: bytes, *, first: bool = False) -> None:
        # Before the call, not after: an answer can be here before the call is over.
        now = monotonic()
        try:
            taken = self._sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            # Found out when it is read, by who is told then; here we may be inside of ``send``.
            self._loop.call_soon(self._broken, error, self.used)
            return
        if taken == len(data):
            self._written(now)
        else:
            self._rest = data[taken:]
            if first or taken:
                self._loop.add_writer(self._fd, self._write_on)

    def _write_on(self) -> None:
        data, self._rest = self._rest, b""
        self._loop.remove_writer(self._fd)
        self._write(data, first=True)

    def _written(self, at: float) -> None:
        if self.answer is not None and self.sent is None:
            self.sent = at
            self._owner.sent(self)

    # Making it.

    def _connected(self) -> None:
        self._loop.remove_writer(self._fd)
        failed = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._not_connected(OSError(failed, ""))
            return
        self._loop.add_reader(self._fd, self._readable)
        if self._place.tls is None:
            self._ready()
            return
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._place.tls.wrap_bio(
            self._incoming, self._outgoing, server_hostname=self._place.host
        )
        self._shake_hands()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done and the line still there."""
        import ssl

        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()
            self._not_connected(error)
            return False
        self._flush()
        self._secured = True
        self._ready()
        return not self.closed

    def _flush(self) -> None:
        data = self._outgoing.read()
        if self._rest:
            self._rest += data
        elif data:
            self._write(data)

    def _ready(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.connect_s = monotonic() - self._begun
        self._owner.connected(self)

    def _too_slow(self, within_s: float) -> None:
        self._not_connected(TimeoutError(f"no connection within {within_s:g} s"))

    def _not_connected(self, error: Exception) -> None:
        if not self.closed:
            self.close()
            self._owner.not_connected(self, _unreachable(self._place.peer, error))

    # Reading.

    def _readable(self) -> None:
        try:
            answer = self.answer
            if self.stamped and answer is not None and self._tls is None:
                ioctl(self._fd, FIONREAD, _WAITING)
                if _WAITING[0] > 2 * answer.shortest:
                    self._read_apart(answer, _WAITING[0])
                    return
            if self.stamped:
                data, told, _, _ = self._sock.recvmsg(_READ_BYTES, ANCILLARY_BYTES)
            else:
                data = self._sock.recv(_READ_BYTES)
                told = []
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._loop.remove_reader(self._fd)
            now = monotonic()
            self._inbox.put(self._not_read, error, now, now)
            return
        now = at = monotonic()
        if told:
            at = self._instant(told[0][2], now)
            self._owner.read_lags.append(now - at)
        if not data:
            self._loop.remove_reader(self._fd)  # there is no more to come
        self._inbox.put(self._came, data, at, now)

    def _instant(self, told: bytes, now: float) -> float:
        clock = self._clock
        assert clock is not None
        clock.refresh(now)
        # Within what must be so: the two clocks are compared, and not the same; and what was
        # overtaken on its way is there when what was sent before it is.
        earliest = self._latest or self.sent or 0.0
        at = self._latest = min(max(clock.received(told), earliest), now)
        return at

    def _read_apart(self, answer: Framed, waiting: int) -> None:
        """More than a piece waits, so it may be late."""
        now = monotonic()
        parts = read_apart(
            self._sock, waiting, answer.shortest, now, lambda told: self._instant(told, now)
        )
        self._owner.read_lags.extend([now - at for _, at in parts])
        self._inbox.put(self._came_apart, parts, now, now)

    # Thinking about what was read.

    def _came(self, data: bytes, at: float) -> None:
        if self.closed:
            return
        if self._tls is None and self._secured:
            self._take(data, at)
        elif data or self._secured:
            self._decrypt(data, at)
        else:
            self._not_connected(ConnectionResetError("closed inside the TLS handshake"))

    def _came_apart(self, parts: list[tuple[bytes, float]], at: float) -> None:
        answer = self.answer
        if self.closed:
            return
        if answer is None:
            self._lose()
            return
        answer.feed_apart(parts)
        if answer.over:
            self._owner.answered(self)

    def _not_read(self, error: OSError, at: float) -> None:
        self._broken(error, self.used)

    def _decrypt(self, data: bytes, at: float) -> None:
        import ssl

        if not data:
            self._take(b"", at)
            return
        self._incoming.write(data)
        if not self._secured and not self._shake_hands():
            return
        assert self._tls is not None
        plain = []
        ended = False
        try:
            while piece := self._tls.read(_READ_BYTES):
                plain.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._broken(error, self.used)
            return
        if plain:
            self._take(b"".join(plain), at)
        if ended and not self.closed:
            self._take(b"", at)
        elif not self.closed:
            self._flush()  # an answer to a key update, say

    def _take(self, data: bytes, at: float) -> None:
        answer = self.answer
        if answer is None:
            self._lose()
        elif data:
            answer.feed(data, at)
            if answer.over:
                self._owner.answered(self)
        else:
            answer.at = at
            answer.close(self._place.peer)
            self._owner.answered(self)

    def _lose(self) -> None:
        """Closed in good order, or bytes that nobody asked for."""
        self.close()
        self._owner.lost(self)

    def _broken(self, error: Exception, used: int) -> None:
        if self.closed or used != self.used:
            return
        if not self._secured or self.connect_s is None:
            self._not_connected(error)
        elif self.answer is None:
            self._lose()
        else:
            self.answer.at = monotonic()
            self.answer.close(self._place.peer, f"broke the connection ({_words(error)})")
            self._owner.answered(self)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and not _is_tls(error):
        import os

        return os.strerror(error.errno)
    return str(error)


def _is_tls(error: Exception) -> bool:
    import sys

    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLError)


def _unreachable(peer: str, error: Exception) -> LLMUnavailableError:
    from headrace.net.tls import tls_failure

    said = tls_failure(error) if _is_tls(error) else None
    if said is not None:
        words = f"{peer}: TLS failed: {said}"
        if "certificate" in said:
            words += "; name its issuer with --ca-file, or do not look with --insecure"
        made: LLMUnavailableError = LLMUnavailableError(words)
    else:
        made = LLMUnavailableError(f"{peer} cannot be reached: {_words(error)}")
    made.__cause__ = error
    return made


def _no_socket(error: OSError) -> LLMUnavailableError:
    words = f"no more sockets: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        words += "; allow more open files (ulimit -n), or lower --concurrency or --at-most"
    made = LLMUnavailableError(words)
    made.__cause__ = error
    return made
