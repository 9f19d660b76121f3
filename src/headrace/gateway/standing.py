"""What the next request is answered by: settings, routes and keys, which change only together."""

from __future__ import annotations

from typing import cast

from attrs import frozen
from starlette.types import Scope

from headrace.gateway.config import Config
from headrace.gateway.engines import PlacedEngine
from headrace.gateway.guard import Guard
from headrace.gateway.remotes import Placed
from headrace.gateway.routes import Routes


@frozen(kw_only=True)
class Standing:
    """One reading of the configuration, made real.

    A request takes it along as it begins and asks nobody else, so that none is ever answered by
    half of an old one and half of a new. ``placed`` are the remote backends among ``routes``, ``engines``
    those that we start. ``admin`` knows who may change endpoints, where anybody may.
    """

    config: Config
    routes: Routes
    guard: Guard
    admin: Guard | None = None
    placed: tuple[Placed, ...] = ()
    engines: tuple[PlacedEngine, ...] = ()


def standing_of(scope: Scope) -> Standing:
    """What the request in ``scope`` began with."""
    return cast(Standing, scope["headrace.standing"])
