"""An engine that is started by the first who asks it anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMUnavailableError
from headrace.contracts.protocols import Backend, Embedder
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance


@runtime_checkable
class _Counts(Protocol):
    async def count_tokens(self, request: LLMRequest) -> int: ...


class OnFirstUse:
    """A Backend in the place of the one that ``open`` starts.

    Who comes while it starts waits for the same start. Where that fails, those who wait are told
    why, and the next who comes has it tried again.
    """

    def __init__(self, name: str, open: Callable[[], Awaitable[Backend]]) -> None:
        self.name = name
        self._open = open
        self._opened: Backend | None = None
        self._opening: asyncio.Task[Backend] | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether there is an engine to be ended."""
        return self._opened is not None or self._opening is not None

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces."""
        marks.backend = self.name
        backend = await self._woken()
        async with aclosing(backend.stream(request, marks)) as pieces:
            async for delta in pieces:
                yield delta

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input."""
        marks.backend = self.name
        backend = await self._woken()
        if not isinstance(backend, Embedder):
            raise LLMCapabilityError(f"{self.name} makes text, not embeddings", param="model")
        return await backend.embed(request, marks)

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, as the engine counts it."""
        backend = await self._woken()
        if not isinstance(backend, _Counts):
            raise LLMCapabilityError(f"{self.name} does not count tokens", param="model")
        return await backend.count_tokens(request)

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models it answers for; none before it was asked anything."""
        return () if self._opened is None else await self._opened.models()

    async def status(self) -> BackendStatus:
        """Whether it answers; one that was not asked yet does, as soon as it is."""
        if self._opened is not None:
            return await self._opened.status()
        message = "starts with the first request"
        return BackendStatus(ok=not self._closed, message=message, checked_at=Provenance.now_iso())

    async def aclose(self) -> None:
        """End the engine, or give its start up."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, LLMError):
                await self._opening
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def _woken(self) -> Backend:
        if self._opened is not None:
            return self._opened
        if self._closed:
            raise LLMUnavailableError(f"{self.name} was closed", transient=False)
        if self._opening is None:
            self._opening = asyncio.create_task(self._start(), name=f"open {self.name}")
            self._opening.add_done_callback(_heard)
        opening = self._opening
        try:
            # Whoever leaves does not end what others wait for.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if opening.cancelled() and not (me and me.cancelling()):
                raise LLMUnavailableError(f"{self.name} was closed", transient=False) from None
            raise

    async def _start(self) -> Backend:
        try:
            self._opened = await self._open()
            return self._opened
        finally:
            self._opening = None


def _heard(task: asyncio.Task[Backend]) -> None:
    """Whoever waited has been told; where all have left, nobody is to be."""
    if not task.cancelled():
        task.exception()
