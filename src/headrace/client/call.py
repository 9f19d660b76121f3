"""One call of a client: where it goes, its pieces, and the response that they make."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timezone
from functools import lru_cache, partial

from headrace.backends.row import Provider
from headrace.client.endpoints import Endpoints
from headrace.contracts.record import Marks, Operation
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, Provenance
from headrace.contracts.routing import RouteDecision
from headrace.traffic.call import CallSheet, new_call_id
from headrace.wire.assemble import Assembler, of_one


class Call:
    """A request on its way: wait for the ``answer``; or, piece by piece, iterate ``deltas`` and
    ``add`` each, then ask for the ``response``."""

    def __init__(
        self,
        endpoints: Endpoints,
        request: LLMRequest,
        *,
        stream: bool,
        parent_id: str | None = None,
        row: Provider | None = None,
    ) -> None:
        way = self._way = endpoints.pick(request, row)
        self._clock = endpoints.clock
        self._begin, self._started = self._clock.monotonic(), self._clock.wall()
        self._marks = Marks()
        self._first: LLMDelta | None = None
        self._assembler: Assembler | None = None
        self._traffic = endpoints.traffic
        sheet = self._sheet = sheet_of(
            endpoints,
            "chat" if way.request.prompt is None else "completion",
            way.request.model,
            way.endpoint.provider,
            stream=stream,
            parent_id=parent_id,
            decision=way.decision,
        )
        self.call_id = sheet.call_id

    async def answer(self) -> LLMResponse:
        """The whole of it; raises an LLMError."""
        way = self._way
        for delta in await self._traffic.answer(
            way.request,
            way.endpoint.lane,
            self._sheet,
            self._marks,
            fallbacks=way.fallbacks,
            hedging=way.hedging,
        ):
            self.add(delta)
        return self.response()

    def deltas(self) -> AsyncGenerator[LLMDelta, None]:
        """Its pieces, once; closing the generator cancels the call."""
        way = self._way
        return self._traffic.run(
            way.request,
            way.endpoint.lane,
            self._sheet,
            self._marks,
            fallbacks=way.fallbacks,
            hedging=way.hedging,
        )

    def add(self, delta: LLMDelta) -> None:
        """Takes the next piece."""
        if self._assembler is None:
            if self._first is None:  # and perhaps the only one: a whole answer
                self._first = delta
                return
            self._assembler = Assembler()
            self._assembler.add(self._first)
        self._assembler.add(delta)

    def response(self) -> LLMResponse:
        """What the pieces make, with where it came from."""
        way, marks, first = self._way, self._marks, self._first
        took_s = self._clock.monotonic() - self._begin
        endpoint = way.endpoint
        made: Callable[..., LLMResponse] = partial(of_one, first or LLMDelta())
        model = first and first.model
        if self._assembler is not None:
            made, model = self._assembler.response, self._assembler.model
        return made(
            provider=marks.provider or endpoint.provider,
            latency_ms=round(took_s * 1000),
            dropped=tuple(dict.fromkeys(marks.dropped)),
            price_usd=marks.price_usd,
            request_id=way.request.request_id,
            provenance=Provenance(
                backend_name=marks.backend or endpoint.lane.name,
                backend_kind=marks.provider or endpoint.provider,
                model_id=model or way.request.model or "",
                base_url=endpoint.base_url,
                started_at=_iso(self._started),
                completed_at=_iso(self._started + took_s),
                config_hash=endpoint.config_hash,
            ),
        )


def sheet_of(
    endpoints: Endpoints,
    operation: Operation,
    model: str | None,
    route: str,
    *,
    stream: bool,
    parent_id: str | None = None,
    decision: RouteDecision | None = None,
) -> CallSheet:
    """What is known of a call that begins now."""
    return CallSheet(
        call_id=new_call_id(),
        operation=operation,
        queued=endpoints.clock.monotonic(),
        stream=stream,
        requested_model=model,
        route=route,
        parent_id=parent_id,
        decision=decision,
    )


def _iso(unix_seconds: float) -> str:
    second, rest = divmod(unix_seconds, 1.0)
    return f"{_second(int(second))}.{int(rest * 1e6):06d}+00:00"


@lru_cache(maxsize=8)
def _second(unix_second: int) -> str:
    return datetime.fromtimestamp(unix_second, timezone.utc).replace(tzinfo=None).isoformat()
