"""The clients behind the handlers: one for all of this process, and one for each engine that we start.

Both live on the portal's loop. What runs in the box belongs to the process that has started it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from headrace.backends.local.first_use import OnFirstUse
from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.backends.row import Provider
from headrace.client.async_client import AsyncClient
from headrace.client.handlers.entries import Entry
from headrace.client.portal import portal
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.errors import LLMUnavailableError
from headrace.traffic.endpoint import EndpointSettings

T = TypeVar("T")

_ENDS_WITHIN_S = 20.0
_PLAIN = Provider(name="own", unsupported=frozenset())


class Running:
    """What this process has opened for handlers."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._client: AsyncClient | None = None
        self._engines: dict[Entry, AsyncClient] = {}
        self._local: dict[Entry, str] = {}
        self._of_parent: set[Entry] = set()

    def client(self) -> AsyncClient:
        """The client that all but engines of their own are asked by."""
        with self._lock:
            if self._client is None:
                self._client = AsyncClient()
                portal().keep(self._client, _ENDS_WITHIN_S)
            return self._client

    def asked(self, entry: Entry) -> tuple[AsyncClient, str | None]:
        """Who is asked for ``entry``, and by which name of a model; to ask opens what it needs."""
        if entry in self._of_parent:
            raise LLMUnavailableError(
                f"{entry.type} of {entry.model} was started by the process that this one was forked "
                "from, and is that one's alone; start processes by 'spawn', or ask it first here",
                transient=False,
                code="forked",
            )
        with self._lock:
            if entry.engine is not None:
                return self._own_client(entry), None
            if entry.remote is not None:
                return self.client(), f"{entry.remote}/{entry.model}"
            name = self._local.get(entry)
            if name is None:
                name = self._opened(entry)
            return self.client(), name

    def has_endpoint(self, name: str) -> bool:
        """Whether an endpoint of that name was made."""
        return self._client is not None and name in self._client.endpoints

    async def close(self, entry: Entry) -> None:
        """End what was opened for ``entry``; to ask for it again opens it anew."""
        with self._lock:
            engine = self._engines.pop(entry, None)
            name = self._local.pop(entry, None)
            client = self._client
        if engine is not None:
            portal().drop(engine)
            await engine.aclose()
        if name is not None and client is not None:
            await client.endpoints.let_go(name)

    async def close_all(self) -> None:
        """End all of it."""
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
            client, self._client, self._local = self._client, None, {}
        for each in (*engines, *(() if client is None else (client,))):
            portal().drop(each)
            await each.aclose()

    def in_child(self) -> Running:
        """What a forked child has: nothing, and no right to the engines of its parent."""
        fresh = Running()
        fresh._of_parent = {*self._local, *self._engines, *self._of_parent}
        return fresh

    def _own_client(self, entry: Entry) -> AsyncClient:
        assert entry.engine is not None
        client = self._engines.get(entry)
        if client is None:
            client = self._engines[entry] = AsyncClient(engine=entry.engine)
            portal().keep(client, entry.engine.stop_timeout_s + _ENDS_WITHIN_S)
        return client

    def _opened(self, entry: Entry) -> str:
        client, kind = self.client(), entry.kind
        name = f"{entry.type}/{entry.model}"
        if kind is None:
            assert entry.backend is not None
            client.endpoints.put_backend(
                name, entry.backend, _PLAIN, entry.model, _abilities(entry)
            )
        else:
            world = client.endpoints.world
            opens = partial(kind.load(), entry.model, str(entry.type), entry.task, world)
            client.endpoints.put_backend(
                name,
                OnFirstUse(f"{entry.model} on {entry.type}", opens, world.clock),
                LLAMA_CPP_SERVER,
                entry.model,
                _abilities(entry),
                # The first call waits until the model is there, however far it has to come.
                EndpointSettings(
                    max_running=kind.max_running,
                    queue_s=3600.0,
                    retry=None,
                    breaker=None,
                    total_s=None,
                ),
                max_tokens=kind.max_tokens,
            )
        self._local[entry] = name
        return name


def _abilities(entry: Entry) -> BackendCapabilities:
    """Nothing is refused on their account: whoever answers knows best."""
    return BackendCapabilities(
        streaming=True,
        tool_calling="best_effort",
        json_mode="prompt+validate",
        vision=False,
        max_context_tokens=None,
        embeddings=entry.task == "embeddings",
        known=False,
    )


def running() -> Running:
    """This process's own."""
    return _running


def has_endpoint(name: str) -> bool:
    """Whether an endpoint of that name was made for handlers."""
    return _running.has_endpoint(name)


def answered(work: Callable[[], Coroutine[Any, Any, T]]) -> Any:
    """The result of ``work`` on the portal; inside a running loop, what can be awaited for it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return portal().run(work)
    return portal().awaited(work)


def _renew() -> None:
    global _running  # noqa: PLW0603  one per process is the point
    _running = _running.in_child()


_running = Running()
os.register_at_fork(after_in_child=_renew)
