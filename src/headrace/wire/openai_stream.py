"""Streams of chat and text completions: chunks in events, ``[DONE]`` at the end.

The reader takes both formats; the writer is told by its ``Form`` which one to write.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from attrs import evolve
from msgspec import DecodeError

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.responses import LLMDelta, ToolCallDelta, Usage
from headrace.wire import sse
from headrace.wire.json import bad_reply, decode_reply, encode
from headrace.wire.openai_answers import (
    AnswerWire,
    ChoiceWire,
    ToolCallWire,
    answer_error,
    arguments_of,
    content_of,
    decode_answer,
    finish_reason_from_wire,
    logprobs_from_wire,
    made_up_call_id,
    provider_fields,
    stop_sequence_of,
    usage_from_wire,
    usage_to_wire,
)
from headrace.wire.openai_errors import error_from_wire, write_error

_DONE = b"data: [DONE]\n\n"


class StreamReader:
    """Reads a stream's bytes into deltas.

    ``done`` turns true when nothing more can come: after ``[DONE]`` or an error. What a piece of
    the stream held before an error is given first; the error is raised by the next call.
    ``keep`` names the provider's own fields that are wanted.
    """

    def __init__(self, keep: Collection[str] = ()) -> None:
        self.done = False
        self._keep = keep
        self._events = sse.Reader()
        self._failure: LLMError | None = None
        self._calls: dict[int, _Calls] = {}
        self._begun: set[int] = set()
        self._finished: set[int] = set()

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
        if not self._begun:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self.done and self._begun > self._finished:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended with neither a finish reason "
                "nor [DONE]."
            )
        self.done = True
        return []

    def _read(self, event: sse.Event, deltas: list[LLMDelta]) -> None:
        data = event.data
        if event.name == "error":
            raise error_from_wire(None, decode_reply(data))
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        if not data:
            return
        try:
            chunk = decode_answer(data)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(data, error) from error
        failure = answer_error(chunk, data)
        if failure is not None:
            raise failure
        usage = usage_from_wire(chunk.usage)
        if chunk.choices:
            for choice in chunk.choices:
                self._read_choice(choice, chunk, deltas)
                if choice.usage is not None and usage is None:
                    usage = usage_from_wire(choice.usage)
        if usage is not None:
            deltas.append(LLMDelta(usage_delta=usage, model=chunk.model, response_id=chunk.id))
        beyond = provider_fields(chunk, self._keep) if self._keep else None
        if beyond is not None:
            if usage is not None:
                deltas[-1] = evolve(deltas[-1], provider_fields=beyond)
            else:
                said = LLMDelta(provider_fields=beyond, model=chunk.model, response_id=chunk.id)
                deltas.append(said)

    def _read_choice(self, choice: ChoiceWire, chunk: AnswerWire, deltas: list[LLMDelta]) -> None:
        index = choice.index or 0
        text = choice.text
        reasoning = refusal = None
        message = choice.delta or choice.message
        calls = None
        if message is not None:
            content = message.content
            if type(content) is list or message.reasoning_content or message.reasoning:
                content, reasoning = content_of(message)
            text = text or content  # type: ignore[assignment]
            refusal = message.refusal
            calls = message.tool_calls
            if not calls and message.function_call is not None:
                calls = [ToolCallWire(index=0, function=message.function_call)]
        reason = choice.finish_reason or None
        self._begun.add(index)
        if reason is not None:
            self._finished.add(index)
        logprobs = None if choice.logprobs is None else logprobs_from_wire(choice.logprobs)
        if text or reasoning or refusal or logprobs or (reason and not calls):
            last = None if calls else reason
            deltas.append(
                LLMDelta(
                    text_delta=text or None,
                    reasoning_delta=reasoning or None,
                    refusal_delta=refusal or None,
                    finish_reason=finish_reason_from_wire(last),
                    raw_finish_reason=last,
                    stop_sequence=None if last is None else stop_sequence_of(choice, chunk),
                    logprobs=logprobs,
                    index=index,
                    model=chunk.model,
                    response_id=chunk.id,
                    system_fingerprint=chunk.system_fingerprint,
                )
            )
        if calls:
            self._read_calls(calls, index, reason, chunk, deltas)

    def _read_calls(
        self,
        calls: list[ToolCallWire],
        index: int,
        reason: str | None,
        chunk: AnswerWire,
        deltas: list[LLMDelta],
    ) -> None:
        """The pieces of calls in one choice; the reason, if it came with them, ends the last."""
        state = self._calls.setdefault(index, _Calls())
        for number, call in enumerate(calls, 1):
            last = reason if number == len(calls) else None
            deltas.append(
                LLMDelta(
                    tool_call_delta=state.piece(call, chunk.id, index),
                    finish_reason=finish_reason_from_wire(last),
                    raw_finish_reason=last,
                    index=index,
                    model=chunk.model,
                    response_id=chunk.id,
                    system_fingerprint=chunk.system_fingerprint,
                )
            )


class _Calls:
    """Tells the tool calls of one choice apart, whatever their server does about indexes.

    Indexes may be absent, begin at one, or be the same for calls that differ by id; the id may come
    once or with every piece.
    """

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._ids: list[str] = []
        self._last = 0

    def piece(self, wire: ToolCallWire, response_id: str | None, choice: int) -> ToolCallDelta:
        """The delta for ``wire``; its index counts from 0 in the order the calls began."""
        name = (wire.function and wire.function.name) or None
        arguments = None if wire.function is None else arguments_of(wire.function)
        number = self._known(wire, name)
        call_id = None
        if number is None:
            number = len(self._ids)
            call_id = wire.id or made_up_call_id(response_id, choice, number)
            self._ids.append(call_id)
            self._numbers[wire.index] = number
        self._last = number
        return ToolCallDelta(
            call_id=call_id, name=name, arguments_json_delta=arguments, index=number
        )

    def _known(self, wire: ToolCallWire, name: str | None) -> int | None:
        if wire.index is None:
            if wire.id and wire.id in self._ids:
                return self._ids.index(wire.id)
            return None if wire.id or name or not self._ids else self._last
        number = self._numbers.get(wire.index)
        if number is None or not wire.id or wire.id == self._ids[number] or not name:
            return number
        return self._ids.index(wire.id) if wire.id in self._ids else None


class Form(Protocol):
    """How a chunk of one format looks."""

    object_name: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice that a stream of this format opens with, if it does."""

    def around_text(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the text in a choice that holds nothing else."""

    def choice(self, delta: LLMDelta) -> dict[str, Any]:
        """A choice with all that ``delta`` holds."""


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    ``created`` is in Unix seconds; ``response_id`` and ``model`` stand in every chunk.
    ``include_usage`` sends the last usage seen in a chunk of its own at the end.
    """

    def __init__(
        self,
        form: Form,
        *,
        response_id: str,
        model: str,
        created: int,
        include_usage: bool = False,
        system_fingerprint: str | None = None,
    ) -> None:
        head: dict[str, object] = {
            "id": response_id,
            "object": form.object_name,
            "created": created,
            "model": model,
        }
        if system_fingerprint is not None:
            head["system_fingerprint"] = system_fingerprint
        self._form = form
        self._include_usage = include_usage
        self._usage: Usage | None = None
        self._last_fields: dict[str, Any] = {}
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        # What surrounds a text never changes, and nearly every delta is a text.
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def write(self, delta: LLMDelta) -> bytes:
        """The chunk for ``delta``; nothing where it holds nothing that a caller gets now."""
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        text = delta.text_delta
        plain = (
            delta.tool_call_delta is None
            and delta.finish_reason is None
            and delta.reasoning_delta is None
            and delta.refusal_delta is None
            and delta.logprobs is None
        )
        if delta.provider_fields is not None:
            return self._go_beyond(delta)
        if plain and not text:
            return b""
        around = self._around.get(delta.index)
        if around is None:
            return self._open(delta.index) + self.write(delta)
        if plain:
            return around[0] + encode(text) + around[1]
        return self._head + encode(self._form.choice(delta)) + self._tail

    def finish(self) -> bytes:
        """The end of a whole stream."""
        last = dict(self._last_fields)
        if self._include_usage and self._usage is not None:
            last["usage"] = usage_to_wire(self._usage)
        return self._without_choices(last) + _DONE if last else _DONE

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off; ``[DONE]`` does not follow."""
        return sse.write(write_error(error))

    def _go_beyond(self, delta: LLMDelta) -> bytes:
        """A chunk for what the provider told beyond the format; at the end, it goes with usage."""
        assert delta.provider_fields is not None
        if delta.usage_delta is None:
            said = self._without_choices(delta.provider_fields)
        else:
            said, self._last_fields = b"", delta.provider_fields
        return said + self.write(evolve(delta, provider_fields=None))

    def _without_choices(self, fields: dict[str, Any]) -> bytes:
        return self._head + b"]," + encode(fields)[1:] + b"\n\n"

    def _open(self, index: int) -> bytes:
        before, after = self._form.around_text(index)
        self._around[index] = (self._head + before, after + self._tail)
        opening = self._form.opening(index)
        return b"" if opening is None else self._head + encode(opening) + self._tail
