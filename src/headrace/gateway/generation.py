"""One endpoint for each face that generates: read, route, run, write."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import ModuleType

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMError
from headrace.contracts.record import Marks, Operation
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.gateway.asgi import Headers, answer, read_body, while_connected
from headrace.gateway.config import ServerConfig
from headrace.gateway.merge import side_by_side
from headrace.gateway.routes import Route, Routes
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.wire.assemble import Assembler
from headrace.wire.inbound import Inbound, requests

_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Tells nginx and its like to hand each event on as it comes.
    (b"x-accel-buffering", b"no"),
]


@frozen(kw_only=True)
class _Asked:
    """One request on its way to its answer."""

    inbound: Inbound
    route: Route
    calls: AsyncGenerator[LLMDelta, None]
    headers: Headers
    marks: Marks
    send: Send

    def answer_headers(self) -> Headers:
        """Every answer's headers, and the list of what the backend could not be given."""
        if not self.marks.dropped:
            return self.headers
        dropped = ", ".join(dict.fromkeys(self.marks.dropped)).encode()
        return [*self.headers, (b"x-headrace-dropped", dropped)]


@frozen(kw_only=True)
class Generation:
    """An ASGI application that answers one face's generation requests.

    ``codec`` is the face's wire module. A streamed answer's status and headers wait for its first
    piece, so that what goes wrong before it still gets a status of its own.
    """

    codec: ModuleType
    operation: Operation
    routes: Routes
    traffic: Traffic
    clock: Clock
    server: ServerConfig

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued = self.clock.monotonic()
        body = await read_body(
            scope,
            receive,
            limit=self.server.max_body_bytes,
            timeout_s=self.server.body_timeout_ms / 1000,
        )
        inbound: Inbound = self.codec.read_request(body)
        del body
        route = self.routes.pick(inbound.request.model)
        scope["headrace.model"] = route.model
        marks = Marks()
        asked = _Asked(
            inbound=inbound,
            route=route,
            calls=self._calls(inbound, route, scope["headrace.request_id"], queued, marks),
            headers=scope["headrace.headers"],
            marks=marks,
            send=send,
        )
        await while_connected(receive, (self._stream if inbound.stream else self._whole)(asked))

    def _calls(
        self, inbound: Inbound, route: Route, request_id: str, queued: float, marks: Marks
    ) -> AsyncGenerator[LLMDelta, None]:
        prompts = requests(inbound)
        answers = inbound.request.n or 1
        alone = route.lane.one_answer_a_call and answers > 1
        runs = []
        model = route.asked(inbound.request.model)
        for prompt in prompts:
            asked = route.defaults.fill(evolve(prompt, model=model, request_id=request_id))
            for single in _singles(asked) if alone else [asked]:
                sheet = CallSheet(
                    call_id=new_call_id(),
                    operation=self.operation,
                    queued=queued,
                    stream=inbound.stream,
                    requested_model=inbound.request.model,
                    route=route.model,
                )
                runs.append(self.traffic.run(single, route.lane, sheet, marks))
        if len(runs) == 1:
            return runs[0]
        each = 1 if alone else answers
        return side_by_side(runs, answers_each=each, same_prompt=answers if alone else 1)

    async def _whole(self, asked: _Asked) -> None:
        assembler = Assembler()
        async with aclosing(asked.calls):
            async for delta in asked.calls:
                assembler.add(delta)
        response = assembler.response()
        body = self.codec.write_response(
            response,
            response_id=self._id(response.response_id),
            model=asked.route.asked(asked.inbound.request.model),
            created=int(self.clock.wall()),
        )
        await answer(asked.send, 200, body, asked.answer_headers())

    def _id(self, given: str | None) -> str:
        """The backend's id, or one of ours; llama.cpp calls a text completion ``chatcmpl`` too."""
        whole = given or f"chatcmpl-{uuid.uuid4().hex}"
        return whole if self.operation == "chat" else whole.removeprefix("chat")

    async def _stream(self, asked: _Asked) -> None:
        send, calls = asked.send, asked.calls
        async with aclosing(calls):
            first = await anext(calls, None)
            writer = self.codec.stream_writer(
                response_id=self._id(None if first is None else first.response_id),
                model=asked.route.asked(asked.inbound.request.model),
                created=int(self.clock.wall()),
                include_usage=asked.inbound.include_usage,
                system_fingerprint=first and first.system_fingerprint,
            )
            headers = [*_STREAM_HEADERS, *asked.answer_headers()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                if first is not None:
                    await _send_piece(send, writer.write(first))
                    async for delta in calls:
                        await _send_piece(send, writer.write(delta))
                last = writer.finish()
            except LLMError as error:
                # The status is out: the error becomes the stream's last event, with no [DONE].
                last = writer.error(error)
            await send({"type": "http.response.body", "body": last})


def _singles(request: LLMRequest) -> list[LLMRequest]:
    """A request for several answers as one request for each, with a seed of its own."""
    return [
        evolve(request, n=None, seed=None if request.seed is None else request.seed + place)
        for place in range(request.n or 1)
    ]


async def _send_piece(send: Send, piece: bytes) -> None:
    if piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
