"""Calls that turn a recording into text: on the way of all other calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from attrs import evolve

from headrace.contracts.audio import TranscriptionDelta, TranscriptionRequest
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend, Transcriber
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, Priority
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane
from headrace.traffic.pieces import Piece, Used, pieces


def can_transcribe(lane: Lane, *, translate: bool) -> bool:
    """Whether its backend turns recordings into text, or into English text."""
    backend: object = lane.backend
    return isinstance(backend, Transcriber) and backend.transcribes(translate=translate)


def transcribe(
    traffic: Traffic,
    request: TranscriptionRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    priority: Priority = "normal",
) -> AsyncGenerator[TranscriptionDelta, None]:
    """The text in pieces, where ``sheet.stream`` asks for them, and then the result."""

    async def ask(
        backend: Backend, model: str | None, marks: Marks
    ) -> AsyncGenerator[Piece[TranscriptionDelta] | Used, None]:
        what = "translates no recordings" if request.translate else "transcribes no recordings"
        if not isinstance(backend, Transcriber) or not backend.transcribes(
            translate=request.translate
        ):
            raise LLMCapabilityError(f"{backend.name} {what}; ask another model", param="model")
        asked = evolve(request, model=model)
        usage = None
        async with aclosing(backend.transcribe(asked, marks, stream=sheet.stream)) as coming:
            async for delta in coming:
                if delta.result is not None:
                    usage = delta.result.usage
                yield Piece(delta)
        yield Used(usage)

    return pieces(
        traffic,
        ask,
        LLMRequest(
            messages=(),
            model=request.model,
            prompt="",
            max_tokens=1,
            metadata=request.metadata,
            request_id=request.request_id,
            priority=priority,
        ),
        lane,
        sheet,
        marks,
        fallbacks=fallbacks,
    )
