"""The synchronous client: the same core, on the process's portal thread."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from headrace.client.async_client import AsyncClient
from headrace.client.portal import Pieces, portal
from headrace.client.requests import as_request
from headrace.client.structured.results import Structured, StructuredEvent
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus
from headrace.contracts.engines import EngineConfig
from headrace.contracts.inference import InferResult, ModelStatistics
from headrace.contracts.messages import LLMMessage
from headrace.contracts.ranking import ClassificationResult, RerankResult
from headrace.contracts.requests import LLMChatParams, LLMRequest
from headrace.contracts.responses import (
    EmbeddingResult,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
)

T = TypeVar("T")

# What an engine's end takes beyond the time that it is given itself.
_ENDS_AFTER_S = 5.0

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.client.batches import SyncBatches
    from headrace.client.endpoint_table import SyncEndpoints
    from headrace.contracts.audio import SpeechResult, TranscriptionDelta, TranscriptionResult
    from headrace.contracts.protocols import LLMClient
    from headrace.traffic.retry import RetryPolicy

    def _meets_the_protocol(client: Client) -> LLMClient:
        return client

    def _knows_what_it_answers(client: Client) -> tuple[str, list[int]]:
        return client.chat("").text, client.chat("", output=list[int]).output


class Client:
    """Calls any provider or local model; takes what AsyncClient takes.

    One client may be used from any number of threads, also from inside a running event loop
    (Jupyter), which it then blocks. A forked child goes on with connections of its own.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        self._made_with = (model, settings)
        self._core = AsyncClient(model, **settings)
        self._pid = os.getpid()
        self._adopted = False

    @overload
    def generate(self, request: LLMRequest, *, output: None = None) -> LLMResponse: ...

    @overload
    def generate(
        self,
        request: LLMRequest,
        *,
        output: type[T],
        output_settings: OutputSettings | None = None,
    ) -> Structured[T]: ...

    @overload
    def generate(
        self,
        request: LLMRequest,
        *,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
    ) -> Structured[Any]: ...

    def generate(
        self,
        request: LLMRequest,
        *,
        output: Any = None,
        output_settings: OutputSettings | None = None,
    ) -> LLMResponse | Structured[Any]:
        """The whole answer to ``request``, read as ``output`` if asked; raises an LLMError."""
        core = self.on_portal()
        if output is None:
            return portal().run(lambda: core.generate(request))
        return portal().run(
            lambda: core.generate(request, output=output, output_settings=output_settings)
        )

    def stream(self, request: LLMRequest) -> Pieces[LLMDelta]:
        """The answer to ``request`` piece by piece; closing the iterator cancels the call."""
        core = self.on_portal()
        return portal().iterate(lambda: core.stream(request))

    @overload
    def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: type[T],
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Pieces[StructuredEvent[T]]: ...

    @overload
    def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Pieces[StructuredEvent[Any]]: ...

    def stream_output(
        self,
        asked: str | Sequence[LLMMessage] | LLMRequest,
        *,
        output: Any,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Pieces[StructuredEvent[Any]]:
        """An object while it is written: ``partial`` events, and last one ``completed`` with it."""
        core = self.on_portal()
        return portal().iterate(
            lambda: core.stream_output(
                asked, output=output, output_settings=output_settings, **settings
            )
        )

    @overload
    def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: None = None,
        **settings: Any,
    ) -> LLMResponse: ...

    @overload
    def chat(
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
    def chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        output: Mapping[str, object] | UnionType,
        output_settings: OutputSettings | None = None,
        **settings: Any,
    ) -> Structured[Any]: ...

    def chat(
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

        With ``output`` it is read as that, as in ``generate``.
        """
        request = as_request(messages, model, params, settings)
        if output is None:
            return self.generate(request)
        result: Structured[Any] = self.generate(
            request, output=output, output_settings=output_settings
        )
        return result

    def stream_chat(
        self,
        messages: str | Sequence[LLMMessage],
        *,
        model: str | None = None,
        params: LLMChatParams | None = None,
        **settings: Any,
    ) -> Pieces[LLMStreamEvent]:
        """The answer as ``delta`` events, and at the end one ``completed`` event with all of it."""
        core = self.on_portal()
        return portal().iterate(
            lambda: core.stream_chat(messages, model=model, params=params, **settings)
        )

    def embed(
        self, inputs: str | Sequence[str], *, model: str | None = None, **settings: Any
    ) -> EmbeddingResult:
        """One vector for each input."""
        core = self.on_portal()
        return portal().run(lambda: core.embed(inputs, model=model, **settings))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        **settings: Any,
    ) -> RerankResult:
        """``documents`` by how much they have to do with ``query``, the most relevant first."""
        core = self.on_portal()
        return portal().run(
            lambda: core.rerank(query, documents, model=model, top_n=top_n, **settings)
        )

    def classify(
        self,
        inputs: str | Sequence[str | tuple[str, str]],
        *,
        model: str | None = None,
        **settings: Any,
    ) -> ClassificationResult:
        """The classes of each text, or pair of texts, the likeliest first."""
        core = self.on_portal()
        return portal().run(lambda: core.classify(inputs, model=model, **settings))

    def transcribe(
        self,
        audio: bytes | str | Path,
        *,
        model: str | None = None,
        file_name: str | None = None,
        **settings: Any,
    ) -> TranscriptionResult:
        """What is heard in a recording: its bytes, or the path of its file."""
        core = self.on_portal()
        return portal().run(
            lambda: core.transcribe(audio, model=model, file_name=file_name, **settings)
        )

    def stream_transcription(
        self,
        audio: bytes | str | Path,
        *,
        model: str | None = None,
        file_name: str | None = None,
        **settings: Any,
    ) -> Pieces[TranscriptionDelta]:
        """The same in pieces, where the provider hears so; the last one has the result."""
        core = self.on_portal()
        return portal().iterate(
            lambda: core.stream_transcription(audio, model=model, file_name=file_name, **settings)
        )

    def speak(
        self, text: str, *, voice: str, model: str | None = None, **settings: Any
    ) -> SpeechResult:
        """``text`` read aloud."""
        core = self.on_portal()
        return portal().run(lambda: core.speak(text, voice=voice, model=model, **settings))

    def infer(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        batch: bool = False,
        **settings: Any,
    ) -> InferResult:
        """What a model that is no language model answers; takes what AsyncClient's takes."""
        core = self.on_portal()
        return portal().run(lambda: core.infer(inputs, model=model, batch=batch, **settings))

    def statistics(self, model: str | None = None) -> ModelStatistics:
        """What a model that is asked by plain values did so far, as its server tells."""
        core = self.on_portal()
        return portal().run(lambda: core.statistics(model))

    def batches(self, model: str | None = None, *, retry: RetryPolicy | None = None) -> SyncBatches:
        """Batches at the provider of ``model``; raises LLMCapabilityError where it has none."""
        from headrace.client.batches import SyncBatches

        self._core.batches(model)  # what is wrong with it is told now
        return SyncBatches(lambda: self.on_portal().batches(model, retry=retry))

    @property
    def endpoints(self) -> SyncEndpoints:
        """Its endpoints by name, to be made, changed and removed at run time, with what they did."""
        from headrace.client.endpoint_table import SyncEndpoints

        return SyncEndpoints(self)

    def healthcheck(self) -> BackendStatus:
        """Whether the default model's backend answers now."""
        return portal().run(self.on_portal().healthcheck)

    def default_model(self) -> str:
        """The model used where a request names none."""
        return self._core.default_model()

    def capabilities(self) -> BackendCapabilities:
        """What the default model's backend can do, as far as we know it."""
        return self._core.capabilities()

    def config_snapshot(self) -> Mapping[str, object]:
        """The settings, without secrets, ready for JSON."""
        return self._core.config_snapshot()

    def server_snapshot(self) -> Mapping[str, object] | None:
        """How the server of this client's ``engine`` stands; ``None`` where it starts none."""
        return self._core.server_snapshot()

    @property
    def engine(self) -> EngineConfig | None:
        """The engine that it was made with, in the place of a model."""
        return self._core.engine

    def start_engine(self) -> str:
        """Have this client's ``engine`` run, and wait until it answers; its address."""
        core = self.on_portal()
        return portal().run(core.start_engine)

    def stop_engine(self) -> None:
        """End this client's ``engine``, where nobody else uses it; the next call starts it anew."""
        core = self.on_portal()
        portal().run(core.stop_engine)

    def describe(self) -> Mapping[str, object]:
        """Settings, capabilities and the state of each endpoint in use, ready for JSON."""
        return self._core.describe()

    def close(self) -> None:
        """Give back connections and engines; a second call does nothing."""
        if self._pid == os.getpid():
            portal().run(self._core.aclose)
            portal().drop(self._core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._made_with[0]!r})"

    def on_portal(self) -> AsyncClient:
        """The core, for what runs on the portal; after a fork a new one, since the parent's sockets are not ours to use."""
        if self._pid != os.getpid():
            model, settings = self._made_with
            made = self._core.endpoints.configs()
            self._core = AsyncClient(model, **settings)
            for config in made:
                self._core.endpoints.put(config)
            self._pid = os.getpid()
            self._adopted = False
        if not self._adopted:
            if self.engine is None:
                portal().adopt(self._core)
            else:  # one that was forgotten would leave its engine running
                portal().keep(self._core, self.engine.stop_timeout_s + _ENDS_AFTER_S)
            self._adopted = True
        return self._core
