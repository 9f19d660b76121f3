"""A program that uses an engine: it says the engine's process id, and ends it with its own input.

``user.py STATE HOW FLAGS...`` where HOW is ``ask``, or ``keep`` to let it run on.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from backends.managed.engines import answer, managed, stand_in


async def main() -> None:
    state, how, *flags = sys.argv[1:]
    async with managed(stand_in(*flags), Path(state)) as engine:
        text = await answer(engine)
        if how == "keep":
            await engine.keep()
        print(text.split()[0], flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
