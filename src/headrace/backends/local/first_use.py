"""A backend in the place of an engine that is started by the first who asks it anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from headrace.backends.local.waking import Waking
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend, Embedder
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance
from headrace.net.clock import Clock


@runtime_checkable
class _Counts(Protocol):
    async def count_tokens(self, request: LLMRequest) -> int: ...


class OnFirstUse:
    """A Backend; ``open`` starts the one that answers (``Waking`` says what becomes of a failure)."""

    def __init__(self, name: str, open: Callable[[], Awaitable[Backend]], clock: Clock) -> None:
        self.name = name
        self._waking: Waking[Backend] = Waking(name, "the engine", open, clock)

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces."""
        marks.backend = self.name
        backend = await self._waking.wake()
        async with aclosing(backend.stream(request, marks)) as pieces:
            async for delta in pieces:
                yield delta

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input."""
        marks.backend = self.name
        backend = await self._waking.wake()
        if not isinstance(backend, Embedder):
            raise LLMCapabilityError(f"{self.name} makes text, not embeddings", param="model")
        return await backend.embed(request, marks)

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, as the engine counts it."""
        backend = await self._waking.wake()
        if not isinstance(backend, _Counts):
            raise LLMCapabilityError(f"{self.name} does not count tokens", param="model")
        return await backend.count_tokens(request)

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models it answers for; none before it was asked anything."""
        return () if self._waking.engine is None else await self._waking.engine.models()

    async def status(self) -> BackendStatus:
        """Whether it answers; one that was not asked yet does, as soon as it is."""
        if self._waking.engine is not None:
            return await self._waking.engine.status()
        message = "starts with the first request"
        if self._waking.failure is not None:
            message += f"; the last start failed: {self._waking.failure}"
        return BackendStatus(ok=True, message=message, checked_at=Provenance.now_iso())

    async def aclose(self) -> None:
        """End the engine, or give its start up."""
        engine = await self._waking.close()
        if engine is not None:
            await engine.aclose()
