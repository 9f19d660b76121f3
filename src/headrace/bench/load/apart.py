"""Reads what waits on a socket in parts, so that each keeps the instant at which it came.

The kernel tells one instant a read: that of the last segment from which it took a byte. Who reads
late all that waits would give it to pieces that came long before. A part no longer than a piece is
in two segments at most, and where a piece begins in it, the later of them is that piece's own. What
the kernel has put together while it waited it gives one instant; no reader can take that apart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from headrace.bench.load.clocks import ANCILLARY_BYTES

_ON_TIME_S = 0.001
_MOST_PARTS = 64
"""A part costs a call of the kernel. What is so long that it takes more is no stream of tokens."""


def read_apart(
    sock: socket.socket,
    waiting: int,
    longest: int,
    now: float,
    instant: Callable[[bytes], float],
) -> list[tuple[bytes, float]]:
    """The ``waiting`` bytes, in parts of up to ``longest``, each with its instant.

    As soon as a part proves to have come just before ``now``, so has all that follows, and is read
    as one. ``instant`` reads what the kernel says beside the bytes.
    """
    parts: list[tuple[bytes, float]] = []
    held = b""
    on_time = False
    while waiting > 0:
        most = waiting if on_time or len(parts) == _MOST_PARTS else min(waiting, longest)
        data, told, _, _ = sock.recvmsg(most, ANCILLARY_BYTES)
        if not data:
            break
        waiting -= len(data)
        held += data
        if told:
            at = instant(told[0][2])
            parts.append((held, at))
            on_time = now - at < _ON_TIME_S
            held = b""
        # Where a segment's instant comes with its last byte only, its other parts wait for it.
    if held:
        parts.append((held, now))
    return parts
