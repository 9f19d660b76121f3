"""What Ollama's clients are told of the models here, from their routes and their files."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.backends.capabilities import capabilities_of
from headrace.backends.managed.engine import Managed
from headrace.backends.managed.probe import GATEWAY
from headrace.backends.remote import Remote
from headrace.contracts.capabilities import BackendCapabilities, ModelInfo
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.gateway.asgi import Handler, Headers, answer, read_body
from headrace.gateway.routes import Route
from headrace.gateway.standing import Standing, standing_of
from headrace.net.clock import Clock
from headrace.numbers.architecture.weights import GGUF_TYPE_NUMBERS
from headrace.stores.models.gguf_header import read_header, read_tensors
from headrace.wire import ollama_models
from headrace.wire.ollama_models import ModelCard

# Whoever looks for an engine should know that we are none.
_NAME = (b"server", GATEWAY.encode())
_GENERAL = ("architecture", "name", "license", "file_type", "quantization_version", "size_label")
_OF_KIND = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("rope.freq_base", "rope.dimension_count"),
)
_OF_TOKENIZER = ("model", "pre", "bos_token_id", "eos_token_id")


@runtime_checkable
class OfFile(Protocol):
    """A backend whose model is a GGUF file on this machine."""

    @property
    def model_path(self) -> Path | None:
        """The file, where it is known by now."""

    @property
    def is_ready(self) -> bool:
        """Whether it is loaded."""


@runtime_checkable
class Capable(Protocol):
    """A backend that says what its model can do."""

    def capabilities(self) -> BackendCapabilities: ...


@frozen(kw_only=True)
class OllamaModels:
    """The handlers of ``/api/tags``, ``/api/ps`` and ``/api/version``."""

    clock: Clock

    async def tags(self, scope: Scope, send: Send) -> None:
        """All models, the default one first."""
        cards = await asyncio.to_thread(_cards, standing_of(scope))
        await _told(scope, send, ollama_models.write_models(cards.values()))

    async def running(self, scope: Scope, send: Send) -> None:
        """Those that are in this machine's memory because of us."""
        standing = standing_of(scope)
        here = {route.model for route in standing.routes if any(map(_is_loaded, _backends(route)))}
        cards = await asyncio.to_thread(_cards, standing)
        found = [card for name, card in cards.items() if name in here]
        await _told(scope, send, ollama_models.write_running(found, self.clock.wall()))

    async def version(self, scope: Scope, send: Send) -> None:
        """Which version of the API this is."""
        from headrace import __version__

        await _told(scope, send, ollama_models.write_version(__version__))

    def handlers(self) -> Mapping[str, Handler]:
        """Each by its path."""
        return {
            "/api/tags": Handler(self.tags),
            "/api/ps": Handler(self.running),
            "/api/version": Handler(self.version),
        }


class OllamaDescription:
    """An ASGI application for ``POST /api/show``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        route = standing.routes.pick(ollama_models.read_description_request(body))
        card = await asyncio.to_thread(_described, standing, route)
        await _told(scope, send, ollama_models.write_description(card))


async def _told(scope: Scope, send: Send, body: bytes) -> None:
    headers: Headers = [*scope["headrace.headers"], _NAME]
    await answer(send, 200, body, headers)


def _cards(standing: Standing) -> dict[str, ModelCard]:
    infos = {info.model_id: info for info in standing.routes.models()}
    return {route.model: _card(route, infos[route.model]) for route in standing.routes}


def _described(standing: Standing, route: Route) -> ModelCard:
    """All that is known of the model of ``route``, with what it can do."""
    card = _cards(standing)[route.model]
    filled = route.defaults
    settings = {
        "temperature": filled.temperature,
        "top_p": filled.top_p,
        "num_predict": filled.max_tokens,
        "num_ctx": card.context_tokens,
    }
    return evolve(
        card,
        capabilities=_abilities(route),
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _card(route: Route, info: ModelInfo) -> ModelCard:
    path = next((each.model_path for each in _backends(route) if isinstance(each, OfFile)), None)
    plain = ModelCard(
        name=route.model, created=info.created, context_tokens=info.max_context_tokens
    )
    if path is None:
        return plain
    try:
        stat = path.stat()
        told = _of_file(path, stat.st_mtime_ns)
    except (OSError, LLMError):  # it is served all the same
        return plain
    return evolve(plain, size_bytes=stat.st_size, on_cpu=True, **told)


@lru_cache(maxsize=64)
def _of_file(path: Path, _changed: int) -> dict[str, Any]:
    """What a GGUF file says of its model."""
    kind = read_header(path, {"general.architecture"}).get("general.architecture")
    if not isinstance(kind, str):
        raise LLMInvalidRequestError(f"{path.name} names no architecture", param="model")
    wanted = {
        *(f"general.{name}" for name in _GENERAL),
        *(f"{kind}.{name}" for name in _OF_KIND),
        *(f"tokenizer.ggml.{name}" for name in _OF_TOKENIZER),
    }
    metadata = read_header(path, wanted)
    sizes: Counter[str] = Counter()
    for dimensions, number in read_tensors(path).values():
        sizes[GGUF_TYPE_NUMBERS.get(number, str(number))] += prod(dimensions)
    count = sizes.total()
    return {
        "format": "gguf",
        "family": kind,
        "parameters": count,
        # What most of the weights are.
        "quantization": sizes.most_common(1)[0][0] if sizes else None,
        "license": metadata.get("general.license"),
        "metadata": {**metadata, "general.parameter_count": count},
    }


def _backends(route: Route) -> list[object]:
    return [lane.backend for lane in route.lanes()]


def _is_loaded(backend: object) -> bool:
    if isinstance(backend, Managed):
        return backend.remote is not None
    return isinstance(backend, OfFile) and backend.is_ready


def _abilities(route: Route) -> tuple[str, ...]:
    """Ollama's words for what the model can do."""
    has = _capabilities(route)
    if has is None:
        return ("completion",)
    if has.embeddings:
        return ("embedding",)
    named = {
        "completion": True,
        "tools": has.tool_calling != "none",
        "vision": has.vision,
        "thinking": has.reasoning,
        "audio": has.audio,
    }
    return tuple(name for name, can in named.items() if can)


def _capabilities(route: Route) -> BackendCapabilities | None:
    backend: object = route.lane.backend
    if isinstance(backend, Capable):
        return backend.capabilities()
    if isinstance(backend, Managed):
        return capabilities_of(backend.provider, backend.config.model)
    if isinstance(backend, Remote):
        return capabilities_of(backend.provider, backend.model or route.model)
    return None
