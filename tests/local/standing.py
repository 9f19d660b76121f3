"""An engine that takes a model's folder, on an event loop in a thread, for plain tests to ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from backends.two_engines import Heard, hear
from headrace.backends.local.folders.engine import FolderEngine
from headrace.backends.managed.opening import open_engine
from headrace.contracts.engine_entries import engine_of
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult
from headrace.net.clock import World
from headrace.net.scripted import ScriptedTransport

T = TypeVar("T")


class Standing:
    """One engine; ``ask`` waits for a whole answer, ``run`` for whatever it is given."""

    def __init__(self, folder: Path | str, backend: str, **fields: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        one_thread = {"OMP_NUM_THREADS": "1"}
        config = engine_of(
            {
                "name": "tiny",
                "backend": backend,
                "model": str(folder),
                "extra_env": one_thread,
                **fields,
            }
        )
        engine = open_engine(config, World(transport=ScriptedTransport([])))
        assert isinstance(engine, FolderEngine)
        self.engine = engine

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def ask(self, request: LLMRequest) -> Heard:
        return self.run(hear(self.engine, request))

    def ask_all(self, *requests: LLMRequest) -> list[Heard]:
        """All at once."""

        async def every() -> list[Heard]:
            return await asyncio.gather(*(hear(self.engine, request) for request in requests))

        return self.run(every())

    def embed(self, *inputs: str | tuple[int, ...], **settings: Any) -> EmbeddingResult:
        request = EmbeddingRequest(inputs=inputs, **settings)
        return self.run(self.engine.embed(request, Marks()))

    def stop(self) -> None:
        self.run(self.engine.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def standing(folder: Path | str, backend: str, **fields: Any) -> Iterator[Standing]:
    stands = Standing(folder, backend, **fields)
    try:
        yield stands
    finally:
        stands.stop()
