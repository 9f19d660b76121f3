"""Recordings to text and text to sound, as the client asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from attrs import evolve

from headrace.client.call import sheet_of
from headrace.client.endpoints import Endpoints
from headrace.client.services import Asked, served
from headrace.contracts.audio import (
    SpeechRequest,
    SpeechResult,
    TranscriptionDelta,
    TranscriptionRequest,
    TranscriptionResult,
)
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.record import Marks
from headrace.traffic.hearing import transcribe
from headrace.wire import openai_audio


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
    answer = await served(
        endpoints,
        Asked(
            service="audio/speech",
            operation="speech",
            write=lambda model: openai_audio.write_speech_request(request, model=model),
            model=request.model,
            metadata=request.metadata,
            request_id=request.request_id,
            prompt=request.text,
        ),
    )
    if not answer.body:
        raise LLMBadResponseError("the backend answered without any sound")
    return SpeechResult(audio=answer.body, content_type=answer.content_type, usage=answer.usage)
