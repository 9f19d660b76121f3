"""An answer that came in another manner than it was asked for, put right by the codecs."""

from __future__ import annotations

import time
import uuid
from types import ModuleType

from headrace.contracts.responses import LLMDelta
from headrace.wire.assemble import Assembler, deltas
from headrace.wire.passing import PassingAnswer


def translated(
    body: bytes,
    answer: PassingAnswer,
    codec: ModuleType,
    *,
    from_stream: bool,
    to_stream: bool,
    model: str,
    include_usage: bool,
) -> bytes:
    """``body``, a stream or a whole answer, as the caller wants it; ``answer`` is filled from it.

    ``codec`` is the wire module of the format that both speak.

    Raises the LLMError that reading it comes to.
    """
    pieces = _pieces(body, codec, from_stream=from_stream)
    for piece in pieces:
        answer.model = answer.model or piece.model
        answer.usage = piece.usage_delta or answer.usage
        answer.finish_reason = piece.finish_reason or answer.finish_reason
    given = next((piece.response_id for piece in pieces if piece.response_id), None)
    response_id = codec.answer_id(given, uuid.uuid4().hex)
    created = int(time.time())
    if to_stream:
        writer = codec.stream_writer(
            response_id=response_id, model=model, created=created, include_usage=include_usage
        )
        return b"".join([*map(writer.write, pieces), writer.finish()])
    assembler = Assembler()
    for piece in pieces:
        assembler.add(piece)
    whole: bytes = codec.write_response(
        assembler.response(), response_id=response_id, model=model, created=created
    )
    return whole


def _pieces(body: bytes, codec: ModuleType, *, from_stream: bool) -> list[LLMDelta]:
    if not from_stream:
        return list(deltas(codec.read_response(body)))
    reader = codec.stream_reader()
    pieces = reader.feed(body)
    return [*pieces, *reader.close()]
