"""What a route knows of each of its backends: its price, how quick it was lately, how busy it is."""

from __future__ import annotations

from attrs import evolve, field, frozen

from headrace.gateway.route_config import WayConfig
from headrace.gateway.routes import Route, Way
from headrace.net.clock import Clock
from headrace.numbers.pace import Paces
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice
from headrace.traffic.routing.policies import Ordered
from headrace.traffic.routing.prices import published
from headrace.traffic.routing.prices import told as told_price


@frozen(kw_only=True)
class Known:
    """Where routes find out about backends; it outlives every reading of the configuration."""

    paces: Paces = field(factory=Paces)

    def candidate(
        self, way: Way, route: str, clock: Clock, told: WayConfig | None = None
    ) -> Candidate[Way]:
        """``way`` as one of those that ``route`` may choose, with what the configuration has
        ``told`` of it."""
        candidate = Candidate(
            way=way,
            price=published(way.lane.backend, clock),
            pace=self.paces.of(way.lane.name, route),
        )
        if told is None:
            return candidate
        price = candidate.price
        if told.input_price_usd is not None and told.output_price_usd is not None:
            price = told_price(told.input_price_usd, told.output_price_usd)
        return evolve(
            candidate,
            price=price,
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
