"""Routes over several backends, from what the configuration says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from attrs import evolve

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.candidates import Known
from headrace.gateway.config import Config
from headrace.gateway.hedge_config import hedging_of
from headrace.gateway.route_config import RouteConfig, WayConfig, is_pattern
from headrace.gateway.routes import Route, Way
from headrace.net.clock import Clock
from headrace.traffic.health import Health
from headrace.traffic.lane import Lane
from headrace.traffic.retry import RetryBudget
from headrace.traffic.routing.affinity import Affinity, Prefix, Session
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice
from headrace.traffic.routing.policies import Policy, Weighted, policy_named
from headrace.traffic.routing.prices import load_prices


def join(
    config: Config,
    singles: Sequence[Route],
    clock: Clock,
    random: Random,
    known: Known,
    before: Iterable[Lane] = (),
) -> list[Route]:
    """The routes of ``config.routes``, and behind them ``singles``, which lead to one backend each.

    A name that both have is the former's; a backend without a name left is reached by them alone.
    A lane of which the same was said ``before`` is as well or ill as it was.
    """
    kept = {id(lane.admission): lane for lane in before if lane.health is not None}
    members = {way.backend for route in config.routes for way in route.backends}
    ratios = {backend.name: backend.retry_ratio for backend in config.backends}
    singles = [
        evolve(route, lane=_member(route.lane, kept.get(id(route.lane.admission)), clock, ratios))
        if route.lane.name in members
        else route
        for route in singles
    ]
    single = {route.lane.name: route for route in singles}
    several = [_several(route, single, clock, random, known) for route in config.routes]
    taken = {name for route in several for name in (route.model, *route.patterns)}
    left = (_without(taken, route) for route in singles)
    return [*several, *(route for route in left if route is not None)]


def _member(lane: Lane, same: Lane | None, clock: Clock, ratios: Mapping[str, float]) -> Lane:
    """``lane`` with what it needs as one of several; the ``same`` one may have it already."""
    if same is not None:
        if same.backend is lane.backend:
            return same
        return evolve(lane, health=same.health, budget=same.budget)
    budget = lane.budget or RetryBudget(clock, ratio=ratios.get(lane.name, 0.1))
    return evolve(lane, health=Health(clock), budget=budget)


def _several(
    config: RouteConfig, single: dict[str, Route], clock: Clock, random: Random, known: Known
) -> Route:
    candidates = [
        known.candidate(_way(each, single, config.name), config.name, clock, each)
        for each in config.backends
    ]
    if config.policy in ("lowest_cost", "task_profile"):
        load_prices(each.way.lane.backend for each in candidates)
    choice = Choice(
        config.name,
        candidates,
        _policy(config, candidates, random),
        clock,
        affinity=_affinity(config),
        allow_unknown=config.unknown == "allow",
        unbounded=config.answer_tokens,
    )
    return Route(
        model=config.name,
        lane=choice.lanes[0],
        patterns=config.aliases,
        passes_names=True,
        created=int(clock.wall()),
        choice=choice,
        hedging=hedging_of(config.hedge),
    )


def _policy(config: RouteConfig, candidates: list[Candidate[Way]], random: Random) -> Policy:
    if config.policy == "weighted":
        return Weighted(candidates, random)
    return policy_named(config.policy, random, config.latency_of)


def _affinity(config: RouteConfig) -> Affinity | None:
    match config.affinity:
        case "session":
            return Affinity(Session(config.session_by), config.affinity_load)
        case "prefix":
            return Affinity(Prefix(config.prefix_bytes), config.affinity_load)
    return None


def _way(config: WayConfig, single: dict[str, Route], name: str) -> Way:
    route = single.get(config.backend)
    if route is None:
        raise LLMInvalidRequestError(
            f"route {name!r}: unknown backend {config.backend!r}; known: {', '.join(single)}",
            param="routes",
        )
    return Way(
        lane=route.lane,
        model=config.model or (None if route.passes_names else route.model),
        format=route.format,
        defaults=route.defaults,
    )


def _without(taken: set[str], route: Route) -> Route | None:
    """``route`` under the names that it has left."""
    patterns = tuple(name for name in route.patterns if name not in taken)
    if route.model not in taken:
        return evolve(route, patterns=patterns)
    names = [name for name in (*patterns, route.lane.name) if not is_pattern(name)]
    free = [name for name in names if name not in taken]
    return evolve(route, model=free[0], patterns=patterns) if free else None
