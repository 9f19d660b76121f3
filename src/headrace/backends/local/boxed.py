"""Engines for one GGUF model each, opened by its name, path or URI."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.backends.local.kinds import KV_TOKENS, Makes
from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.local.openvino import OpenVino, OpenVinoSettings
from headrace.backends.local.templates import read_template
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.protocols import Backend
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.net.clock import World
from headrace.stores.models import PRESETS, ModelFile, ModelStore
from headrace.stores.models.fetch import find_or_fetch

_SLOTS = 8
_USUAL_INPUT_TOKENS = 512


async def llamacpp(model: str, device: str, makes: Makes, world: World) -> Backend:
    """llama.cpp with ``model``, fetched where it is not here, on the processor."""
    if makes == "embeddings":
        return await _embedder(model, world)
    engine = LlamaCpp(_settings(await _file(model)), world)
    try:
        await engine.start()
    except BaseException:
        await engine.aclose()
        raise
    return engine


async def openvino(model: str, device: str, makes: Makes, world: World) -> Backend:
    """OpenVINO with ``model`` on the processor; what it cannot do is refused by name."""
    file = await _file(model)
    words = LlamaCpp(_settings(file), world)
    engine = OnOpenVino(
        OpenVino(
            OpenVinoSettings(
                name=file.name,
                path=file.path,
                slots=_SLOTS,
                kv_tokens=KV_TOKENS,
                threads=_threads(),
            ),
            words.prompt_tokens,
            world,
        ),
        words,
    )
    try:
        await engine.start()
    except BaseException:
        await engine.aclose()
        raise
    return engine


class OnOpenVino:
    """A Backend: OpenVINO computes, and ``words`` knows the model's template and tokenizer."""

    def __init__(self, engine: OpenVino, words: LlamaCpp) -> None:
        self.name = engine.name
        self._engine, self._words = engine, words

    async def start(self) -> None:
        """Load the model into both; raises LLMUnavailableError where one does not take it."""
        await self._words.start()
        await self._engine.start()

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces."""
        return self._engine.stream(request, marks)

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens."""
        return await self._words.count_tokens(request)

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        return await self._engine.models()

    async def status(self) -> BackendStatus:
        """Whether it answers now."""
        return await self._engine.status()

    def capabilities(self) -> BackendCapabilities:
        """Free text."""
        return self._engine.capabilities()

    async def aclose(self) -> None:
        """End both."""
        await self._engine.aclose()
        await self._words.aclose()


async def _file(model: str) -> ModelFile:
    return await find_or_fetch(ModelStore(), model)


def _settings(file: ModelFile) -> LlamaCppSettings:
    template = None if file.preset is None else file.preset.prompt_template
    return LlamaCppSettings(
        name=file.name,
        path=Path(file.path),
        slots=_SLOTS,
        kv_tokens=KV_TOKENS,
        threads=_threads(),
        template=read_template(template),
    )


def _threads() -> int:
    """As the gateway has it; 0: one for each core."""
    said = os.environ.get("HEADRACE_THREADS") or "0"
    if not said.isdecimal():
        raise LLMInvalidRequestError(
            f"HEADRACE_THREADS is {said!r}, must be a whole number from 0 on", param="threads"
        )
    return int(said)


async def _embedder(model: str, world: World) -> LocalEmbedder:
    store, preset = ModelStore(), PRESETS.get(model.lower())
    most = None if preset is None else preset.max_input_tokens
    settings = EmbedderSettings(
        name=store.name_of(model),
        slots=_SLOTS,
        threads=_threads(),
        max_input_tokens=most or _USUAL_INPUT_TOKENS,
    )
    engine = LocalEmbedder(settings, lambda: find_or_fetch(store, model), world)
    try:
        await engine.wake()
    except BaseException:
        await engine.aclose()
        raise
    return engine
