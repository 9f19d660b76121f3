"""An engine that we start as a backend."""

from __future__ import annotations

from pathlib import Path

from headrace.backends.managed.adapters import adapter_for
from headrace.backends.managed.launch import Adapter
from headrace.backends.providers import Provider, provider
from headrace.contracts.engines import EngineConfig
from headrace.net.clock import World
from headrace.stores.secret import Secret


class Managed:
    """A Backend whose server is started when it is first used, and stopped when it is not any more.

    ``key`` is shown to it, where it asks for one. ``state`` is the folder in which processes of
    ours tell one another what they have started. ``adapter`` is the one of ``config.backend``,
    unless given.
    """

    def __init__(
        self,
        config: EngineConfig,
        world: World,
        *,
        adapter: Adapter | None = None,
        key: Secret | None = None,
        state: Path | None = None,
    ) -> None:
        self.config = config
        self.name = config.name
        self._adapter = adapter or adapter_for(config.backend)
        self._world, self._key, self._state = world, key, state

    @property
    def provider(self) -> Provider:
        """The row by which its server is asked."""
        return provider(self._adapter.provider)

    # To come: ensure_running() -> str (the base URL), stop(), keep(), snapshot() -> ServerSnapshot,
    # stream, embed, models, status, aclose.
