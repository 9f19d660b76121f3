"""The endpoints whose answers are no text of a model: sound, pictures, judgements.

A request is checked by name and goes to a backend that has the service, the answer comes back as it
is made.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Relays
from headrace.contracts.record import Operation
from headrace.contracts.relay import RelayRequest
from headrace.contracts.requests import LLMRequest
from headrace.gateway.asgi import header, read_body, while_connected
from headrace.gateway.relay import Handed, hand_on
from headrace.gateway.routes import Route, Routes, Way
from headrace.gateway.standing import standing_of
from headrace.gateway.tasks import ROUTE_HEADER, headers_of, route_header
from headrace.net.clock import Clock
from headrace.traffic.call import Traffic
from headrace.traffic.lane import Lane
from headrace.traffic.routing.asking import AsRequest
from headrace.traffic.routing.choice import Chosen
from headrace.wire.openai_services import SERVICES

_OPERATIONS: dict[str, Operation] = {
    "audio/speech": "speech",
    "images/generations": "image",
    "images/edits": "image",
    "images/variations": "image",
    "moderations": "moderation",
}


@frozen(kw_only=True)
class Service:
    """An ASGI application for one service, named by its path."""

    service: str
    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        content_type = (header(scope, b"content-type") or b"").decode("latin-1")
        asked = SERVICES[self.service](content_type, body)
        route, chosen = choose(scope, standing.routes, asked.model, self._has, self.service)
        request = RelayRequest(
            path=f"/{self.service}",
            headers=(("accept", "*/*"),),
            write=asked.write,
            model=route.asked(asked.model) if asked.model is not None else None,
            repeats=True,
            of_model=True,
        )
        handed = Handed(
            request=request,
            ways=chosen.ways,
            operation=_OPERATIONS[self.service],
            queued=queued,
            route=route.model,
            streams=asked.streams,
            requested_model=asked.model,
            decision=chosen.decision,
        )
        await while_connected(receive, hand_on(self.traffic, handed, scope, send))

    def _has(self, lane: Lane) -> bool:
        backend: object = lane.backend
        return isinstance(backend, Relays) and backend.has_service(self.service)


def service_paths(prefix: str, traffic: Traffic, clock: Clock) -> list[Path]:
    """Every service's path, behind ``prefix``."""
    return [
        Path(
            f"{prefix}/{name}",
            Service(service=name, traffic=traffic, clock=clock),
            methods=["POST"],
        )
        for name in SERVICES
    ]


def choose(
    scope: Scope, routes: Routes, model: str | None, able: Callable[[Lane], bool], service: str
) -> tuple[Route, Chosen[Way]]:
    """The route of ``model`` and those of its backends that are ``able``, the best first.

    Where no model is named, the first route that has one. Raises LLMCapabilityError where none is.
    """
    route = routes.pick(model) if model is not None else _first(routes, able, service)
    scope["headrace.model"] = route.model
    asked = LLMRequest(messages=(), model=model)
    chosen = route.choose(
        AsRequest(request=asked, model=route.asked(model), headers=headers_of(scope))
    )
    fitting = [way for way in chosen.ways if able(way.lane)]
    if not fitting:
        others = [each.model for each in routes if _may(each, able)]
        hint = f"; ask {' or '.join(repr(name) for name in others[:3])}" if others else ""
        raise LLMCapabilityError(
            f"{route.asked(model)!r} has no /{service}{hint}", param="model", code="unsupported"
        )
    chosen = chosen.among(fitting, f"it has no /{service}")
    if chosen.decision is not None:
        scope["headrace.headers"].append((ROUTE_HEADER, route_header(chosen.decision)))
    return route, chosen


def _first(routes: Routes, able: Callable[[Lane], bool], service: str) -> Route:
    for route in routes:
        if _may(route, able):
            return route
    raise LLMCapabilityError(
        f"no backend of this server has /{service}; 'backends' in its configuration names one that "
        "does",
        status=501,
        param="model",
        code="not_supported",
    )


def _may(route: Route, able: Callable[[Lane], bool]) -> bool:
    return any(able(lane) for lane in route.lanes())
