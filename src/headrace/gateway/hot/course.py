"""Where a request of the fast way goes: found out once for each model that callers name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from headrace.backends.managed.engine import Managed
from headrace.contracts.errors import LLMModelNotFoundError
from headrace.contracts.record import Operation
from headrace.gateway.hot.asking import PassingAsking
from headrace.gateway.hot.way import HotWay, HotWays, remote_of
from headrace.gateway.routes import Route, Way
from headrace.gateway.standing import Standing
from headrace.traffic.passage import Ticket
from headrace.traffic.routing.choice import Chosen
from headrace.wire.json import encode
from headrace.wire.passing import PassingRequest

_MOST_NAMES = 1000
_LONGEST_NAME = 200


@frozen(kw_only=True, eq=False)
class Course:
    """One way of a route, for callers who say one name.

    ``model`` is how they know the model. ``renamed`` is that in JSON, where the backend's answers
    call it otherwise.
    """

    way: HotWay
    ticket: Ticket
    model: str
    renamed: bytes | None


def course_of(
    route: Route, way: Way, hot: HotWay, requested: str | None, operation: Operation = "chat"
) -> Course:
    """The course of a call that goes ``way`` of ``route``, by a caller who says ``requested``."""
    asked = route.asked(requested)
    name = way.model or hot.remote.model or asked
    return Course(
        way=hot,
        ticket=Ticket(
            lane=way.lane,
            backend=way.lane.name,
            model=name,
            requested_model=requested,
            route=route.model,
            provider=hot.remote.provider.name,
            operation=operation,
        ),
        model=asked,
        renamed=None if name == asked else encode(asked),
    )


class HotRoute:
    """A route all of whose backends speak the format of the caller, who names it ``requested``."""

    def __init__(self, route: Route, requested: str | None, hot: Sequence[HotWay]) -> None:
        self.route = route
        self.requested = requested
        self._hot = {id(way.lane): way for way in hot}
        self._barred = sorted({name for way in hot for name in way.barred})
        self._asked_whole = all(way.remote.provider.asked_whole for way in hot)
        self._moving = [way for way in hot if isinstance(way.lane.backend, Managed)]
        self._courses: dict[int, tuple[Way, Course]] = {}

    def holds(self) -> bool:
        """Whether its backends are still where they were found: an engine of ours may be started
        again at another port."""
        return all(remote_of(way.lane) is way.remote for way in self._moving)

    def takes(self, request: PassingRequest) -> bool:
        """Whether its backends may be asked for ``request`` without a change in its meaning."""
        if not self._asked_whole and not request.stream:
            return False
        return not any(map(request.sets, self._barred))

    def choose(
        self, request: PassingRequest, body: bytes, fields: Mapping[bytes, bytes]
    ) -> Chosen[Way]:
        """Whom to ask for a request without a task profile; to ask for it is to take one's turn."""
        choice = self.route.choice
        if choice is None:
            return self.route.alone
        if not choice.looks:
            return choice.in_turn()
        model = self.route.asked(self.requested)
        return choice.choose(PassingAsking(request, body, fields, model))

    def course(self, way: Way) -> Course:
        """The course of a call that goes ``way`` first."""
        found = self._courses.get(id(way))
        if found is not None and found[0] is way:
            return found[1]
        course = course_of(self.route, way, self._hot[id(way.lane)], self.requested)
        self._courses[id(way)] = way, course
        return course


class HotRoutes:
    """The routes of one standing for callers of one format, by the name that they say."""

    def __init__(self, standing: Standing, format: str, ways: HotWays) -> None:
        self.standing = standing
        self._format = format
        self._ways = ways
        self._found: dict[str | None, HotRoute | None] = {}

    def to(self, model: str | None) -> HotRoute | None:
        """The route of ``model``; ``None`` where there is none, or it takes the general way."""
        try:
            found = self._found[model]
            if found is None or found.holds():
                return found
        except KeyError:
            pass
        try:
            route = self.standing.routes.pick(model)
        except LLMModelNotFoundError:
            route = None
        found = None if route is None else self._hot_route(route, model)
        # One that has no way yet may have one as soon as its engine runs. And callers may say what
        # they like, so what is kept of it is bounded.
        is_final = found is not None or route is None or not _has_engines(route)
        if is_final and (model is None or len(model) <= _LONGEST_NAME):
            if len(self._found) >= _MOST_NAMES:
                self._found.clear()
            self._found[model] = found
        return found

    def _hot_route(self, route: Route, model: str | None) -> HotRoute | None:
        if route.hedging is not None:  # a passage is one attempt
            return None
        hot = [way for lane in route.lanes() if (way := self._ways.to(lane)) is not None]
        if len(hot) < len(route.lanes()) or not all(map(self._passes, hot)):
            return None
        return HotRoute(route, model, hot)

    def _passes(self, way: HotWay) -> bool:
        return way.passes and way.format == self._format


def _has_engines(route: Route) -> bool:
    return any(isinstance(lane.backend, Managed) for lane in route.lanes())
