"""What every engine's child does alike: it begins, listens to its parents, and ends with them.

Speaks the contract of ``headrace.backends.child`` for the start and end, and frames between.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from attrs import define, field

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.frames import FrameError, FrameReader, listen, write_frame

_M = TypeVar("_M")

# A parent that reads nothing for so long is stuck, and its answers are of no use any more.
_SEND_S = 30.0
_READ_BYTES = 1 << 16
_GIST = 500


class Running(Protocol):
    """An engine that has loaded its model."""

    def run(self) -> int:
        """Serve until standard input ends; the exit status."""


def run_child(load: Callable[[dict[str, Any]], Running]) -> NoReturn:
    """Be the child: read the settings, ``load`` the engine by them, say so, and run it."""
    # An engine takes every core that there is; whoever hands its tokens on goes before it.
    os.nice(5)
    settings = json.loads(sys.stdin.buffer.readline())
    # The engine may print to standard output, where only our answer belongs.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        engine = load(settings)
    except Exception as failure:  # noqa: BLE001  whatever it was, the parent must hear of it
        # What is wrong with the settings or the model will be wrong the next time, too.
        is_final = isinstance(failure, LLMInvalidRequestError)
        said = {"error": str(failure) if is_final else gist(failure), "final": is_final}
        answer.write(json.dumps(said) + "\n")
        answer.flush()
        os._exit(1)
    try:
        answer.write(json.dumps({"ready": {"socket": settings["socket"]}}) + "\n")
        answer.flush()
    except OSError:  # the parent died while the model was loading
        os._exit(0)
    # Not a return: tearing an engine down takes longer than anybody waits for.
    os._exit(engine.run())


def gist(failure: Exception) -> str:
    """The gist of an engine's error: it may come with the path of its source file."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {' '.join(lines)[-_GIST:] or 'no reason given'}"


@define(eq=False)
class Peer(Generic[_M]):
    """One connection, and what is under way for it by the ids that it gave."""

    socket: socket.socket
    reader: FrameReader[_M]
    asked: dict[int, Any] = field(factory=dict)


class Peers(Generic[_M]):
    """Who is connected to the socket at ``path``; each is told ``hello`` first.

    ``on_message`` is called with each message of type ``kind``, ``on_parted`` when one has left,
    with what was under way for it.
    """

    def __init__(
        self,
        path: Path,
        kind: type[_M] | Any,
        hello: object,
        *,
        on_message: Callable[[Peer[_M], _M], None],
        on_parted: Callable[[Peer[_M]], None],
    ) -> None:
        self._kind, self._hello = kind, hello
        self._on_message, self._on_parted = on_message, on_parted
        self._peers: dict[int, Peer[_M]] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listen(path)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def all(self) -> list[Peer[_M]]:
        """Those who are connected now."""
        return list(self._peers.values())

    def take(self, *, wait: bool) -> bool:
        """Take what has come, after a ``wait`` for something where asked to.

        False: standard input has ended, and so shall we.
        """
        for key, _ in self._selector.select(None if wait else 0):
            if key.fileobj == 0:
                if not os.read(0, _READ_BYTES):
                    return False
            elif key.fileobj is self._listener:
                self._welcome()
            else:
                self._listen_to(key.data)
        return True

    def send(self, peer: Peer[_M], message: object) -> None:
        """Send ``message``; one who does not take it is parted with."""
        try:
            peer.socket.sendall(write_frame(message))
        except OSError as broken:
            sys.stderr.write(f"a connection broke: {broken}\n")
            self._part_with(peer)

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_SEND_S)
        peer = Peer(connection, FrameReader[_M](self._kind))
        self._peers[connection.fileno()] = peer
        self._selector.register(connection, selectors.EVENT_READ, peer)
        self.send(peer, self._hello)

    def _listen_to(self, peer: Peer[_M]) -> None:
        try:
            data = peer.socket.recv(_READ_BYTES)
            messages = list(peer.reader.feed(data))
        except (OSError, FrameError) as broken:
            sys.stderr.write(f"a connection broke: {broken}\n")
            data, messages = b"", []
        for message in messages:
            self._on_message(peer, message)
        if not data:
            self._part_with(peer)

    def _part_with(self, peer: Peer[_M]) -> None:
        if self._peers.pop(peer.socket.fileno(), None) is None:
            return
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._on_parted(peer)
        peer.asked.clear()
