"""Recordings to text at a provider across HTTP that speaks OpenAI's format."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from headrace.contracts.audio import TranscriptionDelta, TranscriptionRequest
from headrace.contracts.errors import LLMBadResponseError
from headrace.contracts.record import Marks
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.wire import openai_audio, openai_transcripts

if TYPE_CHECKING:
    from headrace.backends.remote import Remote

TRANSCRIPTIONS, TRANSLATIONS = "audio/transcriptions", "audio/translations"
_MOST_ANSWER_BYTES = 64 << 20


async def heard(
    remote: Remote, request: TranscriptionRequest, marks: Marks, *, stream: bool
) -> AsyncGenerator[TranscriptionDelta, None]:
    """The text in pieces where the provider streams it and ``stream`` asks for that; then the result."""
    content_type, body = openai_audio.write_request(
        request, model=remote.model or request.model, stream=stream
    )
    asked = RelayRequest(
        path="/" + (TRANSLATIONS if request.translate else TRANSCRIPTIONS),
        headers=(
            ("accept", f"application/json, {openai_transcripts.STREAM_TYPE}"),
            ("content-type", content_type),
        ),
        body=body,
        model=request.model,
        repeats=True,
        of_model=True,
        metadata=request.metadata,
    )
    gathered, reader, came_as = bytearray(), None, ""
    async with aclosing(remote.relay(asked, marks)) as coming:
        async for piece in coming:
            if isinstance(piece, RelayHead):
                came_as = piece.content_type
                if came_as.startswith(openai_transcripts.STREAM_TYPE):
                    reader = openai_transcripts.StreamReader()
            elif reader is not None:
                for delta in reader.feed(piece):
                    yield delta
            else:
                gathered += piece
                if len(gathered) > _MOST_ANSWER_BYTES:
                    raise LLMBadResponseError(
                        f"{remote.name}'s answer is larger than {_MOST_ANSWER_BYTES} bytes"
                    )
    if reader is not None:
        for delta in reader.close():
            yield delta
        return
    marks.came_whole = True
    yield TranscriptionDelta(result=openai_transcripts.read_response(bytes(gathered), came_as))
