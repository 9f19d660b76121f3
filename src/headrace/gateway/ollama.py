"""Ollama's chat, generate and embeddings: as the other faces, with times and requests to load."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import ModuleType
from typing import Any

from attrs import evolve, frozen
from starlette.types import Scope

from headrace.contracts.errors import LLMCapabilityError, LLMError
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, LLMResponse
from headrace.gateway.embeddings import Embeddings
from headrace.gateway.generation import Asked, Generation
from headrace.gateway.routes import Route, Way
from headrace.net.clock import Clock
from headrace.traffic.fallback import Earlier
from headrace.traffic.routing.choice import Chosen
from headrace.wire import ollama_embed
from headrace.wire.inbound import Inbound
from headrace.wire.ollama_answers import DURATIONS

_FORMAT = "ollama"
_NO_TIME = re.compile(r"0+(\.0*)?[a-z]*")


@frozen(kw_only=True)
class OllamaGeneration(Generation):
    """An ASGI application for ``POST /api/chat`` and ``POST /api/generate``.

    A request with nothing to answer is a wish to have the model loaded, which is granted: those in
    the box are, and others are not ours to load. One to take it out of memory is refused.
    """

    format: str = _FORMAT

    async def _read(self, scope: Scope, body: bytes) -> Inbound:
        inbound = await super()._read(scope, body)
        request = inbound.request
        keep = request.provider_options.get("keep_alive")
        if _asks_nothing(inbound) and _NO_TIME.fullmatch(str(keep)):
            raise LLMCapabilityError(
                "models of this server are not taken out of memory by callers; leave 'keep_alive' "
                "out",
                status=501,
                param="keep_alive",
            )
        return inbound

    def _calls(
        self,
        inbound: Inbound,
        route: Route,
        chosen: Chosen[Way],
        request_id: str,
        queued: float,
        marks: Marks,
        earlier: Earlier | None = None,
    ) -> AsyncGenerator[LLMDelta, None]:
        if _asks_nothing(inbound):
            own = self.codec.OWN_FIELDS & inbound.request.provider_options.keys()
            marks.dropped += sorted(own)
            return Timed(_loaded(), self.clock, queued, marks)
        request, as_completion = inbound.request, self
        if request.prompt is not None:
            # What a template makes a conversation of is a chat, and this is none.
            as_completion = evolve(self, operation="completion")
            if any(way.format != _FORMAT for way in chosen.ways):
                _check_continuation(request)
                if request.reasoning_effort not in (None, "none"):
                    marks.dropped.append("think")
        calls = Generation._calls(
            as_completion,
            inbound,
            route,
            chosen,
            request_id,
            queued,
            marks,
            earlier,
        )
        return Timed(calls, self.clock, queued, marks)

    async def _body(self, asked: Asked, response: LLMResponse) -> bytes:
        body: bytes = self.codec.write_response(
            response,
            model=asked.route.asked(asked.inbound.request.model),
            created=self.clock.wall(),
            durations=_timed(asked).durations(),
        )
        return body

    def _writer(self, asked: Asked, first: LLMDelta | None) -> Any:
        return self.codec.stream_writer(
            response_id="",
            model=asked.route.asked(asked.inbound.request.model),
            created=self.clock.wall(),
            now=self.clock.wall,
        )

    async def _end(self, asked: Asked, writer: Any, error: LLMError | None = None) -> bytes:
        if error is not None:
            broken: bytes = writer.error(error)
            return broken
        last: bytes = writer.finish(_timed(asked).durations())
        return last


class Timed(AsyncGenerator[LLMDelta, None]):
    """The pieces of a call, and how long what of it took as seen from here.

    What the backend says it took itself is taken for that, but for the whole of it. Otherwise the
    prompt's time is that from sending the request until the first piece of output, with the wait at
    the backend in it, and the answer's from there until the last piece. What came in one piece has
    neither.
    """

    def __init__(
        self,
        calls: AsyncGenerator[LLMDelta, None],
        clock: Clock,
        queued: float,
        marks: Marks,
    ) -> None:
        self._calls, self._clock, self._queued, self._marks = calls, clock, queued, marks
        self._first: float | None = None
        self._last: float | None = None
        self._told: Mapping[str, object] = {}

    async def asend(self, value: None) -> LLMDelta:
        """The next piece."""
        delta = await self._calls.asend(value)
        if delta.text_delta or delta.reasoning_delta or delta.tool_call_delta:
            self._last = self._clock.monotonic()
            if self._first is None:
                self._first = self._last
        if delta.provider_fields is not None:
            self._told = delta.provider_fields
        return delta

    async def athrow(self, *raised: Any) -> LLMDelta:
        """As of any generator."""
        return await self._calls.athrow(*raised)

    async def aclose(self) -> None:
        """End the call."""
        await self._calls.aclose()

    def durations(self) -> dict[str, int]:
        """What is known by now, in nanoseconds."""
        now = self._clock.monotonic()
        sent, first, last = self._marks.sent, self._first, self._last
        return durations(self._queued, sent, first, last, now, self._told)


def durations(
    queued: float,
    sent: float | None,
    first: float | None,
    last: float | None,
    now: float,
    told: Mapping[str, object],
) -> dict[str, int]:
    """What of a call took how long, in nanoseconds, by the instants at which it was ``queued`` and
    ``sent``, and its ``first`` and ``last`` output came; ``told`` is what the backend says of it."""
    found = {"total_duration": _ns(now - queued)}
    if sent is not None and first is not None and last is not None and last > first:
        found |= {"prompt_eval_duration": _ns(first - sent), "eval_duration": _ns(last - first)}
    own = {name: told.get(name) for name in DURATIONS[1:]}
    return found | {name: ns for name, ns in own.items() if isinstance(ns, int)}


@frozen(kw_only=True)
class OllamaEmbeddings(Embeddings):
    """An ASGI application for ``POST /api/embed``; with ``old``, for ``POST /api/embeddings``."""

    codec: ModuleType = ollama_embed
    old: bool = False

    def _read(self, scope: Scope, body: bytes) -> ollama_embed.Inbound:
        read = ollama_embed.read_old_request if self.old else ollama_embed.read_request
        return read(body)

    def _body(self, inbound: Any, result: EmbeddingResult, model: str, queued: float) -> bytes:
        if self.old:
            return ollama_embed.write_old_response(result)
        took = _ns(self.clock.monotonic() - queued)
        return ollama_embed.write_response(result, model=model, total_duration=took)

    def _fitting(
        self, request: EmbeddingRequest, ways: Sequence[Way], marks: Marks
    ) -> EmbeddingRequest:
        own = ollama_embed.OWN_FIELDS & request.provider_options.keys()
        if not own or all(way.format == _FORMAT for way in ways):
            return request
        kept = {k: v for k, v in request.provider_options.items() if k not in own}
        # Others refuse what is too long, which is what false asks for.
        told = (name for name in own if request.provider_options[name] not in (False, {}, None))
        marks.dropped += sorted(told)
        return evolve(request, provider_options=kept)


def _check_continuation(request: LLMRequest) -> None:
    """Refuses what only an Ollama can do where a prompt is continued as it stands."""
    if request.response_schema is not None or request.response_format is not None:
        raise LLMCapabilityError(
            "'format' has no place beside 'raw' or 'suffix' with this model: its backend continues "
            "a prompt as it stands. Ask without 'raw', or send it to /api/chat",
            param="format",
        )


def asks_something(inbound: Inbound) -> bool:
    """Whether there is something to answer."""
    return not _asks_nothing(inbound)


def _asks_nothing(inbound: Inbound) -> bool:
    return not inbound.request.messages and inbound.request.prompt is None


async def _loaded() -> AsyncGenerator[LLMDelta, None]:
    yield LLMDelta(finish_reason="stop", raw_finish_reason="load")


def _timed(asked: Asked) -> Timed:
    assert isinstance(asked.calls, Timed)
    return asked.calls


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
