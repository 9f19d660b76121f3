"""A backend across HTTP: one provider row, one base URL, one key.

Everything that asks a provider goes through here, our own engines' servers included.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from difflib import get_close_matches

from attrs import evolve, field, fields, frozen

from headrace.backends.providers import Provider
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.record import Attempt, Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Provenance
from headrace.net.clock import World
from headrace.net.transport import HttpReply, HttpRequest, TimeLimits, Url, parse_url
from headrace.wire import json as wire_json
from headrace.wire.assemble import deltas

_MOST_ANSWER_BYTES = 64 << 20
_MOST_ERROR_BYTES = 64 << 10


@frozen(kw_only=True)
class Remote:
    """One provider at one address. ``key`` is never in a repr, an error or a log.

    ``model`` is the provider's own name for the model, where it differs from the request's.
    """

    name: str
    provider: Provider
    base_url: str
    world: World
    key: str | None = field(default=None, repr=False)
    model: str | None = None
    limits: TimeLimits = field(factory=TimeLimits)
    _urls: dict[str, Url] = field(factory=dict, init=False, repr=False, eq=False)

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces, as the provider sends them."""
        clock = self.world.clock
        begin = clock.monotonic()
        error: LLMError | None = None
        marks.backend, marks.provider = self.name, self.provider.name
        try:
            async for delta in self._ask(self._fitted(request, marks), marks):
                yield delta
        except LLMError as failure:
            failure.provider = failure.provider or self.provider.name
            error = failure
            raise
        finally:
            marks.attempts.append(
                Attempt(
                    backend=self.name,
                    begin=begin,
                    end=clock.monotonic(),
                    status=marks.status,
                    error_kind=None if error is None else type(error).__name__,
                )
            )

    async def post(
        self, path: str, value: Mapping[str, object], limits: TimeLimits
    ) -> dict[str, object]:
        """One plain call outside the formats (tokenise, templates): JSON object in and out."""
        reply = await self._send("POST", path, wire_json.encode(value), limits)
        try:
            body = await reply.read(_MOST_ANSWER_BYTES)
        finally:
            await reply.aclose()
        if reply.status != 200:
            raise self.provider.chat.read_error(reply.status, body, reply.headers)
        answer = wire_json.decode_reply(body)
        if not isinstance(answer, dict):
            raise LLMBadResponseError(f"{self.name} answered {path} with no JSON object")
        return answer

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models that it lists."""
        reply = await self._send("GET", self.provider.models_path, b"", self.limits)
        try:
            body = await reply.read(_MOST_ANSWER_BYTES)
        finally:
            await reply.aclose()
        if reply.status != 200:
            raise self.provider.chat.read_error(reply.status, body, reply.headers)
        listed: tuple[ModelInfo, ...] = tuple(self.provider.models.read_models(body))
        return listed

    async def status(self) -> BackendStatus:
        """Whether it lists its models now."""
        checked_at = Provenance.now_iso()
        try:
            listed = await self.models()
        except LLMError as error:
            return BackendStatus(ok=False, message=str(error), checked_at=checked_at)
        names = [model.model_id for model in listed]
        return BackendStatus(ok=True, details={"models": names}, checked_at=checked_at)

    async def aclose(self) -> None:
        """Nothing of its own to give back: the transport belongs to who made it."""

    def _url(self, path: str) -> Url:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = parse_url(self.base_url + path)
        return url

    def _fitted(self, request: LLMRequest, marks: Marks) -> LLMRequest:
        """``request`` without what the provider ignores, which is written into ``marks``.

        Raises LLMCapabilityError for a setting that it cannot carry out, and
        LLMInvalidRequestError for a field that it does not know.
        """
        provider = self.provider
        for name in provider.unsupported:
            if getattr(request, name) not in (None, ()):
                raise LLMCapabilityError(
                    f"{self.name} ({provider.name}) does not support {name!r}; leave it out, or "
                    "ask a model of another backend",
                    param=name,
                )
        if provider.options is None or not request.provider_options:
            return request
        kept = {}
        for name, value in request.provider_options.items():
            if name in provider.options:
                kept[name] = value
            elif name in provider.ignored:
                marks.dropped.append(name)
            elif value is not None:
                raise self._unknown(name)
        return evolve(request, provider_options=kept)

    def _unknown(self, name: str) -> LLMInvalidRequestError:
        known = [field.name for field in fields(LLMRequest)] + sorted(self.provider.options or ())
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return LLMInvalidRequestError(
            f"{self.name} ({self.provider.name}) knows no field {name[:100]!r}{hint}",
            param=name[:100],
            code="unknown_parameter",
        )

    async def _ask(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        provider = self.provider
        is_chat = request.prompt is None
        codec = provider.chat if is_chat else provider.completions
        path = provider.chat_path if is_chat else provider.completions_path
        body = codec.write_request(
            request, model=self.model or request.model, stream=True, dialect=provider.dialect
        )
        reply = await self._send("POST", path, body, self.limits)
        marks.sent, marks.first_byte, marks.status = (
            reply.sent_at,
            reply.first_byte_at,
            reply.status,
        )
        try:
            if reply.status != 200:
                refusal = await reply.read(_MOST_ERROR_BYTES)
                raise codec.read_error(reply.status, refusal, reply.headers)
            if "text/event-stream" not in reply.headers.get("content-type", ""):
                # It did not stream although asked to: a whole answer is a stream of one piece.
                for delta in deltas(codec.read_response(await reply.read(_MOST_ANSWER_BYTES))):
                    yield delta
                return
            reader = codec.stream_reader()
            async for piece in reply:
                for delta in reader.feed(piece):
                    yield delta
            for delta in reader.close():
                yield delta
        finally:
            await reply.aclose()

    async def _send(self, method: str, path: str, body: bytes, limits: TimeLimits) -> HttpReply:
        headers = [("accept", "application/json, text/event-stream")]
        if body:
            headers.append(("content-type", "application/json"))
        if self.key is not None:
            headers.append(("authorization", f"Bearer {self.key}"))
        request = HttpRequest(method=method, url=self._url(path), headers=tuple(headers), body=body)
        return await self.world.transport.send(request, limits)
