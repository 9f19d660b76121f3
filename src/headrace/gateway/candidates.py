"""What a route knows of each of its backends: its price, how quick it was lately, how busy it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from attrs import evolve, field, frozen

from headrace.backends.pricing import price_of
from headrace.backends.remote import Remote
from headrace.contracts.responses import Usage
from headrace.gateway.route_config import WayConfig
from headrace.gateway.routes import Route, Way
from headrace.net.clock import Clock
from headrace.numbers.pace import Paces
from headrace.traffic.routing.candidate import Candidate, PriceOf
from headrace.traffic.routing.choice import Choice
from headrace.traffic.routing.policies import Ordered

EngineLoad: TypeAlias = Callable[[str], int | None]
"""How many requests run and wait at the engine of a backend's name; ``None`` where unknown."""


def _nobody_tells(_: str) -> int | None:
    return None


@frozen(kw_only=True)
class Known:
    """Where routes find out about backends; it outlives every reading of the configuration."""

    paces: Paces = field(factory=Paces)
    engine_load: EngineLoad = _nobody_tells

    def candidate(
        self, way: Way, route: str, clock: Clock, told: WayConfig | None = None
    ) -> Candidate[Way]:
        """``way`` as one of those that ``route`` may choose, with what the configuration has
        ``told`` of it."""
        name = way.lane.name
        candidate = Candidate(
            way=way,
            price=_published(way, clock),
            pace=self.paces.of(name, route),
            engine_load=lambda: self.engine_load(name),
        )
        if told is None:
            return candidate
        return evolve(
            candidate,
            price=_told_price(told) or candidate.price,
            weight=told.weight,
            quality=told.quality,
            tags=frozenset(told.tags),
        )

    def limited(self, route: Route, clock: Clock) -> Route:
        """``route``, which leads to one backend, with what a caller's limits are held by."""
        if route.choice is not None:
            return route
        candidate = self.candidate(route.alone.ways[0], route.model, clock)
        return evolve(route, limited=Choice(route.model, [candidate], Ordered(), clock))


def load_prices(candidates: Iterable[Candidate[Way]]) -> None:
    """Have published prices at hand where a call will ask for them: to load them takes a while."""
    remotes = [each.way.lane.backend for each in candidates]
    if any(isinstance(each, Remote) and each.provider.prices for each in remotes):
        from headrace.numbers.price import load

        load()


def _published(way: Way, clock: Clock) -> PriceOf:
    remote = way.lane.backend
    provider, own = (
        (remote.provider.name, remote.model) if isinstance(remote, Remote) else (None, None)
    )

    def price(model: str | None, prompt_tokens: int, answer_tokens: int) -> float | None:
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_tokens)
        usd = price_of(provider, (own or model,), usage, clock.wall())
        return None if usd is None else float(usd)

    return price


def _told_price(told: WayConfig) -> PriceOf | None:
    input_usd, output_usd = told.input_price_usd, told.output_price_usd
    if input_usd is None or output_usd is None:
        return None

    def price(model: str | None, prompt_tokens: int, answer_tokens: int) -> float | None:
        return (prompt_tokens * input_usd + answer_tokens * output_usd) / 1e6

    return price
