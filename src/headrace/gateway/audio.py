"""The endpoints for recordings that become text: read, route, run, write."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.audio import TranscriptionDelta, TranscriptionResult
from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.record import Marks
from headrace.gateway.asgi import (
    Headers,
    answer,
    dropped_header,
    header,
    read_body,
    while_connected,
)
from headrace.gateway.behind import is_behind
from headrace.gateway.generation import stream_headers
from headrace.gateway.services import choose
from headrace.gateway.standing import standing_of
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.traffic.hearing import can_transcribe, transcribe
from headrace.wire import openai_audio, openai_transcripts
from headrace.wire.openai_audio import Inbound


@frozen(kw_only=True)
class Transcriptions:
    """An ASGI application that answers with what is heard; with ``translate``, in English."""

    translate: bool = False
    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        content_type = (header(scope, b"content-type") or b"").decode("latin-1")
        inbound = openai_audio.read_request(content_type, body, translate=self.translate)
        del body
        request = inbound.request
        route, chosen = choose(
            scope,
            standing.routes,
            request.model,
            lambda lane: can_transcribe(lane, translate=self.translate),
            "audio/translations" if self.translate else "audio/transcriptions",
        )
        model = None if request.model is None else route.asked(request.model)
        first, *others = chosen.ways
        marks = Marks()
        run = transcribe(
            self.traffic,
            evolve(request, model=first.model or model, request_id=scope["headrace.request_id"]),
            first.lane,
            CallSheet(
                call_id=new_call_id(),
                operation="translation" if self.translate else "transcription",
                queued=queued,
                stream=inbound.stream,
                requested_model=request.model,
                route=route.model,
                decision=chosen.decision,
            ),
            marks,
            fallbacks=[evolve(way, model=way.model or model) for way in others],
            priority="idle" if is_behind(scope) else "normal",
        )
        how = self._stream if inbound.stream else self._whole
        await while_connected(receive, how(inbound, run, marks, scope, send))

    async def _whole(
        self,
        inbound: Inbound,
        run: AsyncGenerator[TranscriptionDelta, None],
        marks: Marks,
        scope: Scope,
        send: Send,
    ) -> None:
        result: TranscriptionResult | None = None
        async with aclosing(run):
            async for delta in run:
                result = delta.result or result
        if result is None:
            raise LLMBadResponseError("the backend ended without a result")
        content_type, body = openai_transcripts.write_response(
            result, inbound.response_format, translate=self.translate
        )
        await answer(send, 200, body, _headers(scope, marks), content_type.encode())

    async def _stream(
        self,
        inbound: Inbound,
        run: AsyncGenerator[TranscriptionDelta, None],
        marks: Marks,
        scope: Scope,
        send: Send,
    ) -> None:
        by_voice = inbound.response_format == "diarized_json"
        writer = openai_transcripts.StreamWriter(by_voice=by_voice)
        async with aclosing(run):
            first = await anext(run, None)
            headers = [
                *stream_headers(openai_transcripts.STREAM_TYPE),
                *_headers(scope, marks),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            last = b""
            try:
                if first is not None:
                    await _send(send, writer.write(first))
                async for delta in run:
                    await _send(send, writer.write(delta))
            except LLMError as error:
                # The status is out: the error becomes the stream's last event.
                error.request_id = scope["headrace.request_id"]
                last = writer.error(error)
        await send({"type": "http.response.body", "body": last})


async def _send(send: Send, piece: bytes) -> None:
    if piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def _headers(scope: Scope, marks: Marks) -> Headers:
    headers: Headers = scope["headrace.headers"]
    if not marks.dropped:
        return headers
    return [*headers, dropped_header(marks.dropped)]
