"""The asynchronous client: the LLMClient protocol with ``await``, and the core of the other one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import cache
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from headrace.client.call import Call, sheet_of
from headrace.client.endpoints import Endpoints
from headrace.client.requests import as_inputs, as_request, as_request_of
from headrace.client.settings import Settings
from headrace.client.structured.results import Structured, StructuredEvent
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.contracts.inference import InferRequest, InferResult, ModelStatistics
from headrace.contracts.messages import LLMMessage
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMChatParams, LLMRequest
from headrace.contracts.responses import (
    EmbeddingResult,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
    Provenance,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.client.batches import Batches
    from headrace.client.endpoint_table import AsyncEndpoints
    from headrace.client.structured.asking import Asking
    from headrace.contracts.audio import (
        SpeechResult,
        TranscriptionDelta,
        TranscriptionResult,
    )
    from headrace.traffic.retry import RetryPolicy

T = TypeVar("T")


class AsyncClient:
    """Calls any provider or local model, from inside an event loop.

    ``model`` is the default model as ``provider/model``; with ``base_url`` it is the model's own
    name at that server. All other settings are those of Settings. One client may be used by any
    number of tasks; its limits hold for all of them together.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        self._settings = Settings.of(model, settings)
        self._endpoints = Endpoints(self._settings)
        self._table: AsyncEndpoints | None = None

    @overload
    async def generate(self, request: LLMRequest, *, output: None = None) -> LLMResponse: ...

    @overload
    async def generate(
        self,
        request: LLMRequest,
        *,
        output: type[T],
        output_settings: OutputSettings | None = None,
    ) -> Structured[T]: ...

    @overload
    async def generate(
        self,
        request: LLMRequest,
        *,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
    ) -> Structured[Any]: ...

    async def generate(
        self,
        request: LLMRequest,
        *,
        output: Any = None,
        output_settings: OutputSettings | None = None,
    ) -> LLMResponse | Structured[Any]:
        """The whole answer to ``request``; raises an LLMError.

        With ``output`` it is read as that: a Pydantic model, a msgspec Struct, an attrs or data
        class, any type that msgspec can describe, or a JSON Schema (a dict). What is not, is mended
        or asked for again as ``output_settings`` allow, and in the end an LLMOutputError.
        """
        if output is None:
            return await Call(self._endpoints, request, stream=False).answer()
        asking: Asking[Any] = _asking()(request, output, output_settings or self._settings.output)
        first_id: str | None = None
        while True:
            call = Call(self._endpoints, asking.request, stream=False, parent_id=first_id)
            first_id = first_id or call.call_id
            result = asking.judge(await call.answer())
            if result is not None:
                return result

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMDelta, None]:
        """The answer to ``request`` piece by piece; closing the generator cancels the call."""
        async with aclosing(Call(self._endpoints, request, stream=True).deltas()) as deltas:
            async for delta in deltas:
                yield delta

    @overload
    def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: type[T],
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> AsyncGenerator[StructuredEvent[T], None]: ...

    @overload
    def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> AsyncGenerator[StructuredEvent[Any], None]: ...

    async def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: Any,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> AsyncGenerator[StructuredEvent[Any], None]:
        """An object while it is written: ``partial`` events, and last one ``completed`` with it.

        ``asked`` and ``settings`` are those of chat, or ``asked`` is a whole request.
        """
        request = as_request_of(asked, settings)
        asking: Asking[Any] = _asking()(request, output, output_settings or self._settings.output)
        first_id: str | None = None
        while True:
            ask = asking.asks
            call = Call(self._endpoints, asking.request, stream=True, parent_id=first_id)
            first_id = first_id or call.call_id
            async with aclosing(call.deltas()) as deltas:
                async for delta in deltas:
                    call.add(delta)
                    if delta.text_delta:
                        seen = asking.feed(delta.text_delta)
                        if seen is not None:
                            yield StructuredEvent(kind="partial", ask=ask, partial=seen)
            seen = asking.rest()
            if seen is not None:
                yield StructuredEvent(kind="partial", ask=ask, partial=seen)
            result = asking.judge(call.response())
            if result is not None:
                yield StructuredEvent(kind="completed", ask=ask, result=result)
                return

    @overload
    async def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: None = None,
        **settings: Any,
    ) -> LLMResponse: ...

    @overload
    async def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: type[T],
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Structured[T]: ...

    @overload
    async def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Structured[Any]: ...

    async def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: Any = None,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> LLMResponse | Structured[Any]:
        """The whole answer to ``messages`` (a plain text is one user turn).

        ``settings`` are fields of LLMRequest by name, for those who need no LLMChatParams;
        ``output`` is as in ``generate``.
        """
        if output is None:
            row, name = self._endpoints.named(model)
            request = as_request(messages, name, params, settings)
            return await Call(self._endpoints, request, stream=False, row=row).answer()
        request = as_request(messages, model, params, settings)
        result: Structured[Any] = await self.generate(
            request, output=output, output_settings=output_settings
        )
        return result

    async def stream_chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        **settings: Any,
    ) -> AsyncGenerator[LLMStreamEvent, None]:
        """The answer as ``delta`` events, and at the end one ``completed`` event with all of it."""
        call = Call(self._endpoints, as_request(messages, model, params, settings), stream=True)
        async with aclosing(call.deltas()) as deltas:
            async for delta in deltas:
                call.add(delta)
                yield LLMStreamEvent(kind="delta", delta_text=delta.text_delta, delta=delta)
        yield LLMStreamEvent(kind="completed", response=call.response())

    async def embed(
        self, inputs: str | Sequence[str], *, model: str | None = None, **settings: Any
    ) -> EmbeddingResult:
        """One vector for each input; ``settings`` are fields of EmbeddingRequest by name."""
        from headrace.traffic.embedding import embed

        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        request = EmbeddingRequest(inputs=texts, model=model, **settings)
        endpoint, asked = self._endpoints.pick_single(request)
        sheet = sheet_of(
            self._endpoints, "embeddings", request.model, endpoint.provider, stream=False
        )
        return await embed(self._endpoints.traffic, asked, endpoint.lane, sheet, Marks())

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        **settings: Any,
    ) -> RerankResult:
        """``documents`` by how much they have to do with ``query``, the most relevant first;
        ``settings`` are fields of RerankRequest by name."""
        from headrace.traffic.ranking import rerank

        request = RerankRequest(
            query=query, documents=tuple(documents), model=model, top_n=top_n, **settings
        )
        endpoint, asked = self._endpoints.pick_single(request)
        sheet = sheet_of(self._endpoints, "rerank", asked.model, endpoint.provider, stream=False)
        return await rerank(self._endpoints.traffic, asked, endpoint.lane, sheet, Marks())

    async def classify(
        self,
        inputs: str | Sequence[str | tuple[str, str]],
        *,
        model: str | None = None,
        **settings: Any,
    ) -> ClassificationResult:
        """The classes of each text, or pair of texts, the likeliest first; ``settings`` are fields of
        ClassificationRequest by name."""
        from headrace.traffic.ranking import classify

        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        request = ClassificationRequest(inputs=texts, model=model, **settings)
        endpoint, asked = self._endpoints.pick_single(request)
        sheet = sheet_of(
            self._endpoints, "classification", asked.model, endpoint.provider, stream=False
        )
        return await classify(self._endpoints.traffic, asked, endpoint.lane, sheet, Marks())

    async def transcribe(
        self,
        audio: bytes | str | Path,
        *,
        model: str | None = None,
        file_name: str | None = None,
        **settings: Any,
    ) -> TranscriptionResult:
        """What is heard in a recording: its bytes, or the path of its file.

        ``settings`` are fields of TranscriptionRequest by name.
        """
        from headrace.client.speech import heard, recording, whole
        from headrace.contracts.audio import TranscriptionRequest

        data, name = await recording(audio, file_name)
        request = TranscriptionRequest(audio=data, file_name=name, model=model, **settings)
        return await whole(heard(self._endpoints, request, stream=False))

    async def stream_transcription(
        self,
        audio: bytes | str | Path,
        *,
        model: str | None = None,
        file_name: str | None = None,
        **settings: Any,
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """The same in pieces, where the provider hears so; the last one has the result."""
        from headrace.client.speech import heard, recording
        from headrace.contracts.audio import TranscriptionRequest

        data, name = await recording(audio, file_name)
        request = TranscriptionRequest(audio=data, file_name=name, model=model, **settings)
        async with aclosing(heard(self._endpoints, request, stream=True)) as deltas:
            async for delta in deltas:
                yield delta

    async def speak(
        self, text: str, *, voice: str, model: str | None = None, **settings: Any
    ) -> SpeechResult:
        """``text`` read aloud; ``settings`` are fields of SpeechRequest by name."""
        from headrace.client.speech import spoken
        from headrace.contracts.audio import SpeechRequest

        request = SpeechRequest(text=text, voice=voice, model=model, **settings)
        return await spoken(self._endpoints, request)

    async def infer(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        batch: bool = False,
        **settings: Any,
    ) -> InferResult:
        """What a model that is no language model answers.

        ``inputs`` are named tensors (``tensor_of`` makes them) for a server that speaks of tensors;
        for one that takes plain values, one of them, or with ``batch`` a list of them, each asked
        by itself. ``settings`` are fields of InferRequest by name.
        """
        from headrace.traffic.inferring import infer

        request = InferRequest(
            inputs=as_inputs(inputs, batch=batch), model=model, single=not batch, **settings
        )
        endpoint, asked = self._endpoints.pick_inference(request)
        sheet = sheet_of(
            self._endpoints, "inference", request.model, endpoint.provider, stream=False
        )
        return await infer(self._endpoints.traffic, asked, endpoint.lane, sheet, Marks())

    async def statistics(self, model: str | None = None) -> ModelStatistics:
        """What a model that is asked by plain values did so far, as its server tells."""
        from headrace.backends.inferring import statistics
        from headrace.backends.remote import Remote

        endpoint, asked = self._endpoints.pick_inference(InferRequest(inputs=(), model=model))
        backend = endpoint.lane.backend
        if not isinstance(backend, Remote):
            raise LLMCapabilityError(f"{backend.name} tells no statistics", param="model")
        return await statistics(backend, asked.model)

    def batches(self, model: str | None = None, *, retry: RetryPolicy | None = None) -> Batches:
        """Batches at the provider of ``model``; raises LLMCapabilityError where it has none.

        ``retry`` takes the place of the client's own policy.
        """
        return self._endpoints.batches(model, retry)

    @property
    def endpoints(self) -> AsyncEndpoints:
        """Its endpoints by name, to be made, changed and removed at run time, with what they did."""
        if self._table is None:
            from headrace.client.endpoint_table import AsyncEndpoints

            self._table = AsyncEndpoints(self._endpoints)
        return self._table

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
        if self._settings.engine is not None:
            return self._settings.engine.model
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
        """How the server of this client's ``engine`` stands; ``None`` where it starts none."""
        return self._endpoints.server_snapshot()

    @property
    def engine(self) -> EngineConfig | None:
        """The engine that it was made with, in the place of a model."""
        return self._settings.engine

    @property
    def runs_at_once(self) -> int:
        """How many calls to one endpoint run at once; further ones wait."""
        return self._settings.endpoint.max_running

    async def start_engine(self) -> str:
        """Have this client's ``engine`` run, and wait until it answers; its address."""
        return await self._endpoints.start_engine()

    async def stop_engine(self) -> None:
        """End this client's ``engine``, where nobody else uses it; the next call starts it anew."""
        await self._endpoints.stop_engine()

    def describe(self) -> Mapping[str, object]:
        """Settings, capabilities and the state of each endpoint in use, ready for JSON."""
        from headrace.contracts.convert import to_plain

        described: dict[str, object] = {"config": dict(self.config_snapshot())}
        if self._settings.model is not None or self._settings.engine is not None:
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


@cache
def _asking() -> type[Asking[Any]]:
    # An import statement in every call would cost it a microsecond, and most calls need none.
    from headrace.client.structured.asking import Asking

    return Asking
