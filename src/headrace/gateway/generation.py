"""One endpoint for each face that generates: read, route, run, write."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import Any

from attrs import define, evolve, frozen
from starlette.types import Message, Receive, Scope, Send

from headrace.backends.row import FORMATS, codec
from headrace.contracts.errors import LLMContextLengthError, LLMError
from headrace.contracts.quick import changed
from headrace.contracts.record import Marks, Operation
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.gateway.asgi import Headers, answer, dropped_header, read_body, while_connected
from headrace.gateway.behind import is_behind
from headrace.gateway.merge import side_by_side
from headrace.gateway.routes import Route, Way
from headrace.gateway.standing import standing_of
from headrace.gateway.tasks import ROUTE_HEADER, headers_of, route_header, with_profile
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.traffic.fallback import Alternative, Earlier
from headrace.traffic.hedge import Hedging
from headrace.traffic.routing.asking import AsRequest
from headrace.traffic.routing.choice import Chosen
from headrace.wire.assemble import Assembler
from headrace.wire.inbound import Inbound, requests
from headrace.wire.sse import STREAM_TYPE as SSE
from headrace.wire.translating import told

STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Tells nginx and its like to hand each event on as it comes.
    (b"x-accel-buffering", b"no"),
]
_STREAM_TYPES: dict[str, Headers] = {SSE: STREAM_HEADERS}
_PING_AFTER_S = 10.0
# Two formats of one house, whose fields of the same name mean the same.
_OPENAI = {"openai", "openai-responses"}


@frozen(kw_only=True)
class Asked:
    """One request on its way to its answer."""

    inbound: Inbound
    route: Route
    calls: AsyncGenerator[LLMDelta, None]
    headers: Headers
    marks: Marks
    scope: Scope
    send: Send

    def answer_headers(self) -> Headers:
        """Every answer's headers, the list of what the backend could not be given, and what became
        of a second request."""
        headers, marks = self.headers, self.marks
        if marks.dropped:
            headers = [*headers, dropped_header(marks.dropped)]
        if marks.hedge is not None:
            headers = [*headers, (b"x-headrace-hedge", marks.hedge.outcome.encode())]
        return headers

    def told(self, delta: LLMDelta) -> LLMDelta:
        """``delta`` as this caller is to be told it."""
        return told(delta, tells_cache=self.inbound.tells_cache)


@frozen(kw_only=True)
class Generation:
    """An ASGI application that answers one face's generation requests.

    ``codec`` is the face's wire module and ``format`` the name of its format. A streamed answer's
    status and headers wait for its first piece, so that what goes wrong before it still gets a
    status of its own.
    """

    codec: ModuleType
    operation: Operation
    format: str = "openai"
    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        inbound = await self._read(scope, body)
        del body
        headers = headers_of(scope)
        request = with_profile(inbound.request, headers)
        if is_behind(scope):
            request = evolve(request, priority="idle")
        if request is not inbound.request:
            inbound = evolve(inbound, request=request)
        route = standing.routes.pick(inbound.request.model)
        scope["headrace.model"] = route.model
        marks = Marks()
        marks.dropped += inbound.dropped
        request_id = scope["headrace.request_id"]
        earlier: Earlier | None = scope.get("headrace.earlier")
        # Whom to ask may be settled: to ask a route for it is to take a turn.
        chosen = scope.get("headrace.chosen") or choose(headers, route, inbound)
        if chosen.decision is not None:
            scope["headrace.headers"].append((ROUTE_HEADER, route_header(chosen.decision)))
        asked = Asked(
            inbound=inbound,
            route=route,
            calls=self._calls(inbound, route, chosen, request_id, queued, marks, earlier),
            headers=scope["headrace.headers"],
            marks=marks,
            scope=scope,
            send=send,
        )
        await while_connected(receive, (self._stream if inbound.stream else self._whole)(asked))

    def _calls(
        self,
        inbound: Inbound,
        route: Route,
        chosen: Chosen[Way],
        request_id: str,
        queued: float,
        marks: Marks,
        earlier: Earlier | None = None,
    ) -> AsyncGenerator[LLMDelta, None]:
        answers = inbound.request.n or 1
        alone = answers > 1 and any(way.lane.one_answer_a_call for way in chosen.ways)
        runs = []
        model = route.asked(inbound.request.model)
        for prompt in requests(inbound):
            asked = evolve(prompt, model=model, request_id=request_id)
            for single in _singles(asked) if alone else [asked]:
                settled, (first, *others) = self._asked_there(single, chosen)
                sheet = CallSheet(
                    call_id=new_call_id() if earlier is None else earlier.call_id,
                    operation=self.operation,
                    queued=queued if earlier is None else earlier.queued,
                    stream=inbound.stream,
                    requested_model=inbound.request.model,
                    route=route.model,
                    decision=settled.decision,
                )
                assert first.request is not None
                run = self.traffic.run(
                    first.request,
                    first.lane,
                    sheet,
                    marks,
                    fallbacks=others,
                    dropped=first.dropped,
                    earlier=earlier,
                    hedging=self._hedging(inbound, route),
                )
                runs.append(run)
        if len(runs) == 1:
            return runs[0]
        each = 1 if alone else answers
        return side_by_side(runs, answers_each=each, same_prompt=answers if alone else 1)

    def _asked_there(
        self, request: LLMRequest, chosen: Chosen[Way]
    ) -> tuple[Chosen[Way], list[Alternative]]:
        """Those who may be ``chosen`` for ``request``, at least one, and what each is asked for it.

        Raises what is wrong with the request for the first, where it is wrong for all.
        """
        fitting, ways, wrong = [], [], None
        for way in chosen.ways:
            try:
                asked, dropped = for_backend(request, way, self.codec.OWN_FIELDS, self.format)
            except LLMContextLengthError as error:
                wrong = wrong or error
                continue
            ways.append(way)
            fitting.append(Alternative(lane=way.lane, request=asked, dropped=dropped))
        if wrong is not None and not fitting:
            raise wrong
        return chosen.among(ways, str(wrong)), fitting

    # A face that keeps what it was asked and answers replaces the five that follow.

    def _hedging(self, inbound: Inbound, route: Route) -> Hedging | None:
        """How the calls for a request are hedged; nobody waits for the first token of an idle one."""
        return None if inbound.request.priority == "idle" else route.hedging

    async def _read(self, scope: Scope, body: bytes) -> Inbound:
        """The request in ``body``, which may have been read where it came in."""
        inbound: Inbound = scope.get("headrace.inbound") or self.codec.read_request(body)
        return inbound

    async def _body(self, asked: Asked, response: LLMResponse) -> bytes:
        """A whole answer's body."""
        body: bytes = self.codec.write_response(
            response,
            response_id=self.codec.answer_id(response.response_id, uuid.uuid4().hex),
            model=asked.route.asked(asked.inbound.request.model),
            created=int(self.clock.wall()),
        )
        return body

    def _writer(self, asked: Asked, first: LLMDelta | None) -> Any:
        """What writes a stream that begins with ``first``."""
        given = None if first is None else first.response_id
        return self.codec.stream_writer(
            response_id=self.codec.answer_id(given, uuid.uuid4().hex),
            model=asked.route.asked(asked.inbound.request.model),
            created=int(self.clock.wall()),
            include_usage=asked.inbound.include_usage,
            system_fingerprint=first and first.system_fingerprint,
        )

    async def _end(self, asked: Asked, writer: Any, error: LLMError | None = None) -> bytes:
        """The last bytes of a stream, which ``error`` may have broken off."""
        last: bytes = writer.finish() if error is None else writer.error(error)
        return last

    async def _whole(self, asked: Asked) -> None:
        assembler = Assembler()
        async with aclosing(asked.calls):
            async for delta in asked.calls:
                assembler.add(asked.told(delta))
        body = await self._body(asked, assembler.response())
        await answer(asked.send, 200, body, asked.answer_headers())

    async def _stream(self, asked: Asked) -> None:
        send, calls = asked.send, asked.calls
        async with aclosing(calls):
            first = await anext(calls, None)
            writer = self._writer(asked, first)
            headers = [*stream_headers(self.codec.STREAM_TYPE), *asked.answer_headers()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            pieces = _Pieces(send)
            async with pieces.kept_alive(self.codec.PING, self.clock):
                try:
                    if first is not None:
                        await pieces.send(writer.write(asked.told(first)))
                        async for delta in calls:
                            # Once a token, so without a coroutine of its own around it.
                            if piece := writer.write(asked.told(delta)):
                                pieces.count += 1
                                await send(_more(piece))
                    last = await self._end(asked, writer)
                except LLMError as error:
                    # The status is out: the error becomes the stream's last event, with no [DONE].
                    error.request_id = asked.scope["headrace.request_id"]
                    last = await self._end(asked, writer, error)
            await send({"type": "http.response.body", "body": last})


def stream_headers(media_type: str) -> Headers:
    """The headers of a stream of that type."""
    found = _STREAM_TYPES.get(media_type)
    if found is None:
        found = [(b"content-type", media_type.encode()), *STREAM_HEADERS[1:]]
        _STREAM_TYPES[media_type] = found
    return found


def choose(headers: Mapping[str, str], route: Route, inbound: Inbound) -> Chosen[Way]:
    """Whom to ask for ``inbound``, which came with these headers."""
    return route.choose(
        AsRequest(
            request=inbound.request,
            model=route.asked(inbound.request.model),
            prompts=inbound.prompts,
            headers=headers,
        )
    )


def for_backend(
    request: LLMRequest, way: Way, own_fields: Collection[str], format_name: str
) -> tuple[LLMRequest, tuple[str, ...]]:
    """``request`` as ``way`` is asked it: under its model's name there, with its gaps filled.

    Those of its face's ``own_fields`` that mean nothing to the backend are left out, and named; a
    backend of the same format gets them all.
    """
    if way.model is not None:
        request = changed(request, model=way.model)
    options = request.provider_options
    foreign = () if way.format == format_name else tuple(own_fields & options.keys())
    if {way.format, format_name} <= _OPENAI and foreign:
        known = codec(FORMATS[way.format].chat).OWN_FIELDS
        foreign = tuple(name for name in foreign if name not in known)
    if not foreign:
        return way.defaults.fill(request), ()
    kept = {name: value for name, value in options.items() if name not in foreign}
    told = tuple(sorted(name for name in foreign if options[name] is not None))
    return way.defaults.fill(changed(request, provider_options=kept)), told


def _singles(request: LLMRequest) -> list[LLMRequest]:
    """A request for several answers as one request for each, with a seed of its own."""
    return [
        evolve(request, n=None, seed=None if request.seed is None else request.seed + place)
        for place in range(request.n or 1)
    ]


def _more(piece: bytes) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": True}


@define
class _Pieces:
    """The pieces of one streamed answer on their way out; ``count`` is how many went."""

    _send: Send
    count: int = 0

    async def send(self, piece: bytes) -> None:
        """Send ``piece``, where there is something in it."""
        if piece:
            self.count += 1
            await self._send(_more(piece))

    @contextlib.asynccontextmanager
    async def kept_alive(self, ping: bytes | None, clock: Clock) -> AsyncGenerator[None, None]:
        """Within the block, ``ping`` goes out whenever nothing else did for a while."""
        if ping is None:
            yield
            return
        pinging = asyncio.ensure_future(self._ping(ping, clock))
        try:
            yield
        finally:
            pinging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pinging

    async def _ping(self, ping: bytes, clock: Clock) -> None:
        while True:
            before = self.count
            await clock.sleep(_PING_AFTER_S)
            # Nothing may come before the answer has begun.
            if before and before == self.count:
                await self.send(ping)
