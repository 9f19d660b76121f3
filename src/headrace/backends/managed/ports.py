"""A port that nobody else takes while we find out how to start the program that will have it."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self


class HeldPort:
    """A port of this machine that is ours until ``close``; ``number`` 0 asks for a free one.

    Raises OSError where somebody has it.
    """

    def __init__(self, host: str, number: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Else a port could not be had again for a minute after its last server has ended.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, number))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

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
