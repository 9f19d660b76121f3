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
    """Has ``gateway`` stand on the configuration as it is in its file now, each time it is asked.

    ``also`` is called with the file's text once the gateway stands on it, and waited for before
    that is told: it is for other processes that have to follow.
    """

    def __init__(
        self,
        gateway: Gateway,
        own: Own,
        world: World,
        source: Source,
        also: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._gateway, self._own, self._world = gateway, own, world
        self._source, self._also = source, also
        self._asked = asyncio.Event()

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
        try:
            text = await asyncio.to_thread(read_text, path)
            waiting = await self.stand_on(text)
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
        # In a thread: to read much YAML takes longer than a token may be late.
        standing, waiting = await asyncio.to_thread(self._read, text)
        gateway = self._gateway
        if standing.config.logging != gateway.config.logging:
            set_up(standing.config.logging)
        gateway.tally.declare(route.model for route in standing.routes)
        gateway.standing = standing
        patience_s = standing.config.server.drain_timeout_ms / 1000
        self._own.engines.stand(standing.engines, patience_s)
        return waiting

    def _read(self, text: str | None) -> tuple[Standing, tuple[str, ...]]:
        before = self._gateway.standing
        config, waiting = settled(self._source.config(text), before.config)
        return stand(config, self._own, self._world, before), waiting
