"""How a face writes the answer to one request on the fast way, as its endpoint does on the general."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from headrace.contracts.errors import LLMError
from headrace.contracts.quick import changed
from headrace.contracts.responses import LLMDelta, LLMResponse, Usage
from headrace.gateway.gemini import without_thoughts
from headrace.gateway.ollama import durations
from headrace.gateway.responses import repeated
from headrace.gateway.routes import Route
from headrace.traffic.call import new_call_id
from headrace.traffic.passage import Passage
from headrace.wire.inbound import Inbound
from headrace.wire.translating import told, without_cache, without_times


class Words:
    """What most faces do. ``model`` is how the caller knows it; ``passage`` is set when the call
    begins."""

    __slots__ = ("_codec", "_model", "_wall", "include_usage", "passage", "tells_cache")

    def __init__(
        self,
        codec: ModuleType,
        model: str,
        wall: Callable[[], float],
        *,
        include_usage: bool,
        tells_cache: bool = True,
    ) -> None:
        self._codec = codec
        self._model = model
        self._wall = wall
        self.include_usage = include_usage
        self.tells_cache = tells_cache
        self.passage: Passage | None = None

    def asked(self, inbound: Inbound, route: Route) -> None:
        """What was read of the request, for faces whose answers depend on it."""

    def writer(self, first: LLMDelta | None) -> Any:
        """What writes a stream that begins with ``first``."""
        codec = self._codec
        return codec.stream_writer(
            response_id=codec.answer_id(first and first.response_id, new_call_id()),
            model=self._model,
            created=int(self._wall()),
            include_usage=self.include_usage,
            system_fingerprint=first and first.system_fingerprint,
        )

    def told(self, delta: LLMDelta) -> LLMDelta:
        """``delta`` as this caller is to be told it."""
        return told(delta, tells_cache=self.tells_cache)

    def finish(self, writer: Any) -> bytes:
        """The end of a whole stream."""
        last: bytes = writer.finish()
        return last

    def error(self, writer: Any, error: LLMError) -> bytes:
        """The end of a stream that ``error`` breaks off."""
        last: bytes = writer.error(error)
        return last

    def body(self, response: LLMResponse) -> bytes:
        """A whole answer's body."""
        if not self.tells_cache and isinstance(response.usage, Usage):
            response = changed(response, usage=without_cache(response.usage))
        if response.provider_fields is not None:
            response = changed(response, provider_fields=without_times(response.provider_fields))
        return self._written(response)

    def _written(self, response: LLMResponse) -> bytes:
        codec = self._codec
        body: bytes = codec.write_response(
            response,
            response_id=codec.answer_id(response.response_id, new_call_id()),
            model=self._model,
            created=int(self._wall()),
        )
        return body


class ResponsesWords(Words):
    """A response repeats its request, and tells when it ended."""

    __slots__ = ("_repeated",)

    def asked(self, inbound: Inbound, route: Route) -> None:
        self._repeated = repeated(inbound, route)

    def writer(self, first: LLMDelta | None) -> Any:
        return self._codec.stream_writer(
            response_id=self._codec.answer_id(None, new_call_id()),
            model=self._model,
            created=int(self._wall()),
            **self._repeated,
        )

    def finish(self, writer: Any) -> bytes:
        writer.completed_at = int(self._wall())
        return super().finish(writer)

    def error(self, writer: Any, error: LLMError) -> bytes:
        writer.completed_at = int(self._wall())
        return super().error(writer, error)

    def _written(self, response: LLMResponse) -> bytes:
        now = int(self._wall())
        body: bytes = self._codec.write_response(
            response,
            response_id=self._codec.answer_id(None, new_call_id()),
            model=self._model,
            created=now,
            completed_at=now,
            **self._repeated,
        )
        return body


class GeminiWords(Words):
    """Thoughts are told to those who ask for them."""

    __slots__ = ("_tells_reasoning",)

    def asked(self, inbound: Inbound, route: Route) -> None:
        self._tells_reasoning = inbound.tells_reasoning

    def writer(self, first: LLMDelta | None) -> Any:
        writer = super().writer(first)
        writer.shows_thoughts = self._tells_reasoning
        return writer

    def _written(self, response: LLMResponse) -> bytes:
        if not self._tells_reasoning:
            response = without_thoughts(response)
        return super()._written(response)


class OllamaWords(Words):
    """The end of an answer tells how long what of it took."""

    __slots__ = ("_told",)

    def asked(self, inbound: Inbound, route: Route) -> None:
        self._told: Mapping[str, object] = {}

    def writer(self, first: LLMDelta | None) -> Any:
        return self._codec.stream_writer(
            response_id="", model=self._model, created=self._wall(), now=self._wall
        )

    def told(self, delta: LLMDelta) -> LLMDelta:
        if delta.provider_fields is not None:
            self._told = delta.provider_fields
        return super().told(delta)

    def finish(self, writer: Any) -> bytes:
        last: bytes = writer.finish(self._durations())
        return last

    def body(self, response: LLMResponse) -> bytes:
        self._told = response.provider_fields or {}
        return super().body(response)

    def _written(self, response: LLMResponse) -> bytes:
        body: bytes = self._codec.write_response(
            response, model=self._model, created=self._wall(), durations=self._durations()
        )
        return body

    def _durations(self) -> dict[str, int]:
        passage = self.passage
        assert passage is not None
        return durations(
            passage.queued,
            passage.sent,
            passage.first_token,
            passage.last_token,
            passage.now(),
            self._told,
        )
