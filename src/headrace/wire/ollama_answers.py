"""What Ollama answers, whole or in pieces: its shapes, counts, times and log probabilities.

One set of shapes serves chat and generate, which differ in where the text stands. Times are in
nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeAlias

from msgspec import DecodeError, Meta, Struct, json

from headrace.contracts.errors import LLMBadResponseError
from headrace.contracts.messages import ToolCall
from headrace.contracts.responses import (
    TIMES,
    FinishReason,
    LLMResponse,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.wire.anthropic_messages import arguments_from_wire
from headrace.wire.json import bad_reply, decode_reply, encode
from headrace.wire.ollama_errors import error_from_wire
from headrace.wire.ollama_messages import call_to_wire

Durations: TypeAlias = Mapping[str, int]
"""Some of DURATIONS by name, in nanoseconds; what nobody measured is not there."""

DURATIONS = TIMES

_Byte = Annotated[int, Meta(ge=0, le=255)]


class FunctionWire(Struct, gc=False):
    """A called tool's name and arguments; some servers send these as text."""

    name: str | None = None
    arguments: dict[str, Any] | str | None = None


class ToolCallWire(Struct, gc=False):
    """A tool call, which always comes whole."""

    id: str | None = None
    function: FunctionWire | None = None


class TopWire(Struct, gc=False):
    """An alternative token."""

    token: str
    logprob: float
    bytes: list[_Byte] | None = None


class TokenWire(TopWire, gc=False):
    """A token of the answer."""

    top_logprobs: list[TopWire] | None = None


class MessageWire(Struct, gc=False):
    """A message, or a piece of one."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCallWire] | None = None


class AnswerWire(Struct, gc=False):
    """A whole answer or a line of a stream; the last line has the reason, the counts and times."""

    model: str | None = None
    created_at: str | None = None
    message: MessageWire | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    done: bool = False
    done_reason: str | None = None
    logprobs: list[TokenWire] | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_duration: int | None = None
    eval_duration: int | None = None
    error: Any = None


_decode = json.Decoder(AnswerWire).decode

# Ollama says 'stop' of an answer that is a call, too.
_DONE_REASONS = {"tool_calls": "stop", "error": "stop", "cancelled": "stop", "other": "stop"}
_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "load": "stop",
    "unload": "stop",
}
_ABOUT_LOADING = ("load", "unload")


class Form(Protocol):
    """Where a chat's or a generated text's pieces stand."""

    def place(
        self, said: str, thinking: str | None, calls: list[dict[str, object]]
    ) -> dict[str, Any]:
        """The fields of an answer that say this."""


class ChatForm:
    """A chat's: in ``message``."""

    def place(
        self, said: str, thinking: str | None, calls: list[dict[str, object]]
    ) -> dict[str, Any]:
        """As Form."""
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


class GenerateForm:
    """A generated text's: in ``response``. There are no tools to be called."""

    def place(
        self, said: str, thinking: str | None, calls: list[dict[str, object]]
    ) -> dict[str, Any]:
        """As Form."""
        return {"response": said, "thinking": thinking} if thinking else {"response": said}


def decode_answer(body: bytes) -> AnswerWire:
    """A whole answer or a line of a stream; raises what it says went wrong."""
    try:
        answer = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if answer.error:
        raise error_from_wire(None, decode_reply(body))
    return answer


def said_in(answer: AnswerWire) -> MessageWire:
    """What ``answer`` says, wherever it stands."""
    if answer.message is not None:
        return answer.message
    return MessageWire(
        content=answer.response, thinking=answer.thinking, tool_calls=answer.tool_calls
    )


def calls_from_wire(
    wire: Iterable[ToolCallWire] | None, answer: AnswerWire, first: int
) -> list[ToolCall]:
    """Tool calls, of which the first is number ``first`` of its answer.

    Where the server gives no ids they are made of the answer's time, so that they are no other
    turn's.
    """
    if not wire:
        return []
    found = []
    when = "".join(filter(str.isalnum, answer.created_at or ""))
    for number, call in enumerate(wire, first):
        function = call.function or FunctionWire()
        given = function.arguments
        arguments = given if isinstance(given, str) else arguments_from_wire(given or {})
        call_id = call.id or f"call_{when}_{number}"
        found.append(ToolCall(name=function.name or "", arguments_json=arguments, call_id=call_id))
    return found


def finish_reason_from_wire(wire: str | None, *, called: bool) -> FinishReason:
    """The normal word for Ollama's; ``called`` is whether tools were."""
    reason = _FINISH_REASONS.get(wire or "stop", "other")
    return "tool_calls" if called and reason == "stop" else reason


def done_reason_to_wire(finish_reason: str | None, raw: str | None) -> str:
    """Ollama's word for a reason to stop; ``raw`` is the backend's own."""
    if raw in _ABOUT_LOADING:
        return str(raw)
    return _DONE_REASONS.get(finish_reason or "other", finish_reason or "stop")


def usage_from_wire(answer: AnswerWire) -> Usage | None:
    """The token counts at the end of an answer."""
    prompt, completion = answer.prompt_eval_count, answer.eval_count
    if prompt is None and completion is None:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=None if prompt is None or completion is None else prompt + completion,
    )


def durations_from_wire(answer: AnswerWire) -> dict[str, object] | None:
    """How long what took, as far as the server tells."""
    told = {name: getattr(answer, name) for name in DURATIONS}
    return {name: value for name, value in told.items() if value is not None} or None


def ending(usage: Usage | dict[str, int] | None, durations: Mapping[str, object]) -> dict[str, Any]:
    """The counts and times with which an answer ends; what is unknown is left out."""
    if not isinstance(usage, Usage):
        counts = usage or {}
        usage = Usage(
            prompt_tokens=counts.get("prompt_tokens"),
            completion_tokens=counts.get("completion_tokens"),
        )
    wire: dict[str, Any] = {
        "total_duration": durations.get("total_duration"),
        "load_duration": durations.get("load_duration"),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": durations.get("prompt_eval_duration"),
        "eval_count": usage.completion_tokens,
        "eval_duration": durations.get("eval_duration"),
    }
    return {name: value for name, value in wire.items() if value is not None}


def logprobs_from_wire(wire: Iterable[TokenWire] | None) -> tuple[TokenLogprob, ...] | None:
    """The tokens with their log probabilities."""
    if not wire:
        return None
    return tuple(
        TokenLogprob(
            token=each.token,
            logprob=each.logprob,
            token_bytes=None if each.bytes is None else bytes(each.bytes),
            top=tuple(
                TopLogprob(
                    token=top.token,
                    logprob=top.logprob,
                    token_bytes=None if top.bytes is None else bytes(top.bytes),
                )
                for top in each.top_logprobs or ()
            ),
        )
        for each in wire
    )


def logprobs_to_wire(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """``logprobs`` as an answer has them."""
    return [
        _token_to_wire(each)
        | ({"top_logprobs": [_token_to_wire(top) for top in each.top]} if each.top else {})
        for each in logprobs
    ]


def read_answer(body: bytes, *, keep_raw: bool = False) -> LLMResponse:
    """A whole answer, of either form; ``keep_raw`` keeps the payload as ``raw``."""
    answer = decode_answer(body)
    if answer.message is None and answer.response is None:
        raise LLMBadResponseError("The backend's answer has neither a message nor a response.")
    said = said_in(answer)
    calls = calls_from_wire(said.tool_calls, answer, 0)
    return LLMResponse(
        text=said.content or "",
        model=answer.model,
        finish_reason=finish_reason_from_wire(answer.done_reason, called=bool(calls)),
        usage=usage_from_wire(answer),
        tool_calls=tuple(calls),
        raw=decode_reply(body) if keep_raw else None,
        raw_finish_reason=answer.done_reason,
        reasoning=said.thinking or None,
        logprobs=logprobs_from_wire(answer.logprobs),
        created=seconds(answer.created_at),
        provider_fields=durations_from_wire(answer),
    )


def write_answer(
    form: Form,
    response: LLMResponse,
    *,
    model: str | None,
    created: float | None,
    durations: Durations | None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    when = response.created if created is None else created
    wire: dict[str, Any] = {"model": model or response.model or ""}
    if when is not None:
        wire["created_at"] = date(when)
    calls = [call_to_wire(call, i) for i, call in enumerate(response.tool_calls)]
    wire |= form.place(response.text or response.refusal or "", response.reasoning, calls)
    if response.logprobs is not None:
        wire["logprobs"] = logprobs_to_wire(response.logprobs)
    wire["done"] = True
    wire["done_reason"] = done_reason_to_wire(response.finish_reason, response.raw_finish_reason)
    told = (response.provider_fields or {}) if durations is None else durations
    return encode(wire | ending(response.usage, told))


def date(when: float) -> str:
    """Unix seconds as Ollama writes an instant."""
    second, fraction = divmod(when, 1)
    return f"{_second(int(second))}.{int(fraction * 1e6):06d}Z"


@lru_cache(maxsize=8)
def _second(when: int) -> str:
    # Many lines are written within one.
    return datetime.fromtimestamp(when, timezone.utc).replace(tzinfo=None).isoformat()


def seconds(stamp: str | None) -> int | None:
    """Unix seconds of an instant; ``None`` where there is none that can be read."""
    try:
        instant = None if stamp is None else datetime.fromisoformat(stamp)
    except ValueError:
        return None
    if instant is None:
        return None
    aware = instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)
    return max(0, int(aware.timestamp()))


def _token_to_wire(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    wire: dict[str, Any] = {"token": token.token, "logprob": token.logprob}
    if token.token_bytes is not None:
        wire["bytes"] = list(token.token_bytes)
    return wire
