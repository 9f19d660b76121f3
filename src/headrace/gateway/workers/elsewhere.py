"""Models that another process serves: a worker knows their names, and asks nobody by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMUnavailableError
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.gateway.config import Config
from headrace.gateway.engines import PlacedEngine, engine_route
from headrace.gateway.routes import Route
from headrace.gateway.workers.messages import Model
from headrace.net.clock import World
from headrace.traffic.admission import Admission
from headrace.traffic.lane import Lane


class Elsewhere:
    """A Backend in name only: whatever asks for it is handed to the process that has it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """Nothing: a request that came so far has taken a wrong way."""
        raise LLMUnavailableError(f"{self.name} is another process' to ask")

    async def models(self) -> tuple[ModelInfo, ...]:
        """None that it could tell of."""
        return ()

    async def status(self) -> BackendStatus:
        """That it cannot be asked here."""
        return BackendStatus(ok=False, message=f"{self.name} is another process'")

    async def aclose(self) -> None:
        """Nothing to give back."""


def elsewhere(model: Model | None) -> Route | None:
    """The route that stands for ``model`` in a worker."""
    if model is None:
        return None
    return _stands_for(model.name, model.patterns, model.created)


def _stands_for(name: str, patterns: tuple[str, ...], created: int) -> Route:
    door = Admission(max_running=1, max_waiting=0, timeout_s=0.0)
    return Route(
        model=name,
        patterns=patterns,
        created=created,
        lane=Lane(backend=Elsewhere(name), admission=door),
    )


class EnginesElsewhere:
    """The engines that another process starts: an EngineHome of names."""

    def place(
        self, config: Config, world: World, before: Sequence[PlacedEngine]
    ) -> tuple[PlacedEngine, ...]:
        """The names of every engine of ``config``."""
        created = int(world.clock.wall())
        return tuple(
            PlacedEngine(
                entry=entry, route=engine_route(entry, _stands_for(entry.name, (), created))
            )
            for entry in config.engines
        )

    def stand(self, placed: tuple[PlacedEngine, ...], patience_s: float) -> None:
        """Nothing: the other process does."""


def is_elsewhere(route: Route) -> bool:
    """Whether a request for ``route`` is to be handed on: where one of its backends is not here."""
    return any(isinstance(lane.backend, Elsewhere) for lane in route.lanes())
