"""Streams of Ollama's answers: a line for each piece, and a last one with the reason and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.messages import ToolCall
from headrace.contracts.responses import (
    FinishReason,
    LLMDelta,
    ToolCallDelta,
    Usage,
)
from headrace.wire import ndjson
from headrace.wire.json import encode
from headrace.wire.ollama_answers import (
    DURATIONS,
    Durations,
    Form,
    calls_from_wire,
    date,
    decode_answer,
    done_reason_to_wire,
    durations_from_wire,
    ending,
    finish_reason_from_wire,
    logprobs_from_wire,
    logprobs_to_wire,
    said_in,
    usage_from_wire,
)
from headrace.wire.ollama_errors import write_error
from headrace.wire.ollama_messages import call_to_wire


class StreamReader:
    """Reads a stream's bytes into deltas, of either form.

    ``done`` turns true when nothing more can come: after the last line or an error. What a piece of
    the stream held before an error is given first; the error is raised by the next call.
    """

    def __init__(self) -> None:
        self.done = False
        self._lines = ndjson.Reader()
        self._failure: LLMError | None = None
        self._calls = 0

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes."""
        if self._failure is not None:
            raise self._failure
        deltas: list[LLMDelta] = []
        try:
            self._take(self._lines.feed(data), deltas)
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
        deltas: list[LLMDelta] = []
        self._take(self._lines.close(), deltas)
        if not self.done:
            raise LLMBadResponseError(
                "The backend's stream was cut short: its last line does not say that it is done."
            )
        return deltas

    def _take(self, lines: list[bytes], deltas: list[LLMDelta]) -> None:
        for line in lines:
            if self.done:
                return
            self._read(line, deltas)

    def _read(self, line: bytes, deltas: list[LLMDelta]) -> None:
        answer = decode_answer(line)
        said, model = said_in(answer), answer.model
        if said.content and not (answer.done or answer.logprobs or said.thinking):
            deltas.append(LLMDelta(text_delta=said.content, model=model))
            if not said.tool_calls:  # nearly every line is a text and no more
                return
            said.content = None
        if said.thinking:
            deltas.append(LLMDelta(reasoning_delta=said.thinking, model=model))
        logprobs = logprobs_from_wire(answer.logprobs)
        if said.content or logprobs is not None:
            deltas.append(LLMDelta(text_delta=said.content or "", logprobs=logprobs, model=model))
        for call in calls_from_wire(said.tool_calls, answer, self._calls):
            piece = ToolCallDelta(
                call_id=call.call_id,
                name=call.name,
                arguments_json_delta=call.arguments_json,
                index=self._calls,
            )
            deltas.append(LLMDelta(tool_call_delta=piece, model=model))
            self._calls += 1
        if answer.done:
            self.done = True
            reason = finish_reason_from_wire(answer.done_reason, called=self._calls > 0)
            deltas.append(
                LLMDelta(
                    finish_reason=reason,
                    raw_finish_reason=answer.done_reason,
                    usage_delta=usage_from_wire(answer),
                    provider_fields=durations_from_wire(answer),
                    model=model,
                )
            )


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    ``now`` gives the Unix time that each line is marked with. Calls wait for the end: each goes as
    one, and until then another piece of it may come. So do the reason to stop and the counts.
    """

    def __init__(self, form: Form, *, model: str, now: Callable[[], float]) -> None:
        self._form = form
        self._model = model
        self._now = now
        self._usage: Usage | None = None
        self._finish_reason: FinishReason | None = None
        self._raw: str | None = None
        self._durations: Durations = {}
        self._begun: dict[int, _Call] = {}
        text = encode({"model": model, "created_at": "@", **form.place("", None, [])})
        # What surrounds a text never changes but for the time, and nearly every delta is a text.
        self._before, _, rest = text.partition(b'"@"')
        self._between, _, after = rest.rpartition(b'""')
        self._after = after[:-1] + b',"done":false}\n'

    def write(self, delta: LLMDelta) -> bytes:
        """The lines for ``delta``; nothing where it holds nothing that a caller gets now."""
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        if delta.provider_fields is not None:
            self._durations = _durations_in(delta.provider_fields)
        if delta.finish_reason is not None:
            self._finish_reason, self._raw = delta.finish_reason, delta.raw_finish_reason
        call = delta.tool_call_delta
        if call is not None:
            self._begun.setdefault(call.index, _Call()).add(call)
        said = (delta.text_delta or "") + (delta.refusal_delta or "")
        out = b""
        if delta.reasoning_delta:
            out = self._line("", thinking=delta.reasoning_delta)
        if delta.logprobs:
            out += self._line(said, logprobs=logprobs_to_wire(delta.logprobs))
        elif said:
            out += (
                self._before
                + f'"{date(self._now())}"'.encode()
                + self._between
                + encode(said)
                + self._after
            )
        return out

    def finish(self, durations: Durations | None = None) -> bytes:
        """The end of a whole stream; ``durations`` replace what the deltas told."""
        last = self._opening("")
        last["done"] = True
        last["done_reason"] = done_reason_to_wire(self._finish_reason, self._raw)
        last |= ending(self._usage, self._durations if durations is None else durations)
        return self._whole_calls() + ndjson.write(encode(last))

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off."""
        return ndjson.write(write_error(error))

    def _whole_calls(self) -> bytes:
        """Each of the calls, with all that came of it."""
        calls = [call.whole() for _, call in sorted(self._begun.items())]
        return b"".join(
            self._line("", calls=[call_to_wire(call, i)]) for i, call in enumerate(calls)
        )

    def _line(
        self,
        said: str,
        *,
        thinking: str | None = None,
        calls: list[dict[str, object]] | None = None,
        logprobs: list[dict[str, Any]] | None = None,
    ) -> bytes:
        wire = self._opening(said, thinking, calls)
        wire["done"] = False
        if logprobs is not None:
            wire["logprobs"] = logprobs
        return ndjson.write(encode(wire))

    def _opening(
        self,
        said: str,
        thinking: str | None = None,
        calls: list[dict[str, object]] | None = None,
    ) -> dict[str, Any]:
        wire: dict[str, Any] = {"model": self._model, "created_at": date(self._now())}
        return wire | self._form.place(said, thinking, calls or [])


class _Call:
    """A call of which pieces came."""

    def __init__(self) -> None:
        self._call_id = self._name = ""
        self._arguments: list[str] = []

    def add(self, piece: ToolCallDelta) -> None:
        self._call_id = self._call_id or piece.call_id or ""
        self._name = self._name or piece.name or ""
        self._arguments.append(piece.arguments_json_delta or "")

    def whole(self) -> ToolCall:
        arguments = "".join(self._arguments)
        return ToolCall(name=self._name, arguments_json=arguments, call_id=self._call_id)


def _durations_in(fields: dict[str, object]) -> Durations:
    return {name: value for name in DURATIONS if isinstance(value := fields.get(name), int)}
