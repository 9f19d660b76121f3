"""Reading what a Responses server answers, whole or as a stream of events.

Items and events that we do not know (those of hosted tools, annotations) are let pass.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import evolve

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.responses import (
    FinishReason,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from headrace.wire import sse
from headrace.wire.assemble import whole
from headrace.wire.json import bad_reply, decode_reply
from headrace.wire.openai_answers import BEYOND
from headrace.wire.openai_errors import error_from_wire
from headrace.wire.openai_responses_items import unseal

_REASONS: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_THOUGHTS = {
    "response.reasoning_summary_text": "summary",
    "response.reasoning_text": "content",
    "response.reasoning": "content",
}
_ENDS = frozenset(f"response.{how}" for how in ("completed", "incomplete", "failed", "cancelled"))


def read_response(
    body: bytes, *, keep_raw: bool = False, keep: Collection[str] = ()
) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``, ``keep`` names provider fields."""
    wire = decode_reply(body)
    if isinstance(wire, dict) and wire.get("error") and wire.get("object") != "response":
        raise error_from_wire(None, wire)
    if not isinstance(wire, dict) or not isinstance(wire.get("output"), list):
        raise LLMBadResponseError("The backend's answer is no response: it has no output.")
    try:
        return _response(wire, keep_raw, keep)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise bad_reply(body, error) from error


def read_whole(body: bytes, *, keep: Collection[str] = ()) -> list[LLMDelta]:
    """A whole answer in as few deltas as can hold it, for those who only put them together."""
    return whole(read_response(body, keep=keep))


class StreamReader:
    """Reads a stream's bytes into deltas.

    ``done`` turns true when nothing more can come: after the response's last event or an error.
    What a piece of the stream held before an error is given first; the error is raised by the next
    call. ``keep`` names the provider's own fields that are wanted.
    """

    def __init__(self, keep: Collection[str] = ()) -> None:
        self.done = False
        self._keep = keep
        self._events = sse.Reader()
        self._failure: LLMError | None = None
        self._names: dict[str, Any] = {"model": None, "response_id": None}
        self._calls: dict[Any, int] = {}
        self._said: set[tuple[Any, ...]] = set()
        self._thoughts: dict[Any, tuple[str, list[str]]] = {}

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
        if not self.done:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended before its response did."
            )
        return []

    def _read(self, event: sse.Event, deltas: list[LLMDelta]) -> None:
        if not event.data or event.data.startswith(b"[DONE]"):
            return
        wire = decode_reply(event.data)
        try:
            self._take(wire.get("type") or event.name, wire, deltas)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise bad_reply(event.data, error) from error

    def _take(self, kind: str, wire: dict[str, Any], deltas: list[LLMDelta]) -> None:
        stem, _, step = kind.rpartition(".")
        beyond = {name: wire[name] for name in BEYOND if name in self._keep and name in wire}
        count = len(deltas)
        if kind == "error":
            raise error_from_wire(None, wire if wire.get("error") else {"error": wire})
        if kind == "response.output_text.delta":
            self._text(wire, wire["delta"], deltas)
        elif stem in _THOUGHTS:
            self._thought(_THOUGHTS[stem], step, wire, deltas)
        elif stem in ("response.output_text", "response.refusal"):
            self._whole_or_piece(stem, step, wire, deltas)
        elif stem == "response.function_call_arguments":
            self._arguments(step, wire, deltas)
        elif stem == "response.output_item":
            self._item(step, wire, deltas)
        elif kind in _ENDS:
            self._end(wire["response"], beyond, deltas)
            return
        elif kind == "response.created":
            self._name(wire["response"])
        if beyond:
            if count == len(deltas):
                self._say(deltas)
            deltas[-1] = evolve(deltas[-1], provider_fields=beyond)

    def _say(self, deltas: list[LLMDelta], **fields: Any) -> None:
        deltas.append(LLMDelta(**self._names, **fields))

    def _name(self, response: dict[str, Any]) -> None:
        self._names = {"model": response.get("model"), "response_id": response.get("id")}

    def _text(self, wire: dict[str, Any], said: str, deltas: list[LLMDelta]) -> None:
        self._said.add(("response.output_text", _item_of(wire), wire.get("content_index", 0)))
        logprobs = logprobs_from_wire(wire.get("logprobs"))
        if said or logprobs:
            self._say(deltas, text_delta=said or None, logprobs=logprobs)

    def _whole_or_piece(
        self, stem: str, step: str, wire: dict[str, Any], deltas: list[LLMDelta]
    ) -> None:
        """A piece, or, at the end, all of what did not come in pieces."""
        place = (stem, _item_of(wire), wire.get("content_index", 0))
        if step == "delta":
            self._said.add(place)
            if wire["delta"]:
                self._say(deltas, refusal_delta=wire["delta"])
        elif step == "done" and place not in self._said:
            if stem == "response.refusal":
                self._say(deltas, refusal_delta=wire["refusal"])
            else:
                self._text(wire, wire["text"], deltas)

    def _thought(self, kind: str, step: str, wire: dict[str, Any], deltas: list[LLMDelta]) -> None:
        place = _item_of(wire)
        known, said = self._thoughts.setdefault(place, (kind, []))
        part = (place, kind, wire.get("summary_index", wire.get("content_index", 0)))
        # A server may tell the same thoughts whole and summed up: the form that came first counts.
        if known != kind or (step == "done" and part in self._said):
            return
        piece = wire["delta"] if step == "delta" else wire["text"]
        if kind == "summary" and said and part not in self._said:
            piece = "\n\n" + piece
        self._said.add(part)
        if piece:
            said.append(piece)
            self._say(deltas, reasoning_delta=piece)

    def _arguments(self, step: str, wire: dict[str, Any], deltas: list[LLMDelta]) -> None:
        item = _item_of(wire)
        index = self._calls.get(item)
        if index is None:
            return
        place = ("arguments", item)
        if step == "done" and place in self._said:
            return
        self._said.add(place)
        piece = wire["delta"] if step == "delta" else wire["arguments"]
        if piece:
            delta = ToolCallDelta(arguments_json_delta=piece, index=index)
            self._say(deltas, tool_call_delta=delta)

    def _item(self, step: str, wire: dict[str, Any], deltas: list[LLMDelta]) -> None:
        item, place = wire["item"], _item_of(wire)
        if item["type"] == "function_call":
            if place not in self._calls:
                self._calls[place] = len(self._calls)
                begin = ToolCallDelta(
                    call_id=item["call_id"],
                    name=item["name"],
                    arguments_json_delta="",
                    index=self._calls[place],
                )
                self._say(deltas, tool_call_delta=begin)
            if step == "done":
                self._arguments("done", {**item, "output_index": place}, deltas)
        elif item["type"] == "reasoning" and step == "done":
            self._end_of_thought(item, place, deltas)
        elif item["type"] == "message" and step == "done":
            for i, part in enumerate(item["content"]):
                where = {**part, "output_index": place, "content_index": i}
                if part["type"] in ("output_text", "refusal"):
                    self._whole_or_piece(f"response.{part['type']}", "done", where, deltas)

    def _end_of_thought(
        self, item: dict[str, Any], place: int | str, deltas: list[LLMDelta]
    ) -> None:
        if place not in self._thoughts:
            said = _thoughts_of(item)
            self._thoughts[place] = ("item", [said])
            if said:
                self._say(deltas, reasoning_delta=said)
        part = _part(item, "".join(self._thoughts[place][1]))
        if part is not None:
            self._say(deltas, reasoning_part=part)

    def _end(
        self, response: dict[str, Any], beyond: dict[str, Any], deltas: list[LLMDelta]
    ) -> None:
        self.done = True
        if self._names["response_id"] is None:
            self._name(response)
        _raise_failure(response)
        reason, raw = _reason(response, bool(self._calls))
        self._say(deltas, finish_reason=reason, raw_finish_reason=raw)
        usage = usage_from_wire(response.get("usage"))
        if usage is not None or beyond:
            self._say(deltas, usage_delta=usage, provider_fields=beyond or None)


def _item_of(wire: dict[str, Any]) -> int | str:
    """Which item an event is about: by its place, or by its id where a server tells no places, as
    llama.cpp's does."""
    place: int | str | None = wire.get("output_index")
    if place is None:
        place = wire.get("item_id") or wire["item"]["id"]
    return place


def usage_from_wire(wire: dict[str, Any] | None) -> Usage | None:
    """The token counts of a response.

    The format requires every part, so that 0 may also be what nobody counted: it is no knowledge.
    """
    if not wire:
        return None
    read = (wire.get("input_tokens_details") or {}).get("cached_tokens") or None
    wrote = (wire.get("input_tokens_details") or {}).get("cache_write_tokens") or None
    thought = (wire.get("output_tokens_details") or {}).get("reasoning_tokens") or None
    prompt, completion = wire.get("input_tokens"), wire.get("output_tokens")
    cached = None if read is None and wrote is None else (read or 0) + (wrote or 0)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=wire.get("total_tokens"),
        input_uncached_tokens=_rest(prompt, cached),
        input_cache_read_tokens=read,
        input_cache_write_tokens=wrote,
        output_text_tokens=_rest(completion, thought),
        output_reasoning_tokens=thought,
    )


def logprobs_from_wire(wire: list[Any] | None) -> tuple[TokenLogprob, ...] | None:
    """The tokens with their log probabilities; OpenAI's events leave out the bytes."""
    if not wire:
        return None
    return tuple(
        TokenLogprob(
            token=each["token"],
            logprob=each["logprob"],
            token_bytes=_bytes(each),
            top=tuple(
                TopLogprob(token=top["token"], logprob=top["logprob"], token_bytes=_bytes(top))
                for top in each.get("top_logprobs") or ()
            ),
        )
        for each in wire
    )


def _response(wire: dict[str, Any], keep_raw: bool, keep: Collection[str]) -> LLMResponse:
    _raise_failure(wire)
    said: list[str] = []
    refused: list[str] = []
    logprobs: list[TokenLogprob] = []
    calls: list[ToolCall] = []
    thoughts: list[str] = []
    parts: list[ReasoningPart] = []
    for item in wire["output"]:
        if item["type"] == "message":
            for part in item["content"]:
                if part["type"] == "output_text":
                    said.append(part["text"])
                    logprobs += logprobs_from_wire(part.get("logprobs")) or ()
                elif part["type"] == "refusal":
                    refused.append(part["refusal"])
        elif item["type"] == "function_call":
            calls.append(
                ToolCall(
                    name=item["name"], arguments_json=item["arguments"], call_id=item["call_id"]
                )
            )
        elif item["type"] == "reasoning":
            thought = _thoughts_of(item)
            thoughts.append(thought)
            sealed = _part(item, thought)
            if sealed is not None:
                parts.append(sealed)
    reason, raw = _reason(wire, bool(calls))
    created = wire.get("created_at")
    beyond = {name: wire[name] for name in BEYOND if name in keep and name in wire}
    return LLMResponse(
        text="".join(said),
        model=wire.get("model"),
        finish_reason=reason,
        usage=usage_from_wire(wire.get("usage")),
        tool_calls=tuple(calls),
        raw=wire if keep_raw else None,
        raw_finish_reason=raw,
        reasoning="".join(thoughts) or None,
        refusal="".join(refused) if refused else None,
        logprobs=tuple(logprobs) or None,
        response_id=wire.get("id"),
        created=None if created is None else int(created),
        provider_fields=beyond or None,
        reasoning_parts=tuple(parts),
    )


def _reason(response: dict[str, Any], calls: bool) -> tuple[FinishReason, str]:
    """Why a response ended, in our word and its own."""
    status = response.get("status") or "completed"
    if status == "incomplete":
        raw = (response.get("incomplete_details") or {}).get("reason") or status
        return _REASONS.get(raw, "other"), raw
    if status == "cancelled":
        return "cancelled", status
    return "tool_calls" if calls else "stop", status


def _raise_failure(response: dict[str, Any]) -> None:
    if response.get("status") == "failed" or response.get("error"):
        raise error_from_wire(None, {"error": response.get("error") or {}})


def _thoughts_of(item: dict[str, Any]) -> str:
    shown = [part["text"] for part in item.get("content") or () if "text" in part]
    if shown:
        return "".join(shown)
    return "\n\n".join(part["text"] for part in item.get("summary") or () if "text" in part)


def _part(item: dict[str, Any], said: str) -> ReasoningPart | None:
    """A piece that its provider sealed and wants back; no other is worth keeping as a piece."""
    part = unseal(item.get("encrypted_content"), item.get("id"), said)
    return part if part.encrypted is not None or part.signature is not None else None


def _rest(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else max(0, whole - part)


def _bytes(token: dict[str, Any]) -> bytes | None:
    raw = token.get("bytes")
    return None if raw is None else bytes(raw)
