"""Time limits of connections: one timer that looks at all of them now and then.

A timer for each request would cost more than reading it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from headrace.gateway.config import ServerConfig
from headrace.gateway.protocol import HttpProtocol

_MOST_TICK_S = 1.0


class Sweep:
    """Tells each of ``connections`` that is ``too_late``.

    ``server`` gives the limits as they are now; ``keep_alive_s`` is for the next request to come.
    """

    def __init__(
        self,
        connections: Iterable[object],
        server: Callable[[], ServerConfig],
        keep_alive_s: float,
    ) -> None:
        self._connections = connections
        self._server = server
        self._keep_alive_s = keep_alive_s
        self._timer: asyncio.TimerHandle | None = None
        self._suspects: set[HttpProtocol] = set()
        """Late at the last look. A loop that was itself held up must first see what the sockets
        have, before anybody is called late."""

    def begin(self) -> None:
        """Look from now on; needs the running loop."""
        tick_s = min(_MOST_TICK_S, *(limit_s / 4 for limit_s in self._limits_s().values()))
        self._timer = asyncio.get_running_loop().call_later(tick_s, self._look)

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _limits_s(self) -> dict[str, float]:
        server = self._server()
        return {
            "head": server.header_timeout_ms / 1000,
            "body": server.body_timeout_ms / 1000,
            "request": self._keep_alive_s,
        }

    def _look(self) -> None:
        now, limits_s = asyncio.get_running_loop().time(), self._limits_s()
        suspects, self._suspects = self._suspects, set()
        for connection in tuple(self._connections):
            assert isinstance(connection, HttpProtocol)
            what = connection.waits_for
            if what is None or now - connection.waits_since <= limits_s[what]:
                continue
            if connection in suspects:
                connection.too_late()
            else:
                self._suspects.add(connection)
        self.begin()
