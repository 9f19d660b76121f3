"""The ASGI application that answers for functions, with all that holds for calls elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from attrs import define, evolve, field, frozen
from starlette.routing import Route as Path
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMModelNotFoundError
from headrace.contracts.inference import InferRequest, ModelStatistics
from headrace.contracts.record import Marks
from headrace.gateway.app import Around
from headrace.gateway.asgi import Handler, answer, read_body, while_connected
from headrace.gateway.config import Config, ServerConfig
from headrace.gateway.functions.function import FAILED, Function, FunctionBackend
from headrace.gateway.guard import Guard
from headrace.gateway.routes import Routes
from headrace.gateway.standing import Standing, standing_of
from headrace.net.clock import Clock, SystemClock
from headrace.numbers.live import Tally
from headrace.numbers.prometheus import CONTENT_TYPE, write_metrics
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.traffic.endpoint import EndpointSettings, open_lane
from headrace.traffic.inferring import infer
from headrace.traffic.lane import Lane
from headrace.wire import inference
from headrace.wire import json as wire_json

Served: TypeAlias = Mapping[str, "Callable[..., Any] | Function"]


def inference_app(
    functions: Served,
    *,
    api_keys: tuple[str, ...] = (),
    max_running: int = 4,
    max_waiting: int = 64,
    queue_s: float = 30.0,
    timeout_s: float = 60.0,
    max_body_bytes: int = 32 << 20,
    clock: Clock | None = None,
) -> ASGIApp:
    """An ASGI application that answers for ``functions``, by their names; see Function.

    Of each function ``max_running`` calls run at once and ``max_waiting`` wait, ``queue_s`` at the
    longest: 429 for the next. A call takes ``timeout_s`` at most (504); the thread of one that is
    no coroutine works on, for it cannot be stopped, and is missing meanwhile. With ``api_keys``
    every caller has to show one.
    """
    server = ServerConfig(api_keys=api_keys, max_body_bytes=max_body_bytes)
    return FunctionServer(
        config=Config(server=server),
        functions=functions,
        clock=clock or SystemClock(),
        settings=settings_of(max_running, max_waiting, queue_s, timeout_s),
    ).application()


def settings_of(
    max_running: int, max_waiting: int, queue_s: float, timeout_s: float
) -> EndpointSettings:
    """How each function is treated: never asked again, for nobody knows what it did."""
    return EndpointSettings(
        max_running=max_running,
        max_waiting=max_waiting,
        queue_s=queue_s,
        retry=None,
        breaker=None,
        total_s=timeout_s,
    )


@frozen(kw_only=True)
class _Place:
    """A function, and the way to it."""

    backend: FunctionBackend
    lane: Lane
    info: inference.FunctionInfo


@define(kw_only=True, eq=False)
class FunctionServer:
    """What the application's handlers share. ``draining`` is set once a stop was asked for."""

    config: Config
    functions: Served
    settings: EndpointSettings
    clock: Clock
    draining: bool = False
    others: None = None
    standing: Standing = field(init=False)
    traffic: Traffic = field(init=False)
    tally: Tally = field(init=False)
    _places: dict[str, _Place] = field(init=False)
    _started: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        if not self.functions:
            raise LLMInvalidRequestError("there is no function to serve", param="functions")
        self._started = self.clock.monotonic()
        self.tally = Tally(self._started, models=list(self.functions))
        self.traffic = Traffic(self.clock, self.tally)
        self.standing = Standing(
            config=self.config, routes=Routes(()), guard=Guard(self.config.server.api_keys)
        )
        created = int(self.clock.wall())
        self._places = {}
        for name, given in self.functions.items():
            if not name or "/" in name:
                raise LLMInvalidRequestError(
                    f"{name!r} is no name for a function: it stands in an address, without '/'",
                    param="functions",
                )
            function = given if isinstance(given, Function) else Function(call=given)
            info = function.info(name, created)  # what is wrong with it is told now
            backend = FunctionBackend(
                name=name,
                function=function,
                executor=ThreadPoolExecutor(self.settings.max_running, f"function {name}"),
            )
            lane = open_lane(backend, self.clock, self.settings)
            self._places[name] = _Place(backend=backend, lane=lane, info=info)

    def application(self) -> ASGIApp:
        """The ASGI application."""
        around = Around(self)
        # With /v1 too: there clients look that know servers by OpenAI's paths.
        around.inner = Router(
            [
                Path(f"{prefix}/models{path}", handler, methods=[method])
                for prefix in ("", "/v1")
                for path, method, handler in (
                    ("", "GET", Handler(self.models)),
                    ("/{model}", "GET", Handler(self.model)),
                    ("/{model}/statistics", "GET", Handler(self.statistics)),
                    ("/{model}/infer", "POST", _Infer(self)),
                )
            ]
            + [
                Path("/health", Handler(self.health), methods=["GET"]),
                Path("/metrics", Handler(self.metrics), methods=["GET"]),
            ],
            redirect_slashes=False,
        )
        return around

    def running(self) -> int:
        """Requests that run or wait now."""
        return sum(each.lane.running + each.lane.waiting for each in self._places.values())

    def place(self, name: str) -> _Place:
        """The function of that name; LLMModelNotFoundError names the nearest."""
        found = self._places.get(name)
        if found is not None:
            return found
        from difflib import get_close_matches

        near = get_close_matches(name, self._places, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self._places)}"
        raise LLMModelNotFoundError(f"there is no model {name[:200]!r} here; {hint}", param="model")

    async def models(self, scope: Scope, send: Send) -> None:
        """Every function."""
        body = inference.write_models(each.info for each in self._places.values())
        await answer(send, 200, body, scope["headrace.headers"])

    async def model(self, scope: Scope, send: Send) -> None:
        """One of them."""
        place = self.place(scope["path_params"]["model"])
        await answer(send, 200, inference.write_model(place.info), scope["headrace.headers"])

    async def statistics(self, scope: Scope, send: Send) -> None:
        """What one of them did so far."""
        place = self.place(scope["path_params"]["model"])
        stats = place.lane.stats()
        told = ModelStatistics(
            model=stats.name,
            uptime_s=self.clock.monotonic() - self._started,
            requests=stats.requests,
            successes=stats.successes,
            failures=stats.failures,
            cancelled=stats.cancelled,
            running=stats.running,
            waiting=stats.waiting,
            inputs=place.backend.inputs,
            failed_inputs=place.backend.failed_inputs,
            latency=stats.latency,
        )
        await answer(send, 200, inference.write_statistics(told), scope["headrace.headers"])

    async def health(self, scope: Scope, send: Send) -> None:
        """This process answers."""
        status = "draining" if self.draining else "ok"
        await answer(send, 200, wire_json.encode({"status": status}), scope["headrace.headers"])

    async def metrics(self, scope: Scope, send: Send) -> None:
        """Prometheus text."""
        body = write_metrics(self.tally, self.clock.monotonic())
        headers = scope["headrace.headers"]
        await answer(send, 200, body, headers, content_type=CONTENT_TYPE.encode())


@frozen
class _Infer:
    """``POST /models/{model}/infer``."""

    server: FunctionServer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued = self.server.clock.monotonic()
        body = await read_body(scope, receive, standing_of(scope).config.server)
        place = self.server.place(scope["path_params"]["model"])
        scope["headrace.model"] = place.backend.name
        request = inference.read_infer(body, model=place.backend.name)
        del body
        await while_connected(receive, self._answer(place, request, queued, scope, send))

    async def _answer(
        self,
        place: _Place,
        request: InferRequest,
        queued: float,
        scope: Scope,
        send: Send,
    ) -> None:
        sheet = CallSheet(
            call_id=new_call_id(),
            operation="inference",
            queued=queued,
            requested_model=request.model,
            route=request.model,
        )
        asked = evolve(request, request_id=scope["headrace.request_id"])
        try:
            result = await infer(self.server.traffic, asked, place.lane, sheet, Marks())
        except LLMError as error:
            if error.code == FAILED:  # it would fail again
                scope["headrace.headers"].append((b"x-should-retry", b"false"))
            raise
        body = inference.write_result(result, single=request.single)
        await answer(send, 200, body, scope["headrace.headers"])
