"""Requests that a provider gets as they stand, and its answers as they come.

For what we do not read ourselves. The caller's key is never among it: the provider's own is shown.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from attrs import evolve

from headrace.backends.row import OPENAIS, Provider
from headrace.backends.segments import segment
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.record import Marks
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.net.transport import Headers, HttpReply, HttpRequest
from headrace.stores.secret import Secret, redact_error

if TYPE_CHECKING:
    from headrace.backends.remote import Remote

_MOST_ANSWER_BYTES = 1 << 30
_MOST_ERROR_BYTES = 64 << 10
_MODELS, _CHAT, _MODEL = "/models", "/chat/completions", "{model}"
_PASSED_BACK = ("content-length", "content-disposition")


async def relayed(
    remote: Remote, request: RelayRequest, marks: Marks
) -> AsyncGenerator[RelayHead | bytes, None]:
    """How the provider's answer begins, and then its body; raises what it refuses as an LLMError."""
    marks.backend, marks.provider = remote.name, remote.provider.name
    key = remote.key_for(request.metadata)
    try:
        reply = await _sent(remote, request, marks, key)
        try:
            marks.sent, marks.first_byte = reply.sent_at, reply.first_byte_at
            marks.status, marks.sends = reply.status, reply.sends
            if reply.status >= 400:
                refusal = await reply.read(_MOST_ERROR_BYTES)
                error: LLMError = remote.provider.chat.read_error(
                    reply.status, refusal, reply.headers
                )
                raise error
            if reply.status >= 300:
                raise LLMBadResponseError(
                    f"{remote.name} answered {request.path.partition('?')[0]} with a redirect "
                    f"({reply.status}), which is not followed"
                )
            yield _head(reply)
            left = _MOST_ANSWER_BYTES
            async for piece in reply:
                left -= len(piece)
                if left < 0:
                    raise LLMBadResponseError(
                        f"{remote.name}'s answer is larger than {_MOST_ANSWER_BYTES} bytes"
                    )
                yield piece
        finally:
            await reply.aclose()
    except LLMError as failure:
        failure.provider = failure.provider or remote.provider.name
        redact_error(failure, (key,))
        raise


async def _sent(
    remote: Remote, request: RelayRequest, marks: Marks, key: Secret | None
) -> HttpReply:
    provider, limits = remote.provider, remote.limits
    if marks.whole_s is not None:
        limits = evolve(limits, first_byte_s=marks.whole_s)
    once: Headers = ()
    if marks.idempotency_key is not None and request.method == "POST":
        once = (("idempotency-key", marks.idempotency_key),)
    headers, body = request.headers, request.body
    if request.write is not None:
        content_type, body = request.write(remote.model or request.model)
        headers = (*headers, ("content-type", content_type))
    return await remote.world.transport.send(
        HttpRequest(
            method=request.method,
            url=remote.url(_placed(remote.name, provider, request, remote.model)),
            headers=(*remote.own_headers(key), *headers, *once),
            body=body,
        ),
        limits,
    )


def _placed(name: str, provider: Provider, request: RelayRequest, model: str | None) -> str:
    """``request.path`` behind what this provider has before all its paths."""
    if request.of_model and not provider.has_service(request.path[1:]):
        raise LLMCapabilityError(
            f"{name} ({provider.name}) has no {request.path}; ask a model of another backend",
            param="model",
        )
    known = provider.chat_path if request.of_model else provider.models_path
    known = known or provider.models_path
    end = _CHAT if known.endswith(_CHAT) else _MODELS
    if provider.format not in OPENAIS or not (known.endswith(end) or provider.chat_path is None):
        raise LLMCapabilityError(
            f"{name} ({provider.name}) does not speak OpenAI's format, in which "
            f"{request.path.partition('?')[0]} is asked; ask a model of another backend",
            param="model",
        )
    before = known.removesuffix(end)
    if _MODEL in before:
        model = model or request.model
        if not model:
            raise LLMInvalidRequestError(
                f"{name} ({provider.name}) needs a model: it stands in the address", param="model"
            )
        before = before.replace(_MODEL, segment(model))
    return before + request.path


def _head(reply: HttpReply) -> RelayHead:
    headers = reply.headers
    return RelayHead(
        status=reply.status,
        content_type=headers.get("content-type", "application/octet-stream"),
        headers=tuple((name, headers[name]) for name in _PASSED_BACK if name in headers),
    )
