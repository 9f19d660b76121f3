"""Streams of Anthropic's messages: blocks one after another, each begun, continued and ended.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import define, evolve
from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.messages import ReasoningPart
from headrace.contracts.responses import FinishReason, LLMDelta, ToolCallDelta, Usage
from headrace.wire import sse
from headrace.wire.anthropic_answers import (
    MessageWire,
    UsageWire,
    finish_reason_from_wire,
    opening,
    stop_reason_to_wire,
    usage_from_wire,
    usage_to_wire,
)
from headrace.wire.anthropic_errors import error_from_wire, error_to_wire
from headrace.wire.json import bad_reply, decode_reply, encode

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Keeps an idle connection open; no reader gives it to its caller."""

_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class DeltaWire(Struct, gc=False):
    """A piece of a block, or of the message as a whole."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class EventWire(Struct, gc=False):
    """Any event of a stream."""

    type: str | None = None
    index: int | None = None
    delta: DeltaWire | None = None
    content_block: dict[str, Any] | None = None
    message: MessageWire | None = None
    usage: UsageWire | None = None


_decode = json.Decoder(EventWire).decode


@define
class _Block:
    """A block that is being read; ``call`` counts the calls of this answer from 0."""

    kind: str
    call: int = 0
    text: str = ""
    signature: str = ""
    arguments: dict[str, Any] | None = None


class StreamReader:
    """Reads a stream's bytes into deltas.

    ``done`` turns true when nothing more can come: after ``message_stop`` or an error. What a piece
    of the stream held before an error is given first; the error is raised by the next call. Blocks
    and events of kinds that we do not know (citations, tools that Anthropic ran) are passed over.
    """

    def __init__(self) -> None:
        self.done = False
        self._events = sse.Reader()
        self._failure: LLMError | None = None
        self._names: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._usage: UsageWire | None = None
        self._ended = False

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes."""
        if self._failure is not None:
            raise self._failure
        deltas: list[LLMDelta] = []
        try:
            for event in self._events.feed(data):
                if self.done:
                    break
                self._read(event, deltas)
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
        if not self._names:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self.done and not self._ended:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended with neither a stop reason nor "
                "message_stop."
            )
        self.done = True
        return []

    def _read(self, event: sse.Event, deltas: list[LLMDelta]) -> None:
        data = event.data
        if event.name == "error":
            raise error_from_wire(None, decode_reply(data))
        if not data:
            return
        try:
            said = _decode(data)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(data, error) from error
        match said.type:
            case "content_block_delta":
                self._continue(said, deltas)
            case "content_block_start":
                self._begin(said, deltas)
            case "content_block_stop":
                self._end(said, deltas)
            case "message_start":
                self._open(said, deltas)
            case "message_delta":
                self._finish(said, deltas)
            case "message_stop":
                self.done = True
            case "error":
                raise error_from_wire(None, decode_reply(data))

    def _open(self, said: EventWire, deltas: list[LLMDelta]) -> None:
        message = said.message or MessageWire()
        self._names = {"model": message.model, "response_id": message.id}
        self._usage = message.usage
        usage = usage_from_wire(message.usage)
        deltas.append(LLMDelta(usage_delta=usage, **self._names))

    def _begin(self, said: EventWire, deltas: list[LLMDelta]) -> None:
        wire = said.content_block or {}
        block = self._blocks[said.index or 0] = _Block(str(wire.get("type")))
        text = wire.get("text") or wire.get("thinking")
        if block.kind == "tool_use":
            block.call, self._calls = self._calls, self._calls + 1
            given = wire.get("input")
            block.arguments = given if isinstance(given, dict) else {}
            call_id = str(wire.get("id") or f"toolu_{self._names.get('response_id')}_{block.call}")
            self._say_call(block, "", deltas, call_id=call_id, name=str(wire.get("name") or ""))
        elif block.kind == "redacted_thinking":
            part = ReasoningPart(encrypted=str(wire.get("data") or ""))
            deltas.append(LLMDelta(reasoning_part=part, **self._names))
        elif isinstance(text, str) and text:
            self._say(block, text, deltas)

    def _continue(self, said: EventWire, deltas: list[LLMDelta]) -> None:
        delta, block = said.delta, self._blocks.get(said.index or 0)
        if delta is None or block is None:
            return
        if delta.text or delta.thinking:
            self._say(block, delta.text or delta.thinking or "", deltas)
        elif delta.partial_json and block.kind == "tool_use":
            block.arguments = None
            self._say_call(block, delta.partial_json, deltas)
        elif delta.signature:
            block.signature += delta.signature

    def _end(self, said: EventWire, deltas: list[LLMDelta]) -> None:
        block = self._blocks.pop(said.index or 0, None)
        if block is None:
            return
        if block.kind == "thinking" and block.signature:
            part = ReasoningPart(text=block.text, signature=block.signature)
            deltas.append(LLMDelta(reasoning_part=part, **self._names))
        if block.kind == "tool_use" and block.arguments is not None:
            # No pieces came: what stood in its beginning is all of it.
            self._say_call(block, encode(block.arguments).decode(), deltas)

    def _finish(self, said: EventWire, deltas: list[LLMDelta]) -> None:
        self._usage = later_usage(self._usage, said.usage)
        reason = None if said.delta is None else said.delta.stop_reason
        self._ended = self._ended or reason is not None
        deltas.append(
            LLMDelta(
                finish_reason=finish_reason_from_wire(reason),
                raw_finish_reason=reason,
                stop_sequence=None if said.delta is None else said.delta.stop_sequence,
                usage_delta=usage_from_wire(self._usage),
                **self._names,
            )
        )

    def _say(self, block: _Block, text: str, deltas: list[LLMDelta]) -> None:
        if block.kind == "thinking":
            block.text += text
            deltas.append(LLMDelta(reasoning_delta=text, **self._names))
        elif block.kind == "text":
            deltas.append(LLMDelta(text_delta=text, **self._names))

    def _say_call(
        self,
        block: _Block,
        arguments: str,
        deltas: list[LLMDelta],
        *,
        call_id: str | None = None,
        name: str | None = None,
    ) -> None:
        piece = ToolCallDelta(
            call_id=call_id, name=name, arguments_json_delta=arguments, index=block.call
        )
        deltas.append(LLMDelta(tool_call_delta=piece, **self._names))


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    One block is open at a time; a delta of another kind ends it. The reason to stop waits for the
    end, because the usage that goes with it comes last. Where the pieces of several calls come
    mixed, the others wait until the one that is open has all of its arguments.
    """

    def __init__(self, *, response_id: str, model: str) -> None:
        self._names = opening(response_id, model)
        self._begun = False
        self._usage: Usage | None = None
        self._kind: str | None = None
        self._index = -1
        self._calls: dict[int, int] = {}
        self._open_call = 0
        self._arguments: list[str] = []
        self._held: dict[int, list[ToolCallDelta]] = {}
        self._finish_reason: FinishReason | None = None
        self._raw: str | None = None
        self._stop_sequence: str | None = None
        self._around: tuple[bytes, bytes] = (b"", b"")

    def write(self, delta: LLMDelta) -> bytes:
        """The events for ``delta``; nothing where it holds nothing that a caller gets now."""
        if self._kind == "text" and delta.text_delta and delta.finish_reason is None:
            # What surrounds a text never changes, and nearly every delta is a text.
            if delta.usage_delta is not None:
                self._usage = delta.usage_delta
            return self._around[0] + encode(delta.text_delta) + self._around[1]
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        out = [] if self._begun else [self._start()]
        if delta.reasoning_delta:
            out.append(self._switch("thinking", {"thinking": "", "signature": ""}))
            out.append(self._piece({"type": "thinking_delta", "thinking": delta.reasoning_delta}))
        if delta.reasoning_part is not None:
            out.append(self._seal(delta.reasoning_part))
        said = (delta.text_delta or "") + (delta.refusal_delta or "")
        if said:
            out.append(self._switch("text", {"text": ""}))
            out.append(self._piece({"type": "text_delta", "text": said}))
        if delta.tool_call_delta is not None:
            out.append(self._call(delta.tool_call_delta))
        if delta.finish_reason is not None:
            self._finish_reason, self._raw = delta.finish_reason, delta.raw_finish_reason
            self._stop_sequence = delta.stop_sequence
        return b"".join(out)

    def finish(self) -> bytes:
        """The end of a whole stream."""
        reason = stop_reason_to_wire(self._finish_reason, self._raw, self._stop_sequence)
        ending = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": self._stop_sequence},
            "usage": usage_to_wire(self._usage),
        }
        start = b"" if self._begun else self._start()
        return start + self._close() + _event(ending) + _STOP

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off; ``message_stop`` does not follow."""
        return _event(error_to_wire(error))

    def _start(self) -> bytes:
        self._begun = True
        # What was computed is known at the end only.
        usage = usage_to_wire(self._usage and evolve(self._usage, completion_tokens=0))
        message = {
            **self._names,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event({"type": "message_start", "message": message})

    def _switch(self, kind: str, fields: dict[str, object]) -> bytes:
        """Begins a block of that kind, unless one is open; a call's is always a new one."""
        if self._kind == kind and kind != "tool_use":
            return b""
        ended = self._close()
        self._kind = kind
        self._index += 1
        block = {"type": kind, **fields}
        if kind == "text":
            empty = self._piece({"type": "text_delta", "text": ""})
            before, _, after = empty.rpartition(b'""')
            self._around = before, after
        return ended + _event(
            {"type": "content_block_start", "index": self._index, "content_block": block}
        )

    def _piece(self, delta: dict[str, object], index: int | None = None) -> bytes:
        at = self._index if index is None else index
        return _event({"type": "content_block_delta", "index": at, "delta": delta})

    def _close(self) -> bytes:
        """Ends the block that is open, and the calls that waited for it."""
        if self._kind is None:
            return b""
        self._kind = None
        ended = _event({"type": "content_block_stop", "index": self._index})
        held, self._held = self._held, {}
        return (
            ended
            + b"".join(self._call(piece) for said in held.values() for piece in said)
            + (self._close() if held else b"")
        )

    def _seal(self, part: ReasoningPart) -> bytes:
        """Ends a piece of reasoning, with its signature where it has one of Anthropic's kind."""
        if part.part_id is not None:
            return self._close() if self._kind == "thinking" else b""
        if part.encrypted is not None:
            block: dict[str, object] = {"data": part.encrypted}
            return self._switch("redacted_thinking", block) + self._close()
        begun = self._switch("thinking", {"thinking": "", "signature": ""})
        seal = self._piece({"type": "signature_delta", "signature": part.signature or ""})
        return begun + seal + self._close()

    def _call(self, piece: ToolCallDelta) -> bytes:
        if self._kind == "tool_use" and piece.index != self._open_call:
            waits = piece.index not in self._calls and not _is_whole(self._arguments)
            if waits or piece.index in self._held:
                self._held.setdefault(piece.index, []).append(piece)
                return b""
        said = self._say_call(piece)
        while self._held and _is_whole(self._arguments):
            index = next(iter(self._held))
            said += b"".join(map(self._say_call, self._held.pop(index)))
        return said

    def _say_call(self, piece: ToolCallDelta) -> bytes:
        begun = b""
        if piece.index not in self._calls:
            names: dict[str, object] = {"id": piece.call_id or "", "name": piece.name or ""}
            held, self._held = self._held, {}  # those that wait go on waiting, for this one
            begun = self._switch("tool_use", {**names, "input": {}})
            self._held = held
            self._calls[piece.index] = self._index
            self._open_call, self._arguments = piece.index, []
        if not piece.arguments_json_delta:
            return begun
        if piece.index == self._open_call:
            self._arguments.append(piece.arguments_json_delta)
        delta: dict[str, object] = {
            "type": "input_json_delta",
            "partial_json": piece.arguments_json_delta,
        }
        return begun + self._piece(delta, self._calls[piece.index])


def _is_whole(arguments: list[str]) -> bool:
    """Whether these pieces are all of a call's arguments."""
    try:
        json.decode("".join(arguments))
    except DecodeError:
        return False
    return True


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


def _event(value: dict[str, Any]) -> bytes:
    return sse.write(encode(value), name=str(value["type"]))


def later_usage(before: UsageWire | None, now: UsageWire | None) -> UsageWire | None:
    """The counts after ``now``, which are totals; what it leaves out stands as it was before."""
    if before is None or now is None:
        return now or before
    details = now.output_tokens_details or before.output_tokens_details

    def latest(name: str) -> int | None:
        count: int | None = getattr(now, name)
        return getattr(before, name) if count is None else count

    return UsageWire(
        input_tokens=latest("input_tokens"),
        output_tokens=latest("output_tokens"),
        cache_creation_input_tokens=latest("cache_creation_input_tokens"),
        cache_read_input_tokens=latest("cache_read_input_tokens"),
        output_tokens_details=details,
    )
