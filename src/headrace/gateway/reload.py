"""Reading the configuration again while requests are answered: what changes, and what has to wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import evolve, fields

from headrace.contracts.errors import LLMError
from headrace.gateway.app import Gateway
from headrace.gateway.build import Own, stand
from headrace.gateway.config import Config, read_text
from headrace.gateway.logs import set_up
from headrace.gateway.overlay import NO_OVERLAY, Change, Overlay
from headrace.gateway.source import Source
from headrace.gateway.standing import Standing
from headrace.net.clock import World

log = logging.getLogger(__name__)

# Sections and fields that were built into what runs: engines, queues, files, the socket.
_FIXED_SECTIONS = (
    "engine",
    "embeddings",
    "audio",
    "batching",
    "records",
    "responses",
    "profiles",
    "batches",
)
_FIXED_SERVER = ("host", "port", "workers", "max_connections", "page")


def settled(new: Config, running: Config) -> tuple[Config, tuple[str, ...]]:
    """``new`` as far as it can be had without a restart, and what of it has to wait for one."""
    waiting = [
        f"{section}.{each.name}"
        for section in _FIXED_SECTIONS
        for each in fields(type(getattr(new, section)))
        if getattr(getattr(new, section), each.name)
        != getattr(getattr(running, section), each.name)
    ]
    fixed = {name: getattr(running.server, name) for name in _FIXED_SERVER}
    waiting += [f"server.{name}" for name in fixed if getattr(new.server, name) != fixed[name]]
    kept = {section: getattr(running, section) for section in _FIXED_SECTIONS}
    return evolve(new, server=evolve(new.server, **fixed), **kept), tuple(waiting)


class Reload:
    """Has ``gateway`` stand on the configuration as it is in its file now, each time it is asked, and
    on what is said of endpoints meanwhile.

    ``config`` is what it stands on at first. ``also`` and ``tell`` are called with the file's text,
    or with what is said of endpoints, once the gateway stands on it, and waited for before that is
    told: they are for other processes that have to follow.
    """

    def __init__(
        self,
        gateway: Gateway,
        own: Own,
        world: World,
        source: Source,
        config: Config,
        also: Callable[[str], Awaitable[None]] | None = None,
        tell: Callable[[Overlay], Awaitable[None]] | None = None,
        overlay: Overlay = NO_OVERLAY,
    ) -> None:
        self._gateway, self._own, self._world = gateway, own, world
        self._source, self._also, self._tell = source, also, tell
        self.base = config
        self.overlay = overlay
        self._asked = asyncio.Event()
        self._changing = asyncio.Lock()

    def ask(self) -> None:
        """Read it again, soon; to be asked once more before that has begun changes nothing."""
        self._asked.set()

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._gateway.draining:
                continue
            try:
                await self._again()
            except Exception:
                # A mistake of ours must not keep the next one from being tried.
                log.exception("the configuration could not be read again")

    async def _again(self) -> None:
        path = self._source.path
        if path is None:
            log.warning("there is no configuration file to read again: everything stays as it was")
            return
        async with self._changing:
            try:
                text = await asyncio.to_thread(read_text, path)
                waiting = await self._read_and_stand(text)
            except LLMError as wrong:
                log.error("the configuration is wrong and everything stays as it was: %s", wrong)
                return
            if self._also is not None:
                await self._also(text)
        later = f"; these wait for a restart: {', '.join(waiting)}" if waiting else ""
        log.info("the configuration was read again from %s%s", path, later)

    async def stand_on(self, text: str | None) -> tuple[str, ...]:
        """Answer the next request by ``text``; what of it has to wait for a restart.

        Raises LLMInvalidRequestError or LLMAuthError, and changes nothing, where it is wrong.
        """
        async with self._changing:
            return await self._read_and_stand(text)

    async def change(self, change: Change) -> None:
        """Answer the next request by what ``change`` makes of the endpoints; raises as ``stand_on``."""
        async with self._changing:
            overlay = change(self.overlay, self.base)
            await self._stand(self.base, overlay)
            if self._tell is not None:
                await self._tell(overlay)

    async def lay(self, overlay: Overlay) -> None:
        """Answer the next request by ``overlay``; raises as ``stand_on``."""
        await self.change(lambda *_: overlay)

    async def _read_and_stand(self, text: str | None) -> tuple[str, ...]:
        def read() -> tuple[Config, tuple[str, ...]]:
            return settled(self._source.config(text), self.base)

        # In a thread: to read much YAML takes longer than a token may be late.
        config, waiting = await asyncio.to_thread(read)
        await self._stand(config, self.overlay)
        return waiting

    async def _stand(self, config: Config, overlay: Overlay) -> None:
        def made() -> Standing:
            return stand(overlay.over(config), self._own, self._world, self._gateway.standing)

        standing, gateway = await asyncio.to_thread(made), self._gateway
        if standing.config.logging != gateway.config.logging:
            set_up(standing.config.logging)
        gateway.tally.declare(route.model for route in standing.routes)
        gateway.standing = standing
        self.base, self.overlay = config, overlay
        patience_s = standing.config.server.drain_timeout_ms / 1000
        self._own.engines.stand(standing.engines, patience_s)
