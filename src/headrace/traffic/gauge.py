"""How full an engine is, as it tells itself: asked for where somebody looks, and kept for a moment.

Others may send requests to the same engine, which only it knows of.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, cast, runtime_checkable

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import LLMError
from headrace.net.clock import Clock

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_FRESH_S = 5.0
_AGAIN_S = 10.0


@runtime_checkable
class TellsMetrics(Protocol):
    """A backend whose engines tell how they are."""

    @property
    def tells_metrics(self) -> bool:
        """Whether it is worth asking."""

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """Each engine's; none where none is known. It may take a second, and raise an LLMError.

        To ask starts no engine and keeps none from being stopped.
        """


def gauge_for(backend: object, clock: Clock) -> Gauge | None:
    """A gauge for ``backend``, where it tells anything."""
    tells = isinstance(backend, TellsMetrics) and backend.tells_metrics
    return Gauge(clock) if tells else None


class Gauge:
    """What the engines of one backend told last; always given that backend, as one may replace
    another at the same place.

    To look at it costs nothing and has it read anew behind the looker's back, once a second at
    most: so nobody is asked while nobody looks, and no request waits. An engine that does not
    answer is unknown, and is asked again after 10 s.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: tuple[EngineMetrics, ...] = ()
        self._told_at = self._again_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def look(self, backend: object) -> tuple[EngineMetrics, ...]:
        """What it told within the last 5 s."""
        now = self._clock.monotonic()
        if now >= self._again_at and self._asking is None:
            told = self._ask(cast(TellsMetrics, backend))
            self._asking = asyncio.get_running_loop().create_task(told)
        return self._told if now - self._told_at < _FRESH_S else ()

    async def read(self, backend: object, within_s: float) -> tuple[EngineMetrics, ...]:
        """The same, after an answer that is due has come, or has not within ``within_s``."""
        self.look(backend)
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=within_s)
        return self.look(backend)

    async def _ask(self, backend: TellsMetrics) -> None:
        asked = self._clock.monotonic()
        self._again_at = asked + _AGAIN_S
        try:
            told = await backend.metrics()
        except LLMError as error:
            log.debug("%s", error)
            told = ()
        finally:
            self._asking = None
        self._told, self._told_at = told, asked
        if told:
            self._again_at = asked + _EVERY_S
