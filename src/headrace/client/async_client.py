"""The asynchronous client: the LLMClient protocol with ``await``, and the core of the other one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Self

from headrace.client.endpoints import Endpoints, Way
from headrace.client.requests import as_request
from headrace.client.settings import Settings
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import Marks, Operation
from headrace.contracts.requests import EmbeddingRequest, LLMChatParams, LLMRequest
from headrace.contracts.responses import (
    EmbeddingResult,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
    Provenance,
)
from headrace.traffic.call import CallSheet, new_call_id
from headrace.wire.assemble import Assembler


class AsyncClient:
    """Calls any provider or local model, from inside an event loop.

    ``model`` is the default model as ``provider/model``; with ``base_url`` it is the model's own
    name at that server. All other settings are those of Settings. One client may be used by any
    number of tasks; its limits hold for all of them together.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        self._settings = Settings.of(model, settings)
        self._endpoints = Endpoints(self._settings)

    async def generate(self, request: LLMRequest) -> LLMResponse:
        """The whole answer to ``request``; raises an LLMError."""
        way = self._endpoints.pick(request)
        clock = self._endpoints.clock
        begin, started = clock.monotonic(), clock.wall()
        marks, assembler = Marks(), Assembler()
        async with aclosing(self._run(way, marks, stream=False)) as deltas:
            async for delta in deltas:
                assembler.add(delta)
        return self._finished(assembler, way, marks, clock.monotonic() - begin, started)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMDelta, None]:
        """The answer to ``request`` piece by piece; closing the generator cancels the call."""
        way = self._endpoints.pick(request)
        async with aclosing(self._run(way, Marks(), stream=True)) as deltas:
            async for delta in deltas:
                yield delta

    async def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        **settings: Any,
    ) -> LLMResponse:
        """The whole answer to ``messages`` (a plain text is one user turn).

        ``settings`` are fields of LLMRequest by name, for those who need no LLMChatParams.
        """
        return await self.generate(as_request(messages, model, params, settings))

    async def stream_chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        **settings: Any,
    ) -> AsyncGenerator[LLMStreamEvent, None]:
        """The answer as ``delta`` events, and at the end one ``completed`` event with all of it."""
        way = self._endpoints.pick(as_request(messages, model, params, settings))
        clock = self._endpoints.clock
        begin, started = clock.monotonic(), clock.wall()
        marks, assembler = Marks(), Assembler()
        async with aclosing(self._run(way, marks, stream=True)) as deltas:
            async for delta in deltas:
                assembler.add(delta)
                yield LLMStreamEvent(kind="delta", delta_text=delta.text_delta, delta=delta)
        response = self._finished(assembler, way, marks, clock.monotonic() - begin, started)
        yield LLMStreamEvent(kind="completed", response=response)

    async def embed(
        self, inputs: str | Sequence[str], *, model: str | None = None, **settings: Any
    ) -> EmbeddingResult:
        """One vector for each input; ``settings`` are fields of EmbeddingRequest by name."""
        from headrace.traffic.embedding import embed

        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        request = EmbeddingRequest(inputs=texts, model=model, **settings)
        endpoint, asked = self._endpoints.pick_embedding(request)
        sheet = self._sheet("embeddings", request.model, endpoint.provider, stream=False)
        return await embed(self._endpoints.traffic, asked, endpoint.lane, sheet, Marks())

    async def healthcheck(self) -> BackendStatus:
        """Whether the default model's backend answers now."""
        try:
            way = self._endpoints.pick(LLMRequest(messages=()))
        except LLMError as error:
            now = Provenance.now_iso()
            return BackendStatus(ok=False, message=str(error), checked_at=now)
        return await way.endpoint.lane.backend.status()

    def default_model(self) -> str:
        """The model used where a request names none; raises LLMInvalidRequestError without one."""
        if self._settings.model is None:
            raise LLMInvalidRequestError(
                "this client has no default model: name one, as in AsyncClient('openai/gpt-5-mini')",
                param="model",
            )
        return self._settings.model

    def capabilities(self) -> BackendCapabilities:
        """What the default model's backend can do, as far as we know it."""
        return self._endpoints.capabilities(self.default_model())

    def config_snapshot(self) -> Mapping[str, object]:
        """The settings, without secrets, ready for JSON."""
        return self._settings.snapshot()

    def server_snapshot(self) -> Mapping[str, object] | None:
        """``None``: a client starts no server; the gateway does."""
        return None

    def describe(self) -> Mapping[str, object]:
        """Settings, capabilities and the state of each endpoint in use, ready for JSON."""
        from headrace.contracts.convert import to_plain

        described: dict[str, object] = {"config": dict(self.config_snapshot())}
        if self._settings.model is not None:
            described["capabilities"] = to_plain(self.capabilities())
        described["endpoints"] = self._endpoints.describe()
        described["server"] = self.server_snapshot()
        return described

    async def aclose(self) -> None:
        """Give back connections and engines; a second call does nothing."""
        await self._endpoints.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.model!r})"

    def _run(self, way: Way, marks: Marks, *, stream: bool) -> AsyncGenerator[LLMDelta, None]:
        request = way.request
        sheet = self._sheet(
            "chat" if request.prompt is None else "completion",
            request.model,
            way.endpoint.provider,
            stream=stream,
        )
        return self._endpoints.traffic.run(
            request, way.endpoint.lane, sheet, marks, fallbacks=way.fallbacks
        )

    def _sheet(
        self,
        operation: Operation,
        model: str | None,
        route: str,
        *,
        stream: bool,
    ) -> CallSheet:
        return CallSheet(
            call_id=new_call_id(),
            operation=operation,
            queued=self._endpoints.clock.monotonic(),
            stream=stream,
            requested_model=model,
            route=route,
        )

    def _finished(
        self, assembler: Assembler, way: Way, marks: Marks, took_s: float, started: float
    ) -> LLMResponse:
        endpoint = way.endpoint
        return assembler.response(
            provider=marks.provider or endpoint.provider,
            latency_ms=round(took_s * 1000),
            dropped=tuple(dict.fromkeys(marks.dropped)),
            price_usd=marks.price_usd,
            request_id=way.request.request_id,
            provenance=Provenance(
                backend_name=marks.backend or endpoint.lane.name,
                backend_kind=marks.provider or endpoint.provider,
                model_id=assembler.model or way.request.model or "",
                base_url=endpoint.base_url,
                started_at=_iso(started),
                completed_at=_iso(started + took_s),
                config_hash=endpoint.config_hash,
            ),
        )


def _iso(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat()
