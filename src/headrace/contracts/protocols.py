"""Who does the work: the protocols that clients, adapters and backends meet."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from headrace.contracts.audio import TranscriptionDelta, TranscriptionRequest
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.inference import InferRequest, InferResult
from headrace.contracts.messages import LLMMessage
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.contracts.requests import EmbeddingRequest, LLMChatParams, LLMRequest
from headrace.contracts.responses import (
    EmbeddingResult,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
)


class LLMClient(Protocol):
    """A synchronous client, in the style of chat calls or of request objects."""

    def chat(
        self, messages: Sequence[LLMMessage], *, model: str, params: LLMChatParams
    ) -> LLMResponse:
        """The whole answer to ``messages``."""

    def stream_chat(
        self, messages: Sequence[LLMMessage], *, model: str, params: LLMChatParams
    ) -> Iterator[LLMStreamEvent]:
        """The answer as deltas, and at the end one ``completed`` event with all of it."""

    def generate(self, request: LLMRequest) -> LLMResponse:
        """The whole answer to ``request``."""

    def stream(self, request: LLMRequest) -> Iterator[LLMDelta]:
        """The answer to ``request``, piece by piece."""

    def close(self) -> None:
        """Give back what the client holds; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None: ...

    def default_model(self) -> str:
        """The model used where a request names none."""

    def capabilities(self) -> BackendCapabilities:
        """What the backend can do."""

    def config_snapshot(self) -> Mapping[str, object]:
        """The configuration, without secrets, ready for JSON."""

    def server_snapshot(self) -> Mapping[str, object] | None:
        """The server process we started, or ``None`` where we started none."""

    def describe(self) -> Mapping[str, object]:
        """Configuration and capabilities together, ready for JSON."""


class LLMProviderAdapter(Protocol):
    """What one provider offers beneath an LLMClient."""

    provider_name: str

    def chat(
        self, messages: Sequence[LLMMessage], *, model: str, params: LLMChatParams
    ) -> LLMResponse:
        """The whole answer, normalised."""

    def stream_chat(
        self, messages: Sequence[LLMMessage], *, model: str, params: LLMChatParams
    ) -> Iterator[LLMStreamEvent]:
        """The answer as normalised events."""


class Backend(Protocol):
    """An engine or provider as we reach it, from inside an event loop.

    ``stream`` is the one way in: a whole answer is its deltas put together. Closing the generator
    early ends the backend's work.
    """

    @property
    def name(self) -> str: ...

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces; raises an LLMError, before the first piece where it can.

        What happens on the way is written into ``marks``.
        """

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models it answers for."""

    async def status(self) -> BackendStatus:
        """Whether it answers now."""

    async def aclose(self) -> None:
        """Give back connections and processes."""


@runtime_checkable
class Embedder(Protocol):
    """What a Backend that can make embeddings offers besides."""

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input; raises an LLMError.

        What happens on the way is written into ``marks``.
        """


@runtime_checkable
class Reranker(Protocol):
    """What a Backend that can put documents in order offers besides."""

    async def rerank(self, request: RerankRequest, marks: Marks) -> RerankResult:
        """The documents, the most relevant first, at most ``top_n``; raises an LLMError.

        What happens on the way is written into ``marks``. The texts need not be in the result:
        whoever asked has them.
        """


@runtime_checkable
class Classifier(Protocol):
    """What a Backend that can put texts in classes offers besides."""

    async def classify(self, request: ClassificationRequest, marks: Marks) -> ClassificationResult:
        """The classes of each input; raises an LLMError.

        What happens on the way is written into ``marks``.
        """


@runtime_checkable
class Relays(Protocol):
    """What a Backend offers besides that hands requests on as they stand."""

    def has_service(self, service: str) -> bool:
        """Whether it may have that service of OpenAI's API, named by its path (``audio/speech``)."""

    def relay(self, request: RelayRequest, marks: Marks) -> AsyncGenerator[RelayHead | bytes, None]:
        """How the answer begins, and then its body as it comes; raises an LLMError."""


@runtime_checkable
class Transcriber(Protocol):
    """What a Backend that turns recordings into text offers besides."""

    def transcribe(
        self, request: TranscriptionRequest, marks: Marks, *, stream: bool
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """The text, in pieces where ``stream`` asks for them and it can; then the result.

        Raises an LLMError. What happens on the way is written into ``marks``.
        """

    def transcribes(self, *, translate: bool) -> bool:
        """Whether it may be asked for that."""


@runtime_checkable
class Infers(Protocol):
    """What a Backend offers besides that can be asked by tensors or values."""

    async def infer(self, request: InferRequest, marks: Marks) -> InferResult:
        """What the model answers; raises an LLMError.

        What happens on the way is written into ``marks``.
        """
