"""Requests that go on to a backend as they stand, and their answers on the way back to the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from attrs import evolve, frozen
from starlette.types import Scope, Send

from headrace.backends.row import OPENAIS
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend, Relays
from headrace.contracts.record import Marks, Operation
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.contracts.requests import LLMRequest
from headrace.contracts.routing import RouteDecision
from headrace.gateway.asgi import Headers
from headrace.gateway.behind import is_behind
from headrace.gateway.routes import Way
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.traffic.pieces import Piece, Used, pieces
from headrace.wire.openai_usage import UsageWatch

_NOSNIFF = (b"x-content-type-options", b"nosniff")


@frozen(kw_only=True)
class Handed:
    """One request on its way: what is asked, of whom, and what its record says of it.

    ``ways`` are the backends, the first to be asked first. ``streams``: the caller asked for the
    answer piece by piece.
    """

    request: RelayRequest
    ways: Sequence[Way]
    operation: Operation
    queued: float
    route: str
    streams: bool = False
    requested_model: str | None = None
    decision: RouteDecision | None = None


def can_relay(way: Way) -> bool:
    """Whether its backend can be handed a request of OpenAI's API as it stands."""
    return isinstance(way.lane.backend, Relays) and way.format in OPENAIS


async def hand_on(traffic: Traffic, handed: Handed, scope: Scope, send: Send) -> None:
    """Ask, and send what comes back; raises the backend's refusal as an LLMError."""
    run = _asked(traffic, handed, scope)
    async with aclosing(run) as coming:
        async for piece in coming:
            if isinstance(piece, RelayHead):
                headers: Headers = [
                    (b"content-type", piece.content_type.encode("latin-1")),
                    *((name.encode(), value.encode("latin-1")) for name, value in piece.headers),
                    _NOSNIFF,
                    *scope["headrace.headers"],
                ]
                start = {"type": "http.response.start", "status": piece.status, "headers": headers}
                await send(start)
            elif piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _asked(
    traffic: Traffic, handed: Handed, scope: Scope
) -> AsyncGenerator[RelayHead | bytes, None]:
    request = evolve(handed.request, request_id=scope["headrace.request_id"])
    first, *others = handed.ways

    async def ask(
        backend: Backend, model: str | None, marks: Marks
    ) -> AsyncGenerator[Piece[RelayHead | bytes] | Used, None]:
        if not isinstance(backend, Relays):
            raise LLMCapabilityError(
                f"{backend.name} has no service of OpenAI's API but its models; ask a model of "
                "another backend",
                param="model",
            )
        watch: UsageWatch | None = None
        async with aclosing(backend.relay(evolve(request, model=model), marks)) as coming:
            async for piece in coming:
                if isinstance(piece, RelayHead):
                    watch = UsageWatch(piece.content_type)
                    yield Piece(piece, before_output=True)
                else:
                    if watch is not None:
                        watch.feed(piece)
                    yield Piece(piece)
        yield Used(None if watch is None else watch.usage)

    return pieces(
        traffic,
        ask,
        LLMRequest(
            messages=(),
            model=first.model or handed.request.model,
            prompt="",
            max_tokens=1,
            request_id=scope["headrace.request_id"],
            priority="idle" if is_behind(scope) else "normal",
        ),
        first.lane,
        CallSheet(
            call_id=new_call_id(),
            operation=handed.operation,
            queued=handed.queued,
            stream=handed.streams,
            requested_model=handed.requested_model,
            route=handed.route,
            decision=handed.decision,
        ),
        Marks(),
        fallbacks=others,
        repeats=request.repeats,
    )
