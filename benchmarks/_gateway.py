"""``headrace serve`` that also watches how late its event loop is; for benchmarks.engines.

Says its URL in a line of JSON once it serves, and at each SIGUSR1 the lateness since the last one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time

import uvloop

from headrace.gateway.config import load
from headrace.gateway.logs import set_up
from headrace.gateway.server import serve_on
from headrace.stores.models import ModelStore

# Often enough for a P99 of some seconds, and less than one part in a hundred of a core.
_EVERY_S = 0.02


def say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def watch() -> None:
    """Sleep again and again; what it takes longer than asked is how late everybody else is too."""
    late: list[float] = []

    def tell() -> None:
        sorted_late = sorted(late) or [0.0]
        say(
            {
                f"p{q}_ms": sorted_late[min(len(sorted_late) - 1, len(sorted_late) * q // 100)]
                * 1e3
                for q in (50, 99, 100)
            }
        )
        late.clear()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(_EVERY_S)
        late.append(time.perf_counter() - begin - _EVERY_S)


def main() -> None:
    config = load()
    set_up(config.logging)
    file = ModelStore().find(config.engine.model)
    tasks = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def announce(models: list[str]) -> None:
            tasks.append(asyncio.get_running_loop().create_task(watch()))
            say({"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "models": models})

        uvloop.run(serve_on(listener, config, file, announce))


if __name__ == "__main__":
    main()
