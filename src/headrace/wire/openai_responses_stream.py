"""Writing a response as a stream of numbered events.

The items of the output begin in the order in which their first piece comes. What the model thinks,
and what it says, ends where something else begins; calls may come interleaved and end together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, evolve, field

from headrace.contracts.errors import LLMError
from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.responses import (
    FinishReason,
    LLMDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from headrace.wire import sse
from headrace.wire.json import encode
from headrace.wire.openai_errors import error_to_wire
from headrace.wire.openai_responses_answers import logprobs_from_wire
from headrace.wire.openai_responses_envelope import (
    ended,
    failed,
    function_call,
    logprobs_to_wire,
    message,
    status_of,
    written,
)
from headrace.wire.openai_responses_items import reasoning_from_wire
from headrace.wire.openai_responses_parts import output_text

_DONE = b"data: [DONE]\n\n"


@define
class _Part:
    """A part of a message that is being written."""

    kind: str
    index: int
    pieces: list[str] = field(factory=list)
    logprobs: list[Any] = field(factory=list)

    def wire(self) -> dict[str, Any]:
        said = "".join(self.pieces)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": said}
        return output_text(said, self.logprobs)


@define
class _Item:
    """An item of the output that is being written."""

    kind: str
    item_id: str
    index: int
    content: list[dict[str, Any]] = field(factory=list)
    part: _Part | None = None
    pieces: list[str] = field(factory=list)
    call_id: str = ""
    name: str = ""


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    ``begun`` is the response as it is before anything was said. Set ``completed_at`` (Unix seconds)
    before ``finish``, where the end's instant is known. ``response`` is the response so far, and
    after the end the whole of it.
    """

    def __init__(self, begun: Mapping[str, Any], item_ids: Iterable[str] = ()) -> None:
        self.response: dict[str, Any] = dict(begun)
        self.completed_at: int | None = None
        self._base = str(begun["id"]).removeprefix("resp_")
        self._ids = iter(item_ids)
        self._number = 0
        self._opened = 0
        self._done: dict[int, dict[str, Any]] = {}
        self._now: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._head = b""
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._last_fields: dict[str, Any] = {}

    def write(self, delta: LLMDelta) -> bytes:
        """The events for ``delta``; a second answer has no place in a response."""
        out = [] if self._number else self._begin()
        if delta.index:
            return b"".join(out)
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        if delta.finish_reason is not None:
            self._reason = delta.finish_reason
        if delta.reasoning_delta:
            self._think(delta.reasoning_delta, out)
        if delta.reasoning_part is not None:
            self._end_thought(delta.reasoning_part, out)
        if delta.text_delta or (delta.logprobs and not delta.refusal_delta):
            self._say(delta.text_delta or "", delta.logprobs or (), out)
        if delta.refusal_delta:
            self._refuse(delta.refusal_delta, out)
        if delta.tool_call_delta is not None:
            self._call(delta.tool_call_delta, out)
        if delta.provider_fields is not None:
            self._go_beyond(delta, out)
        return b"".join(out)

    def finish(self) -> bytes:
        """The end of a whole stream."""
        out = [] if self._number else self._begin()
        status = status_of(self._reason)
        self._close(out, status)
        for item in self._calls.values():
            self._close_call(item, out, status)
        self._calls = {}
        if not self._done:
            self._message(out)
            self._open_part("output_text", out)
            self._close(out, status)
        self.response = ended(
            self.response, self._reason, self._output(), self._usage, self.completed_at
        )
        self._event(_last_of(status), out, response=self.response, **self._last_fields)
        return b"".join([*out, _DONE])

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off; ``[DONE]`` does not follow.

        ``error`` is for those who look for errors (OpenAI's clients raise it), ``response.failed``
        for those who wait for the response's last state.
        """
        out = [] if self._number else self._begin()
        told: Any = error_to_wire(error)["error"]
        # Flat as OpenAI has it, and as an object, as Open Responses has it.
        flat = {name: told[name] for name in ("code", "message", "param")}
        self._event("error", out, **flat, error=told)
        self.response = failed(self.response, error, self._output())
        self._event("response.failed", out, response=self.response)
        return b"".join(out)

    def write_item(self, item: Mapping[str, Any]) -> bytes:
        """The events of a whole item of the output."""
        out: list[bytes] = []
        if item["type"] == "message":
            self._message(out)
            for part in item["content"]:
                if part["type"] == "refusal":
                    self._refuse(part["refusal"], out)
                else:
                    tokens = logprobs_from_wire(part.get("logprobs")) or ()
                    self._say(part["text"], tokens, out)
            self._close(out, item["status"])
        elif item["type"] == "function_call":
            piece = ToolCallDelta(
                call_id=item["call_id"], name=item["name"], arguments_json_delta=item["arguments"]
            )
            self._call(piece, out)
            self._close_call(self._calls.pop(0), out, item["status"])
        else:
            self._end_thought(reasoning_from_wire(dict(item), "output"), out)
        return b"".join(out)

    def end_as(self, response: dict[str, Any]) -> bytes:
        """The end of a stream whose response is known."""
        out: list[bytes] = []
        self.response = response
        self._event(_last_of(response["status"]), out, response=response)
        return b"".join([*out, _DONE])

    def _begin(self) -> list[bytes]:
        out: list[bytes] = []
        self._event("response.created", out, response=self.response)
        self._event("response.in_progress", out, response=self.response)
        return out

    def _event(self, kind: str, out: list[bytes], **fields: Any) -> None:
        wire = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        out.append(sse.write(encode(wire), name=kind))

    def _output(self) -> list[dict[str, Any]]:
        return [item for _, item in sorted(self._done.items())]

    def _open(self, kind: str, prefix: str, item_id: str | None = None) -> _Item:
        index = self._opened
        self._opened += 1
        made = f"{prefix}_{self._base}_{index}"
        return _Item(kind, next(self._ids, item_id or made), index)

    def _end_item(self, item: _Item, wire: dict[str, Any], out: list[bytes]) -> None:
        self._done[item.index] = wire
        self._event("response.output_item.done", out, output_index=item.index, item=wire)

    def _close(self, out: list[bytes], status: str = "completed") -> None:
        """Ends the thought or the message that is open."""
        item, self._now, self._head = self._now, None, b""
        if item is None:
            return
        if item.kind == "reasoning":
            self._close_thought(item, ReasoningPart(text="".join(item.pieces)), out)
            return
        self._close_part(item, out)
        self._end_item(item, message(item.item_id, status, item.content), out)

    # What it thinks

    def _thought(self, out: list[bytes], item_id: str | None = None) -> _Item:
        if self._now is not None and self._now.kind == "reasoning":
            return self._now
        self._close(out)
        item = self._now = self._open("reasoning", "rs", item_id)
        begun = written(ReasoningPart(), item.item_id)
        self._event("response.output_item.added", out, output_index=item.index, item=begun)
        return item

    def _think(self, said: str, out: list[bytes]) -> None:
        item = self._thought(out)
        place = {"item_id": item.item_id, "output_index": item.index, "summary_index": 0}
        if not item.pieces:
            empty = {"type": "summary_text", "text": ""}
            self._event("response.reasoning_summary_part.added", out, **place, part=empty)
        item.pieces.append(said)
        self._event("response.reasoning_summary_text.delta", out, **place, delta=said)

    def _end_thought(self, part: ReasoningPart, out: list[bytes]) -> None:
        item = self._thought(out, part.part_id)
        if part.text and not item.pieces:
            self._think(part.text, out)
        self._now = None
        self._close_thought(item, part, out)

    def _close_thought(self, item: _Item, part: ReasoningPart, out: list[bytes]) -> None:
        said = "".join(item.pieces)
        if said:
            place = {"item_id": item.item_id, "output_index": item.index, "summary_index": 0}
            whole = {"type": "summary_text", "text": said}
            self._event("response.reasoning_summary_text.done", out, **place, text=said)
            self._event("response.reasoning_summary_part.done", out, **place, part=whole)
        self._end_item(item, written(evolve(part, text=said), item.item_id), out)

    # What it says

    def _message(self, out: list[bytes]) -> _Item:
        if self._now is not None and self._now.kind == "message":
            return self._now
        self._close(out)
        item = self._now = self._open("message", "msg")
        begun = message(item.item_id, "in_progress", [])
        self._event("response.output_item.added", out, output_index=item.index, item=begun)
        return item

    def _open_part(self, kind: str, out: list[bytes]) -> _Part:
        item = self._message(out)
        if item.part is not None and item.part.kind == kind:
            return item.part
        self._close_part(item, out)
        part = item.part = _Part(kind, len(item.content))
        place = self._place(item, part)
        self._event("response.content_part.added", out, **place, part=part.wire())
        kind_of_delta = b'{"type":"response.output_text.delta",'
        # What surrounds a text changes only by its number, and nearly every delta is a text.
        self._head = (
            b"event: response.output_text.delta\ndata: "
            + kind_of_delta
            + encode(place)[1:-1]
            + b',"logprobs":[],"sequence_number":'
        )
        return part

    def _say(self, said: str, logprobs: Iterable[TokenLogprob], out: list[bytes]) -> None:
        item = self._now
        part = item.part if item is not None else None
        if part is None or part.kind != "output_text":
            part = self._open_part("output_text", out)
        part.pieces.append(said)
        if not logprobs:
            number = str(self._number).encode()
            self._number += 1
            out.append(self._head + number + b',"delta":' + encode(said) + b"}\n\n")
            return
        told = logprobs_to_wire(logprobs)
        part.logprobs += told
        assert self._now is not None
        place = self._place(self._now, part)
        self._event("response.output_text.delta", out, **place, delta=said, logprobs=told)

    def _refuse(self, said: str, out: list[bytes]) -> None:
        part = self._open_part("refusal", out)
        part.pieces.append(said)
        assert self._now is not None
        place = self._place(self._now, part)
        self._event("response.refusal.delta", out, **place, delta=said)

    def _close_part(self, item: _Item, out: list[bytes]) -> None:
        part, item.part = item.part, None
        if part is None:
            return
        place, wire = self._place(item, part), part.wire()
        if part.kind == "refusal":
            self._event("response.refusal.done", out, **place, refusal=wire["refusal"])
        else:
            told = {"text": wire["text"], "logprobs": part.logprobs}
            self._event("response.output_text.done", out, **place, **told)
        self._event("response.content_part.done", out, **place, part=wire)
        item.content.append(wire)

    def _place(self, item: _Item, part: _Part) -> dict[str, Any]:
        return {
            "item_id": item.item_id,
            "output_index": item.index,
            "content_index": part.index,
        }

    # What it calls

    def _call(self, piece: ToolCallDelta, out: list[bytes]) -> None:
        item = self._calls.get(piece.index)
        if item is None:
            self._close(out)
            item = self._calls[piece.index] = self._open("function_call", "fc")
            item.call_id = piece.call_id or f"call_{self._base}_{item.index}"
            item.name = piece.name or ""
            call = ToolCall(name=item.name, arguments_json="", call_id=item.call_id)
            begun = function_call(item.item_id, call, "in_progress")
            self._event("response.output_item.added", out, output_index=item.index, item=begun)
        said = piece.arguments_json_delta
        if said:
            item.pieces.append(said)
            place = {"item_id": item.item_id, "output_index": item.index}
            self._event("response.function_call_arguments.delta", out, **place, delta=said)

    def _close_call(self, item: _Item, out: list[bytes], status: str) -> None:
        said = "".join(item.pieces)
        place = {"item_id": item.item_id, "output_index": item.index}
        named = {"name": item.name, "arguments": said}
        self._event("response.function_call_arguments.done", out, **place, **named)
        call = ToolCall(name=item.name, arguments_json=said, call_id=item.call_id)
        self._end_item(item, function_call(item.item_id, call, status), out)

    # What a provider told beyond the format

    def _go_beyond(self, delta: LLMDelta, out: list[bytes]) -> None:
        """At the end with the last event; else with an event that says nothing else."""
        assert delta.provider_fields is not None
        if delta.usage_delta is not None:
            self._last_fields = delta.provider_fields
        elif self._now is not None and self._now.part is not None:
            part = self._now.part
            place = self._place(self._now, part)
            if part.kind == "output_text":
                told = {"delta": "", "logprobs": [], **delta.provider_fields}
                self._event("response.output_text.delta", out, **place, **told)
        else:
            told = dict(delta.provider_fields)
            self._event("response.in_progress", out, response=self.response, **told)


def _last_of(status: str) -> str:
    """The event that ends a stream; there is none for what was cancelled."""
    return f"response.{'failed' if status == 'cancelled' else status}"


def replay(response: dict[str, Any]) -> list[bytes]:
    """The events by which a response that has ended could have come, its items one by one."""
    output = response["output"]
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    begun |= {"completed_at": None, "error": None, "incomplete_details": None}
    writer = StreamWriter(begun, [item["id"] for item in output])
    events = writer.write(LLMDelta())
    events += b"".join(writer.write_item(item) for item in output)
    events += writer.end_as(response)
    return [event + b"\n\n" for event in events.split(b"\n\n") if event]
