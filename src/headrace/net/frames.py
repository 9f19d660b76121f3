"""Messages between our own processes: length-prefixed MessagePack over a private unix socket.

A frame is four bytes of length (little-endian) and that many bytes of MessagePack. What a length
may be is bounded, so that a peer that has lost its place cannot make us wait for gigabytes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

MOST_FRAME_BYTES = 16 << 20
"""A vocabulary of 256,000 tokens takes 3 MiB; nothing that we send is larger."""

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()
_M = TypeVar("_M")


class FrameError(ValueError):
    """What came is no frame of ours; the connection is of no more use."""


def write_frame(message: object) -> bytes:
    """``message`` as one frame; raises FrameError where it is too large for one, or holds a value
    (a number of more than 64 bits, half a surrogate pair) that MessagePack has no form for."""
    frame = bytearray(_LENGTH_BYTES)
    try:
        _encoder.encode_into(message, frame, _LENGTH_BYTES)
    except (OverflowError, UnicodeEncodeError) as error:
        raise FrameError(f"a message that cannot be written: {error}") from error
    size = len(frame) - _LENGTH_BYTES
    if size > MOST_FRAME_BYTES:
        raise FrameError(f"a message of {size} bytes; a frame holds at most {MOST_FRAME_BYTES}")
    frame[:_LENGTH_BYTES] = size.to_bytes(_LENGTH_BYTES, "little")
    return bytes(frame)


class FrameReader(Generic[_M]):
    """Takes bytes as they come and gives the messages of type ``kind`` that are whole."""

    def __init__(self, kind: type[_M] | Any, *, most_bytes: int = MOST_FRAME_BYTES) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._most_bytes = most_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[_M]:
        """The messages that ``data`` completes, to be taken at once.

        Raises FrameError, after what was whole before it, for what is no message of ours.
        """
        buffer = self._buffer
        buffer += data
        begin = 0
        try:
            while len(buffer) - begin >= _LENGTH_BYTES:
                body = begin + _LENGTH_BYTES
                size = int.from_bytes(buffer[begin:body], "little")
                if size > self._most_bytes:
                    raise FrameError(
                        f"a frame of {size} bytes; at most {self._most_bytes} are taken"
                    )
                if len(buffer) < body + size:
                    break
                begin = body + size
                try:
                    message = self._decode(bytes(buffer[body:begin]))
                except msgspec.MsgspecError as wrong:
                    raise FrameError(f"a frame that is no message of ours: {wrong}") from wrong
                yield message
        finally:
            del buffer[:begin]


class PrivateFolder:
    """A folder of this user alone, for a socket; ``close`` removes it with all that is in it."""

    def __init__(self) -> None:
        # Not below the current folder: a unix socket's path has room for about 100 bytes.
        self.path = Path(tempfile.mkdtemp(prefix="headrace-"))

    def close(self) -> None:
        """A second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)


def listen(path: Path) -> socket.socket:
    """A unix socket at ``path`` (what was there is replaced) that only this user may reach."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Between bind and chmod it would be open to others, so it is born private.
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(16)
    return listener


class FrameLink(asyncio.Protocol, Generic[_M]):
    """One end of such a connection inside an event loop.

    ``on_message`` is called with each message; ``on_lost`` once, with what broke the connection or
    ``None`` where it was closed.
    """

    def __init__(
        self,
        reader: FrameReader[_M],
        on_message: Callable[[_M], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._reader, self._on_message, self._on_lost = reader, on_message, on_lost
        self._transport: asyncio.WriteTransport | None = None
        self._broken: Exception | None = None

    @classmethod
    async def connect(
        cls,
        path: Path,
        reader: FrameReader[_M],
        on_message: Callable[[_M], None],
        on_lost: Callable[[Exception | None], None],
    ) -> FrameLink[_M]:
        """Reach the process that listens at ``path``; raises OSError where none does."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(
            lambda: cls(reader, on_message, on_lost), str(path)
        )
        return link

    def send(self, message: object) -> None:
        """Send ``message``, unless the connection is gone: then ``on_lost`` has told or will tell."""
        if self._transport is not None:
            self._transport.write(write_frame(message))

    def close(self) -> None:
        """End the connection; ``on_lost`` follows."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except FrameError as wrong:
            self._broken = wrong
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_lost(self._broken or error)
