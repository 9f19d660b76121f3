"""A backend across HTTP: one provider row, one base URL, one key.

Everything that asks a provider goes through here, our own engines' servers included.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from headrace.backends.fit import Fit, echoed, without_alternatives, without_stop
from headrace.backends.metrics import ask_metrics
from headrace.backends.providers import FORMATS, Provider
from headrace.backends.row import codec as codec_named
from headrace.backends.segments import segment
from headrace.contracts.audio import TranscriptionDelta, TranscriptionRequest
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.inference import InferRequest, InferResult
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance, Usage
from headrace.net.clock import World
from headrace.net.transport import Headers, HttpReply, HttpRequest, TimeLimits, Url, parse_url
from headrace.stores.secret import Secret, as_secret, redact_error
from headrace.wire import json as wire_json
from headrace.wire.assemble import deltas
from headrace.wire.losses import lost

Asked: TypeAlias = LLMRequest | EmbeddingRequest | RerankRequest | ClassificationRequest
"""What a backend may be asked for: each names a model, and may bring a key of its own."""

_MOST_ANSWER_BYTES = 64 << 20
_MOST_ERROR_BYTES = 64 << 10
_MODEL = "{model}"
_MOST_URLS = 64
# What llama.cpp tells beyond the format, and the option that asks for it.
_ASKED_BY = {"timings": "timings_per_token", "prompt_progress": "return_progress"}


@frozen(kw_only=True)
class Written:
    """A request in one provider's words: the ``body`` for ``path``, and who reads the answer.

    ``whole`` is whether it asks for a whole answer; ``keep`` names what of the answer is wanted
    beyond the format.
    """

    codec: ModuleType
    path: str
    body: bytes
    whole: bool
    keep: Collection[str]


@frozen(kw_only=True)
class Remote:
    """One provider at one address. ``key`` is never in a repr, an error or a log.

    ``model`` is the provider's own name for the model, where it differs from the request's.
    ``api_key`` in a request's metadata takes the key's place for that call. Its metrics are at
    ``metrics_url``, where that is not what the provider's row says.
    """

    name: str
    provider: Provider
    base_url: str
    world: World
    key: Secret | None = field(default=None, converter=as_secret, repr=False)
    model: str | None = None
    limits: TimeLimits = field(factory=TimeLimits)
    metrics_url: str | None = None
    _whole_limits: dict[float, TimeLimits] = field(factory=dict, init=False, repr=False, eq=False)
    _urls: dict[str, Url] = field(factory=dict, init=False, repr=False, eq=False)
    _root: str = field(init=False, repr=False, eq=False)
    _fit: Fit = field(init=False, repr=False, eq=False)

    @_root.default
    def _where_paths_begin(self) -> str:
        at_root = FORMATS[self.provider.format].at_root
        return self.base_url.removesuffix("/v1") if at_root else self.base_url

    @_fit.default
    def _fit_of_provider(self) -> Fit:
        return Fit(self.name, self.provider)

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces, as the provider sends them."""
        if request.response_mode is None:
            pieces = self._ask(request, marks)
        else:
            from headrace.backends.structured import in_its_way

            pieces = in_its_way(
                self._ask, request, marks, self.provider, self.model or request.model
            )
        if request.echo and not self.provider.echoes:
            pieces = echoed(pieces, request)
        if self._fit.asks_in_vain(request):
            pieces = without_alternatives(pieces)
        if self._leaves_stop(request):
            pieces = without_stop(pieces, request.stop)
        return pieces

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input."""
        from headrace.backends.one_answer import embed

        return await embed(self, self._fit.inputs(request, marks), marks)

    async def rerank(self, request: RerankRequest, marks: Marks) -> RerankResult:
        """The documents, the most relevant first."""
        from headrace.backends.one_answer import rerank

        return await rerank(self, request, marks)

    async def classify(self, request: ClassificationRequest, marks: Marks) -> ClassificationResult:
        """The classes of each input."""
        from headrace.backends.one_answer import classify

        return await classify(self, request, marks)

    async def answer_to(
        self, request: Asked, path: str, body: bytes, codec: Any, marks: Marks
    ) -> tuple[bytes, Mapping[str, str]]:
        """The whole answer to ``body``, which is ``request`` as ``codec`` writes it; and its headers."""
        marks.backend, marks.provider = self.name, self.provider.name
        key, once = self.key_for(request.metadata), marks.idempotency_key
        more = () if once is None else (("idempotency-key", once),)
        try:
            path = self._named(path, request)
            reply = await self._send("POST", path, body, self.limits, key, more)
            _note(reply, marks)
            try:
                if reply.status != 200:
                    refusal = await reply.read(_MOST_ERROR_BYTES)
                    raise codec.read_error(reply.status, refusal, reply.headers)
                return await reply.read(_MOST_ANSWER_BYTES), reply.headers
            finally:
                await reply.aclose()
        except LLMError as failure:
            failure.provider = failure.provider or self.provider.name
            redact_error(failure, (key,))
            raise

    def relay(self, request: RelayRequest, marks: Marks) -> AsyncGenerator[RelayHead | bytes, None]:
        """The provider's answer to a request that it gets as it stands."""
        from headrace.backends.relay import relayed

        return relayed(self, request, marks)

    def has_service(self, service: str) -> bool:
        """Whether the provider may have it."""
        return self.provider.has_service(service)

    def transcribe(
        self, request: TranscriptionRequest, marks: Marks, *, stream: bool
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """What is heard in a recording."""
        from headrace.backends.audio import heard

        return heard(self, request, marks, stream=stream)

    def transcribes(self, *, translate: bool) -> bool:
        """Whether the provider may have that service."""
        return self.has_service("audio/translations" if translate else "audio/transcriptions")

    async def infer(self, request: InferRequest, marks: Marks) -> InferResult:
        """What a model that is no language model answers."""
        from headrace.backends.inferring import infer

        return await infer(self, request, marks)

    async def post(
        self, path: str, value: Mapping[str, object], limits: TimeLimits
    ) -> dict[str, object]:
        """One plain call outside the formats (tokenise, templates): JSON object in and out."""
        reply = await self._send("POST", path, wire_json.encode(value), limits, self.key)
        try:
            body = await reply.read(_MOST_ANSWER_BYTES)
        finally:
            await reply.aclose()
        if reply.status != 200:
            raise self._refusal(reply, body)
        answer = wire_json.decode_reply(body)
        if not isinstance(answer, dict):
            raise LLMBadResponseError(f"{self.name} answered {path} with no JSON object")
        return answer

    async def count_prompt(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, as the provider counts it; few have such a service."""
        provider = self.provider
        if provider.count_path is None:
            raise LLMCapabilityError(
                f"{self.name} ({provider.name}) does not count tokens; ask a model of another backend",
                param="model",
            )
        key = self.key_for(request.metadata)
        try:
            asked = self._fit.request(request, Marks())
            body = provider.chat.write_count_request(asked, model=self.model or request.model)
            path = self._named(provider.count_path, request)
            reply = await self._send("POST", path, body, self.limits, key)
            try:
                answer = await reply.read(_MOST_ERROR_BYTES)
            finally:
                await reply.aclose()
            if reply.status != 200:
                raise provider.chat.read_error(reply.status, answer, reply.headers)
            count: int = provider.chat.read_count(answer)
            return count
        except LLMError as failure:
            failure.provider = failure.provider or provider.name
            redact_error(failure, (key,))
            raise

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models that it lists."""
        provider = self.provider
        asked = b"{}" if provider.models_method == "POST" else b""
        reply = await self._send(
            provider.models_method, provider.models_path, asked, self.limits, self.key
        )
        try:
            body = await reply.read(_MOST_ANSWER_BYTES)
        finally:
            await reply.aclose()
        if reply.status != 200:
            raise self._refusal(reply, body)
        listed: tuple[ModelInfo, ...] = tuple(self.provider.models.read_models(body))
        return listed

    async def status(self) -> BackendStatus:
        """Whether it says that it is ready, or lists its models, now."""
        checked_at = Provenance.now_iso()
        try:
            if self.provider.ready_path is not None:
                from headrace.backends.inferring import of_root

                ready = of_root(self.base_url) + self.provider.ready_path
                await self.exchange("GET", ready, b"", Marks(), {})
                return BackendStatus(ok=True, checked_at=checked_at)
            listed = await self.models()
        except LLMError as error:
            return BackendStatus(ok=False, message=str(error), checked_at=checked_at)
        names = [model.model_id for model in listed]
        return BackendStatus(ok=True, details={"models": names}, checked_at=checked_at)

    @property
    def tells_metrics(self) -> bool:
        """Whether there is a place where it tells how it is."""
        return self.metrics_url is not None or self.provider.metrics_path is not None

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """What the engine there tells about itself; none where it is none that we know."""
        found = await ask_metrics(self)
        return () if found is None else (found,)

    # For those who send requests to it in their own way.

    async def exchange(
        self,
        method: str,
        url: str,
        body: bytes,
        marks: Marks,
        metadata: Mapping[str, object],
        more: Headers = (),
    ) -> tuple[bytes, Mapping[str, str]]:
        """One plain call to ``url``, noted in ``marks``: the body and headers of its answer.

        ``metadata`` may hold the key for it. Raises an LLMError, also where the status is not 200.
        """
        marks.backend, marks.provider = self.name, self.provider.name
        key = self.key_for(metadata)
        once = marks.idempotency_key
        if once is not None:
            more = (*more, ("idempotency-key", once))
        try:
            ask = HttpRequest(
                method=method,
                url=self._whole_url(url),
                headers=(*self._headers(key, has_body=bool(body)), *more),
                body=body,
            )
            reply = await self.world.transport.send(ask, self.limits)
            _note(reply, marks)
            try:
                if reply.status != 200:
                    refusal = await reply.read(_MOST_ERROR_BYTES)
                    raise self.provider.chat.read_error(reply.status, refusal, reply.headers)
                return await reply.read(_MOST_ANSWER_BYTES), reply.headers
            finally:
                await reply.aclose()
        except LLMError as failure:
            failure.provider = failure.provider or self.provider.name
            redact_error(failure, (key,))
            raise

    def written(self, request: LLMRequest, marks: Marks) -> Written:
        """``request`` as it is sent; what of it the provider cannot be given goes into ``marks``.

        Raises what is wrong with it for this provider.
        """
        provider = self.provider
        request = self._fitted(request, marks)
        is_chat = request.prompt is None
        codec = provider.chat if is_chat else provider.completions
        path = provider.chat_path if is_chat else provider.completions_path
        if codec is None or path is None:
            what = (
                "answers no chats; ask a model of another backend"
                if is_chat
                else "has no text completions; send messages instead of a prompt"
            )
            raise LLMCapabilityError(
                f"{self.name} ({provider.name}) {what}", param="messages" if is_chat else "prompt"
            )
        whole = self._asks_whole(request, marks)
        stream_path = provider.stream_path if is_chat else provider.completions_stream_path
        if not whole and stream_path is not None:
            path = stream_path
        body = codec.write_request(
            request,
            model=self.model or request.model,
            stream=not whole,
            include_usage=provider.stream_usage,
            dialect=provider.dialect,
        )
        return Written(
            codec=codec,
            path=self._named(path, request),
            body=body,
            whole=whole,
            keep=_asked_for(request),
        )

    def puts_right(self, request: LLMRequest) -> bool:
        """Whether the answer to ``request`` is put right behind the codec that reads it."""
        return bool(
            request.response_mode is not None
            or (request.echo and not self.provider.echoes)
            or self._fit.asks_in_vain(request)
            or self._leaves_stop(request)
            or self._asks_by_tensors(request)
        )

    def _leaves_stop(self, request: LLMRequest) -> bool:
        """Whether the stop string that ends an answer is left in its text."""
        return bool(self.provider.stop_in_text and request.stop and request.prompt is not None)

    def _fitted(self, request: LLMRequest, marks: Marks) -> LLMRequest:
        """``request`` without what the provider cannot be given, which goes into ``marks``; a
        conversation as a text, where that is how its models are asked."""
        provider = self.provider
        request = self._fit.request(request, marks)
        codec = provider.chat
        if request.prompt is not None and provider.completions is not None:
            codec = provider.completions
        own_seals: str | None = getattr(codec, "OWN_SEALS", None)
        marks.dropped += lost(request, codec.LOSSES, provider.dialect, own_seals)
        if provider.prompt_template is None or request.prompt is not None:
            return request
        from headrace.backends.prompting import as_completion

        return as_completion(request, provider.prompt_template, self.name)

    def url(self, path: str) -> Url:
        """The address of ``path``."""
        return self._url(path)

    def headers(self) -> Headers:
        """What goes with every request that has a body, its key included."""
        return self._headers(self.key, has_body=True)

    def own_headers(self, key: Secret | None) -> Headers:
        """The provider's own headers, with that key."""
        return self._headers(key, has_body=False)[1:]

    def key_for(self, metadata: Mapping[str, object]) -> Secret | None:
        """The key for a request with that metadata; its ``api_key`` goes before our own."""
        own = metadata.get("api_key")
        if own is None or own == "":
            return self.key
        if not isinstance(own, (str, Secret)):
            raise LLMInvalidRequestError(
                f"metadata.api_key is a {type(own).__name__}, must be text", param="metadata"
            )
        return as_secret(own)

    async def aclose(self) -> None:
        """Nothing of its own to give back: the transport belongs to who made it."""

    def _url(self, path: str) -> Url:
        return self._whole_url(self._root + path)

    def _whole_url(self, path: str) -> Url:
        url = self._urls.get(path)
        if url is None:
            query = urlencode(self.provider.query)
            before = "&" if "?" in path else "?"
            url = parse_url(path + (f"{before}{query}" if query else ""))
            # A model's name may stand in it, and who asks may name many.
            if len(self._urls) < _MOST_URLS:
                self._urls[path] = url
        return url

    def _named(self, path: str, request: Asked) -> str:
        """``path`` with the model's name, where it has a place for one."""
        if _MODEL not in path:
            return path
        model = self.model or request.model
        if not model:
            raise LLMInvalidRequestError(
                f"{self.name} ({self.provider.name}) needs a model: it stands in the address",
                param="model",
            )
        return path.replace(_MODEL, segment(model))

    def _refusal(self, reply: HttpReply, body: bytes) -> LLMError:
        error: LLMError = self.provider.chat.read_error(reply.status, body, reply.headers)
        redact_error(error, (self.key,))
        return error

    def _headers(self, key: Secret | None, *, has_body: bool) -> Headers:
        provider = self.provider
        headers = [("accept", _accept(provider.format)), *provider.headers.items()]
        if has_body:
            headers.append(("content-type", "application/json"))
        if key is not None:
            headers.append((provider.key_header, provider.key_scheme + key.reveal()))
        return tuple(headers)

    async def _ask(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        marks.backend, marks.provider = self.name, self.provider.name
        key = self.key_for(request.metadata)
        try:
            if self._asks_by_tensors(request):
                from headrace.backends.inferring import complete

                whole_answer = await complete(self, self._fitted(request, marks), marks)
                marks.came_whole = True
                for delta in deltas(whole_answer):
                    yield delta
                return
            written = self.written(request, marks)
            codec, keep = written.codec, written.keep
            reply = await self._sent(written, marks, key)
            try:
                if reply.status != 200:
                    refusal = await reply.read(_MOST_ERROR_BYTES)
                    raise codec.read_error(reply.status, refusal, reply.headers)
                if codec.STREAM_TYPE not in reply.headers.get("content-type", ""):
                    # Asked so, or it did not stream although asked to.
                    answer = await reply.read(_MOST_ANSWER_BYTES)
                    marks.came_whole = True
                    for delta in (
                        deltas(codec.read_response(answer, keep=keep))
                        if marks.whole_within_s is None
                        else codec.read_whole(answer, keep=keep)
                    ):
                        yield delta
                    usage = _told_beside(codec, reply)
                    if usage is not None:
                        yield LLMDelta(usage_delta=usage)
                    return
                reader = codec.stream_reader(keep)
                async for piece in reply:
                    for delta in reader.feed(piece):
                        yield delta
                for delta in reader.close():
                    yield delta
            finally:
                await reply.aclose()
        except LLMError as failure:
            failure.provider = failure.provider or self.provider.name
            redact_error(failure, (key,))
            raise

    async def _sent(self, written: Written, marks: Marks, key: Secret | None) -> HttpReply:
        once = marks.idempotency_key
        reply = await self._send(
            "POST",
            written.path,
            written.body,
            self._limits_of_whole(marks.whole_s) if written.whole else self.limits,
            key,
            () if once is None else (("idempotency-key", once),),
        )
        _note(reply, marks)
        return reply

    def _asks_whole(self, request: LLMRequest, marks: Marks) -> bool:
        provider = self.provider
        if request.logprobs and request.tools and not provider.streams_logprobs_with_tools:
            return True
        if not provider.asked_whole or marks.whole_within_s is None:
            return False
        if marks.whole_s is not None:
            return True
        # The first byte of a whole answer comes with its last: a shorter limit for it is a wish to
        # see a beginning by then.
        first_byte_s = self.limits.first_byte_s
        return first_byte_s is None or first_byte_s >= marks.whole_within_s

    def _asks_by_tensors(self, request: LLMRequest) -> bool:
        provider = self.provider
        return (
            (request.prompt is not None or provider.prompt_template is not None)
            and provider.completions_path is None
            and provider.inference is not None
            and provider.inference.text_input is not None
        )

    def _limits_of_whole(self, whole_s: float | None) -> TimeLimits:
        if whole_s is None:
            return self.limits
        found = self._whole_limits.get(whole_s)
        if found is None:
            found = self._whole_limits[whole_s] = evolve(self.limits, first_byte_s=whole_s)
        return found

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        limits: TimeLimits,
        key: Secret | None,
        more: Headers = (),
    ) -> Awaitable[HttpReply]:
        return self.world.transport.send(
            HttpRequest(
                method=method,
                url=self._url(path),
                headers=(*self._headers(key, has_body=bool(body)), *more),
                body=body,
            ),
            limits,
        )


@lru_cache
def _accept(format_name: str) -> str:
    return f"application/json, {codec_named(FORMATS[format_name].chat).STREAM_TYPE}"


def _asked_for(request: LLMRequest) -> Collection[str]:
    """What of an answer ``request`` asks for that not every answer has."""
    options = request.provider_options
    if not options and not request.logprobs:
        return ()
    found = [name for name, option in _ASKED_BY.items() if options.get(option)]
    return [*found, "logprobs"] if request.logprobs else found


def _told_beside(codec: ModuleType, reply: HttpReply) -> Usage | None:
    """What an answer used, where its headers tell it and its body does not."""
    read = getattr(codec, "usage_from_headers", None)
    found: Usage | None = None if read is None else read(reply.headers)
    return found


def _note(reply: HttpReply, marks: Marks) -> None:
    marks.sent, marks.first_byte, marks.status = reply.sent_at, reply.first_byte_at, reply.status
    marks.sends = reply.sends
