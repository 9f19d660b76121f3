"""A server of KServe's protocol that is asked by gRPC: ``grpc://host:port``, or ``grpcs://`` with TLS.

What is asked of it is what is asked by REST; only the messages are others (``wire.kserve_grpc``).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from headrace.backends.providers import PROVIDERS
from headrace.backends.remote import Remote
from headrace.backends.row import Inference, Provider
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.contracts.inference import InferRequest, InferResult, ModelMetadata
from headrace.contracts.record import Marks
from headrace.contracts.responses import Provenance
from headrace.net.channels import TOO_LARGE, Channels, GrpcAnswer, require_grpc
from headrace.net.proxy import Through
from headrace.net.transport import (
    Headers,
    HttpReply,
    HttpRequest,
    TimeLimits,
    Transport,
    Url,
    as_http,
    parse_url,
)
from headrace.stores.secret import redact_error
from headrace.wire import kserve_grpc
from headrace.wire.json import encode
from headrace.wire.openai_errors import read_error

_TEXT_INPUT = "text_input"
# What a REST server would say of the same; and the short reason, where the number says less.
_STATUSES: Mapping[str, tuple[int, str | None]] = {
    "INVALID_ARGUMENT": (400, None),
    "FAILED_PRECONDITION": (400, None),
    "OUT_OF_RANGE": (400, None),
    "UNAUTHENTICATED": (401, None),
    "PERMISSION_DENIED": (403, None),
    "NOT_FOUND": (404, None),
    "ALREADY_EXISTS": (409, None),
    "ABORTED": (409, None),
    "RESOURCE_EXHAUSTED": (429, None),
    "UNIMPLEMENTED": (501, "unsupported"),
    "UNAVAILABLE": (503, "backend_unavailable"),
    # It is not our caller who has left.
    "CANCELLED": (503, "backend_unavailable"),
    "DEADLINE_EXCEEDED": (504, None),
}


@frozen
class _ByGrpc:
    """Meets Transport: calls by gRPC go to ``channels``, and what goes by HTTP to ``http``."""

    http: Transport
    channels: Channels

    async def send(self, request: HttpRequest, limits: TimeLimits) -> HttpReply:
        return await self.http.send(request, limits)

    async def aclose(self) -> None:
        """Both are somebody else's to close."""


@frozen(kw_only=True)
class KServeGrpc(Remote):
    """One server at one address. A text is asked for as the tensor ``text_input``."""

    async def infer(self, request: InferRequest, marks: Marks) -> InferResult:
        """What the model answers."""
        model = self._model(request.model)
        asked = kserve_grpc.write_infer(request, model)
        answer = await self._call("ModelInfer", asked, marks, request.metadata)
        result = kserve_grpc.read_result(answer)
        return result if result.model_id is not None else evolve(result, model_id=model)

    async def metadata(self, model: str | None, version: str | None) -> ModelMetadata:
        """What a model takes and gives, as its server tells."""
        named = kserve_grpc.write_named(self._model(model), version)
        return kserve_grpc.read_metadata(await self._call("ModelMetadata", named, Marks()))

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models of its repository's index, which is Triton's extension."""
        return kserve_grpc.read_index(await self._call("RepositoryIndex", b"", Marks()))

    async def status(self) -> BackendStatus:
        """Whether it says that it is ready, and, where one model is meant, that this one is."""
        checked_at, ready, whose = Provenance.now_iso(), False, "it"
        try:
            ready = kserve_grpc.read_yes(await self._call("ServerReady", b"", Marks()))
            if ready and self.model is not None:
                named = kserve_grpc.write_named(self.model, None)
                ready = kserve_grpc.read_yes(await self._call("ModelReady", named, Marks()))
                whose = f"model {self.model!r}"
        except LLMError as error:
            return BackendStatus(ok=False, message=str(error), checked_at=checked_at)
        message = None if ready else f"{self.name} says that {whose} is not ready"
        return BackendStatus(ok=ready, message=message, checked_at=checked_at)

    async def is_live(self) -> bool:
        """Whether it says that it runs; it may not be ready. Raises an LLMError."""
        return kserve_grpc.read_yes(await self._call("ServerLive", b"", Marks()))

    def _model(self, asked: str | None) -> str:
        model = self.model or asked
        if not model:
            raise LLMInvalidRequestError(
                f"{self.name} ({self.provider.name}) needs a model's name", param="model"
            )
        return model

    async def _call(
        self,
        method: str,
        message: bytes,
        marks: Marks,
        metadata: Mapping[str, object] | None = None,
    ) -> bytes:
        """The message that ``method`` answers; ``metadata`` may hold the key for it."""
        marks.backend, marks.provider = self.name, self.provider.name
        key, row, once = self.key_for(metadata or {}), self.provider, marks.idempotency_key
        shown: Headers = tuple((name.lower(), value) for name, value in row.headers.items())
        if key is not None:
            shown += ((row.key_header.lower(), row.key_scheme + key.reveal()),)
        if once is not None:
            shown += (("idempotency-key", once),)
        transport = self.world.transport
        assert isinstance(transport, _ByGrpc)
        try:
            answer = await transport.channels.call(
                _place(self.base_url),
                f"/{kserve_grpc.SERVICE}/{method}",
                message,
                shown,
                self.limits,
            )
            marks.sent, marks.first_byte = answer.sent_at, answer.first_byte_at
            if answer.code == "OK":
                marks.status = 200
                return answer.body
            if answer.first_byte_at is not None:
                marks.status = _STATUSES.get(answer.code, (500, None))[0]
            raise _error_of(answer, f"{self.name} {method}")
        except LLMError as failure:
            failure.provider = failure.provider or row.name
            redact_error(failure, (key,))
            raise


def by_grpc(remote: Remote) -> KServeGrpc:
    """``remote``, whose address begins with ``grpc://`` or ``grpcs://``, as it is asked by that.

    Raises LLMInvalidRequestError where it cannot be.
    """
    row, transport = remote.provider, remote.world.transport
    if row.inference is None or row.inference.form != "kserve":
        raise LLMInvalidRequestError(
            f"base_url is {remote.base_url!r}, but {row.name} is not asked by gRPC; those that are: "
            "kserve, triton, tensorrt-llm, ovms and rows like them",
            param="base_url",
        )
    _place(remote.base_url)
    require_grpc(f"base_url {remote.base_url!r}")
    if isinstance(transport, Through):
        raise LLMInvalidRequestError(
            f"{remote.base_url} would go through a proxy, which gRPC does not here: name the host in "
            "no_proxy, or set no proxy for it",
            param="proxy",
        )
    channels = getattr(transport, "channels", None)
    if not isinstance(channels, Channels):
        raise LLMInvalidRequestError(
            f"base_url is {remote.base_url!r}, but the transport that was handed in has no channels "
            "for gRPC",
            param="base_url",
        )
    return KServeGrpc(
        name=remote.name,
        provider=_row_by_grpc(row, row.inference),
        base_url=remote.base_url,
        world=evolve(remote.world, transport=_ByGrpc(transport, channels)),
        key=remote.key,
        model=remote.model,
        limits=remote.limits,
        metrics_url=remote.metrics_url,
    )


def _row_by_grpc(row: Provider, inference: Inference) -> Provider:
    """``row`` without what it has by HTTP alone."""
    like = row if row.format == "kserve" else PROVIDERS["kserve"]
    return evolve(
        like,
        name=row.name,
        key_header=row.key_header,
        key_scheme=row.key_scheme,
        headers=row.headers,
        unsupported=like.unsupported | row.unsupported,
        ignored=like.ignored | row.ignored,
        # They are fields of a REST extension's body.
        defaults={},
        completions_path=None,
        completions_stream_path=None,
        ready_path=None,
        metrics_path=None,
        services=frozenset(),
        prompt_template=row.prompt_template or like.prompt_template,
        inference=evolve(inference, text_input=inference.text_input or _TEXT_INPUT),
    )


def _place(base_url: str) -> Url:
    url = parse_url(as_http(base_url))
    rest = base_url.partition("://")[2]
    if url.target != "/" or not rest.rstrip("/").rpartition(":")[2].isdigit():
        raise LLMInvalidRequestError(
            f"base_url is {base_url!r}, must be grpc://host:port or grpcs://host:port",
            param="base_url",
        )
    return url


def _error_of(answer: GrpcAnswer, who: str) -> LLMError:
    """The refusal, of the class that the same has by REST."""
    status, reason = _STATUSES.get(answer.code, (500, None))
    if answer.code == "RESOURCE_EXHAUSTED" and TOO_LARGE in answer.said:
        status = 413  # it is none of its limits of calls
    said = f"{answer.said or f'{who} failed'} (gRPC status {answer.code})"
    detail = {"message": said, "code": reason}
    error = read_error(status, encode({"error": detail}), answer.headers)
    if isinstance(error, LLMCapabilityError):
        error.status = LLMCapabilityError.default_status
    return error
