"""A mock in a process of its own: it begins, says where it is, and ends at Ctrl-C with a summary."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable

from headrace.bench.mock.server import Mock
from headrace.bench.mock.settings import MockSettings


def serve(listener: socket.socket, settings: MockSettings, announce: Callable[[], None]) -> Mock:
    """Serve until SIGINT or SIGTERM; the mock that is returned says what happened."""
    import uvloop

    return uvloop.run(_serve(listener, settings, announce))


async def _serve(
    listener: socket.socket, settings: MockSettings, announce: Callable[[], None]
) -> Mock:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    mock = Mock(settings)
    # What is there now stays: the collector need not look through it while tokens are due.
    gc.freeze()
    listening = loop.create_task(mock.listen(listener, announce))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((listening, stopping), return_when=asyncio.FIRST_COMPLETED)
    if listening.done():
        listening.result()
        await stopping
    else:
        listening.cancel()
    await mock.close()
    return mock
