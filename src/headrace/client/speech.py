"""Recordings to text and text to sound, as the client asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from attrs import evolve

from headrace.client.call import sheet_of
from headrace.client.endpoints import Endpoints
from headrace.contracts.audio import (
    SpeechRequest,
    SpeechResult,
    TranscriptionDelta,
    TranscriptionRequest,
    TranscriptionResult,
)
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
)
from headrace.contracts.protocols import Backend, Relays
from headrace.contracts.record import Marks
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.contracts.requests import LLMRequest
from headrace.traffic.hearing import transcribe
from headrace.traffic.pieces import Piece, Used, pieces
from headrace.wire import openai_audio
from headrace.wire.openai_usage import UsageWatch

_MOST_SOUND_BYTES = 256 << 20


async def recording(audio: bytes | str | Path, file_name: str | None) -> tuple[bytes, str]:
    """A recording's bytes and its file's name; one that is no bytes is the path of a file."""
    if isinstance(audio, bytes):
        return audio, file_name or "audio.wav"
    path = Path(audio)
    try:
        return await asyncio.to_thread(path.read_bytes), file_name or path.name
    except OSError as error:
        raise LLMInvalidRequestError(
            f"the recording {str(path)!r} cannot be read: {error.strerror or error}", param="audio"
        ) from error


def heard(
    endpoints: Endpoints, request: TranscriptionRequest, *, stream: bool
) -> AsyncGenerator[TranscriptionDelta, None]:
    """The text of a recording in pieces, and then the result."""
    endpoint, model = endpoints.pick_by_model(request.model, request.metadata)
    return transcribe(
        endpoints.traffic,
        evolve(request, model=model),
        endpoint.lane,
        sheet_of(
            endpoints,
            "translation" if request.translate else "transcription",
            request.model,
            endpoint.provider,
            stream=stream,
        ),
        Marks(),
    )


async def whole(deltas: AsyncGenerator[TranscriptionDelta, None]) -> TranscriptionResult:
    """The result at the end of ``deltas``."""
    result: TranscriptionResult | None = None
    async with aclosing(deltas):
        async for delta in deltas:
            result = delta.result or result
    if result is None:
        raise LLMBadResponseError("the backend ended without a result")
    return result


async def spoken(endpoints: Endpoints, request: SpeechRequest) -> SpeechResult:
    """The sound of a text."""
    endpoint, model = endpoints.pick_by_model(request.model, request.metadata)

    async def ask(
        backend: Backend, model: str | None, marks: Marks
    ) -> AsyncGenerator[Piece[RelayHead | bytes] | Used, None]:
        if not isinstance(backend, Relays) or not backend.has_service("audio/speech"):
            raise LLMCapabilityError(
                f"{backend.name} reads nothing aloud; ask another model", param="model"
            )
        asked = RelayRequest(
            path="/audio/speech",
            headers=(("accept", "*/*"),),
            write=lambda name: (
                "application/json",
                openai_audio.write_speech_request(request, model=name),
            ),
            model=model,
            repeats=True,
            of_model=True,
            metadata=request.metadata,
        )
        watch: UsageWatch | None = None
        async with aclosing(backend.relay(asked, marks)) as coming:
            async for piece in coming:
                if isinstance(piece, RelayHead):
                    watch = UsageWatch(piece.content_type)
                elif watch is not None:
                    watch.feed(piece)
                yield Piece(piece, before_output=isinstance(piece, RelayHead))
        yield Used(None if watch is None else watch.usage)

    run = pieces(
        endpoints.traffic,
        ask,
        LLMRequest(
            messages=(),
            model=model,
            prompt=request.text,
            max_tokens=1,
            metadata=request.metadata,
            request_id=request.request_id,
        ),
        endpoint.lane,
        sheet_of(endpoints, "speech", request.model, endpoint.provider, stream=False),
        Marks(),
    )
    sound, content_type = bytearray(), "application/octet-stream"
    async with aclosing(run) as coming:
        async for piece in coming:
            if isinstance(piece, RelayHead):
                content_type = piece.content_type
                continue
            sound += piece
            if len(sound) > _MOST_SOUND_BYTES:
                raise LLMBadResponseError(f"the sound is larger than {_MOST_SOUND_BYTES} bytes")
    if not sound:
        raise LLMBadResponseError("the backend answered without any sound")
    return SpeechResult(audio=bytes(sound), content_type=content_type)
