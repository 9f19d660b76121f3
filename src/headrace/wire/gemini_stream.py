"""Streams of Gemini's answers: each event is an answer of its own form that holds what is new.

There is no last event. Google writes them where ``alt=sse`` is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from attrs import define, field

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.messages import ToolCall
from headrace.contracts.responses import FinishReason, LLMDelta, ToolCallDelta, Usage
from headrace.wire import sse
from headrace.wire.gemini_answers import (
    candidate,
    finish_reason_to_wire,
    logprobs_to_wire,
    thought_to_wire,
    usage_to_wire,
)
from headrace.wire.gemini_chunks import Chunks
from headrace.wire.gemini_contents import MADE_ID, call_to_wire
from headrace.wire.gemini_errors import error_from_wire, error_to_wire
from headrace.wire.gemini_seals import TEXT_SEAL, call_seal, own_seals
from headrace.wire.json import decode_reply, encode

PING = sse.PING
"""Keeps an idle connection open; no reader gives it to its caller."""

# Google breaks a stream off with an error that is written as if it were a body of its own.
_BARE_ERROR = re.compile(rb"(?:^|[\r\n])\[?(\{\s*\"error\"\s*:.*)", re.DOTALL)
_MOST_TAIL_BYTES = 16 << 10


class StreamReader:
    """Reads a stream's bytes into deltas.

    ``done`` turns true when nothing more can come. What a piece of the stream held before an error
    is given first; the error is raised by the next call.
    """

    def __init__(self) -> None:
        self.done = False
        self._events = sse.Reader()
        self._failure: LLMError | None = None
        self._chunks = Chunks()
        self._is_empty = True
        self._tail = b""

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes."""
        if self._failure is not None:
            raise self._failure
        deltas: list[LLMDelta] = []
        self._tail = (self._tail + data)[-_MOST_TAIL_BYTES:]
        try:
            for event in self._events.feed(data):
                self._is_empty = False
                if event.name == "error":
                    raise error_from_wire(None, decode_reply(event.data))
                deltas += self._chunks.read(event.data)
        except LLMError as error:
            self.done = True
            self._failure = error
            if not deltas:
                raise
        return deltas

    def close(self) -> list[LLMDelta]:
        """Ends the stream; raises where it was cut short."""
        if self._failure is not None:
            raise self._failure
        if self.done:
            return []
        self.done = True
        bare = _BARE_ERROR.search(self._tail)
        if bare is not None:
            try:
                wire = decode_reply(bare[1].rstrip().removesuffix(b"]"))
            except LLMBadResponseError:
                raise _cut_short() from None
            raise error_from_wire(None, wire)
        # Its last event may lack the blank line that ends one; the one before never does.
        rest = self._events.feed(b"\n\n")
        deltas: list[LLMDelta] = []
        for event in rest:
            self._is_empty = False
            try:
                deltas += self._chunks.read(event.data)
            except LLMBadResponseError as error:
                raise _cut_short() from error
        if self._is_empty:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self._chunks.has_ended:
            raise _cut_short()
        return deltas + self._chunks.close()


@define
class _Pending:
    """A call that is being put together: this format writes calls whole."""

    call_id: str = ""
    name: str = ""
    arguments: str = ""


@define
class _Written:
    """One candidate that is being written."""

    calls: dict[int, _Pending] = field(factory=dict)
    seals: dict[str, str] = field(factory=dict)
    thought: str = ""
    finish_reason: FinishReason | None = None
    raw: str | None = None
    has_ended: bool = False


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    Calls come whole, with the reason to stop; that waits for the end, because the counts that go
    with it come last.
    """

    def __init__(self, *, response_id: str, model: str) -> None:
        self.shows_thoughts = True
        """Whether the text of thoughts is told; their signatures always are."""
        self._names = {"modelVersion": model, "responseId": response_id}
        self._usage: Usage | None = None
        self._choices: dict[int, _Written] = {}
        empty = self._event({"candidates": [candidate(0, [{"text": ""}])], **self._names})
        before, _, after = empty.partition(b'""')
        self._around = before, after

    def write(self, delta: LLMDelta) -> bytes:
        """The events for ``delta``; nothing where it holds nothing that a caller gets now."""
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        if (
            delta.text_delta
            and not delta.index
            and delta.finish_reason is None
            and delta.logprobs is None
        ):
            # What surrounds a text never changes, and nearly every delta is a text.
            self._choices.setdefault(0, _Written())
            return self._around[0] + encode(delta.text_delta) + self._around[1]
        choice = self._choices.get(delta.index)
        if choice is None:
            if _says_nothing(delta):
                return b""
            choice = self._choices[delta.index] = _Written()
        if delta.tool_call_delta is not None:
            _add(choice, delta.tool_call_delta)
        if delta.finish_reason is not None:
            choice.finish_reason, choice.raw = delta.finish_reason, delta.raw_finish_reason
        parts = _parts(choice, delta, self.shows_thoughts)
        if not parts and delta.logprobs is None:
            return b""
        said = candidate(delta.index, parts)
        if delta.logprobs:
            said["logprobsResult"] = logprobs_to_wire(delta.logprobs)
        return self._chunk([said])

    def finish(self) -> bytes:
        """The end of a whole stream: calls, reasons to stop and counts."""
        said = []
        for index, choice in sorted(self._choices.items()) or [(0, _Written())]:
            wire = candidate(index, _ending(choice) or [{"text": ""}])
            wire["finishReason"] = finish_reason_to_wire(choice.finish_reason, choice.raw)
            said.append(wire)
        return self._chunk(said, usageMetadata=usage_to_wire(self._usage))

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off."""
        return self._event(error_to_wire(error))

    def _chunk(self, candidates: list[dict[str, object]], **more: object) -> bytes:
        return self._event({"candidates": candidates, **more, **self._names})

    def _event(self, value: dict[str, Any]) -> bytes:
        return sse.write(encode(value))


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer."""
    return StreamReader()


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; its usage is always told."""
    return StreamWriter(response_id=response_id, model=model)


def _parts(choice: _Written, delta: LLMDelta, shows_thoughts: bool) -> list[dict[str, object]]:
    """What of ``delta`` is told now."""
    parts: list[dict[str, object]] = []
    if delta.reasoning_delta and shows_thoughts:
        parts.append({"text": delta.reasoning_delta, "thought": True})
    if delta.reasoning_part is not None:
        choice.seals |= own_seals((delta.reasoning_part,))
        wire = thought_to_wire(delta.reasoning_part)
        if wire is not None and "thoughtSignature" in wire:
            # Its text went before it.
            parts.append({**wire, "text": ""})
    said = (delta.text_delta or "") + (delta.refusal_delta or "")
    if said or delta.logprobs:
        parts.append({"text": said})
    return parts


def _ending(choice: _Written) -> list[dict[str, object]]:
    """What waited for the end."""
    parts: list[dict[str, object]] = []
    if TEXT_SEAL in choice.seals:
        parts.append({"text": "", "thoughtSignature": choice.seals[TEXT_SEAL]})
    for number, (_, pending) in enumerate(sorted(choice.calls.items())):
        call = ToolCall(
            name=pending.name, arguments_json=pending.arguments, call_id=pending.call_id or MADE_ID
        )
        part: dict[str, object] = {"functionCall": call_to_wire(call)}
        if call_seal(number) in choice.seals:
            part["thoughtSignature"] = choice.seals[call_seal(number)]
        parts.append(part)
    return parts


def _add(choice: _Written, piece: ToolCallDelta) -> None:
    pending = choice.calls.setdefault(piece.index, _Pending())
    pending.call_id = pending.call_id or piece.call_id or ""
    pending.name = pending.name or piece.name or ""
    pending.arguments += piece.arguments_json_delta or ""


def _says_nothing(delta: LLMDelta) -> bool:
    return (
        delta.text_delta is None
        and delta.tool_call_delta is None
        and delta.reasoning_delta is None
        and delta.reasoning_part is None
        and delta.refusal_delta is None
        and delta.finish_reason is None
        and delta.logprobs is None
    )


def _cut_short() -> LLMBadResponseError:
    return LLMBadResponseError(
        "The backend's stream was cut short: it ended without a reason to stop."
    )
