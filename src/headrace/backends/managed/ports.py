"""A port that nobody else takes while we find out how to start the program that will have it."""

from __future__ import annotations

import socket
from collections import deque
from types import TracebackType
from typing import Self

_given: deque[int] = deque(maxlen=256)
"""The free ports that were given last. Who has one may take it only when its model is loaded, and the
system knows nothing of that."""


class HeldPort:
    """A port of this machine that is ours until ``close``; ``number`` 0 asks for a free one, which
    is none of those that were given so lately.

    Raises OSError where somebody has it.
    """

    def __init__(self, host: str, number: int = 0) -> None:
        self._socket = _bound(host, number)
        while not number and self._socket.getsockname()[1] in _given:
            with self._socket:  # let go only when another one is had
                self._socket = _bound(host, number)
        self.number: int = self._socket.getsockname()[1]
        if not number:
            _given.append(self.number)

    def close(self) -> None:
        """Let the program have it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bound(host: str, number: int) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Else a port could not be had again for a minute after its last server has ended.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, number))
    except OSError:
        held.close()
        raise
    return held
