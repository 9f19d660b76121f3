"""What chat and text completions answer, whole or in pieces: its shapes, usage and logprobs.

One set of shapes serves both formats and both ways of answering, for their servers mix them:
llama.cpp puts chat logprobs into text completions, others put usage into a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any

from msgspec import DecodeError, Meta, Struct, json
from msgspec import field as wire_field

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.messages import ToolCall
from headrace.contracts.responses import (
    FinishReason,
    LLMChoice,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.wire.assemble import whole
from headrace.wire.json import bad_reply, decode_reply, encode
from headrace.wire.openai_errors import error_from_wire


class PromptDetails(Struct, gc=False):
    """What the prompt's tokens were."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(Struct, gc=False):
    """What the answer's tokens were."""

    reasoning_tokens: int | None = None


class UsageWire(Struct, gc=False):
    """Token counts; the ``prompt_cache`` fields are DeepSeek's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None


class TopWire(Struct, gc=False):
    """An alternative token; ``id`` is llama.cpp's."""

    token: str
    id: Any = None
    logprob: float | None = None
    bytes: list[Annotated[int, Meta(ge=0, le=255)]] | None = None


class TokenWire(TopWire, gc=False):
    """A token of the answer."""

    top_logprobs: list[TopWire] | None = None


class LogprobsWire(Struct, gc=False):
    """``content`` and ``refusal`` are the chat form; the rest is that of text completions."""

    content: list[TokenWire] | None = None
    refusal: list[TokenWire] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class FunctionWire(Struct, gc=False):
    """A function's name and arguments; some servers send the arguments as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallWire(Struct, gc=False):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: FunctionWire | None = None


class MessageWire(Struct, gc=False):
    """A message, or a piece of one."""

    content: str | list[Any] | None = None
    tool_calls: list[ToolCallWire] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: FunctionWire | None = None


class ChoiceWire(Struct, gc=False):
    """One answer or a piece of it: ``message`` if whole, ``delta`` if not, ``text`` if no chat.

    ``stop_reason`` is vLLM's and ``matched_stop`` SGLang's word for the stop string that ended the
    answer; a number there is a token's id.
    """

    index: int | None = None
    delta: MessageWire | None = None
    message: MessageWire | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: LogprobsWire | None = None
    usage: UsageWire | None = None
    stop_reason: str | int | None = None
    matched_stop: str | int | None = None


class VerboseWire(Struct, gc=False):
    """What llama.cpp says of an answer where it is asked to be verbose."""

    stopping_word: str | None = None


class AnswerWire(Struct, gc=False):
    """A whole answer or a chunk of a stream; ``object`` and ``message`` are for vLLM's old errors.

    ``timings``, ``prompt_progress`` and ``verbose`` are llama.cpp's.
    """

    id: str | None = None
    model: str | None = None
    created: float | None = None
    choices: list[ChoiceWire] | None = None
    usage: UsageWire | None = None
    error: Any = None
    object: str | None = None
    message: Any = None
    system_fingerprint: str | None = None
    timings: dict[str, Any] | None = None
    prompt_progress: dict[str, Any] | None = None
    verbose: VerboseWire | None = wire_field(name="__verbose", default=None)


BEYOND = ("timings", "prompt_progress")

decode_answer = json.Decoder(AnswerWire).decode

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "cancelled": "cancelled",
    "abort": "cancelled",
}


def finish_reason_from_wire(wire: str | None) -> FinishReason | None:
    """The normal word for a server's reason."""
    return None if wire is None else _FINISH_REASONS.get(wire, "other")


def stop_sequence_of(choice: ChoiceWire, answer: AnswerWire) -> str | None:
    """The stop string that ended ``choice``, where its server tells."""
    told = choice.stop_reason or choice.matched_stop
    if told is None and answer.verbose is not None:
        told = answer.verbose.stopping_word
    return told if isinstance(told, str) and told else None


def usage_from_wire(wire: UsageWire | None) -> Usage | None:
    """The token counts of an answer; a part is known only if the server told it or its opposite."""
    if wire is None:
        return None
    if (
        wire.prompt_tokens_details is None
        and wire.completion_tokens_details is None
        and wire.prompt_cache_hit_tokens is None
    ):
        return Usage(
            prompt_tokens=wire.prompt_tokens,
            completion_tokens=wire.completion_tokens,
            total_tokens=wire.total_tokens,
        )
    read = wrote = reasoning = None
    if wire.prompt_tokens_details is not None:
        read = wire.prompt_tokens_details.cached_tokens
        wrote = wire.prompt_tokens_details.cache_write_tokens
    if read is None:
        read = wire.prompt_cache_hit_tokens
    if wire.completion_tokens_details is not None:
        reasoning = wire.completion_tokens_details.reasoning_tokens
    return Usage(
        prompt_tokens=wire.prompt_tokens,
        completion_tokens=wire.completion_tokens,
        total_tokens=wire.total_tokens,
        input_uncached_tokens=_remainder(wire.prompt_tokens, read, wrote),
        input_cache_read_tokens=read,
        input_cache_write_tokens=wrote,
        output_text_tokens=_remainder(wire.completion_tokens, reasoning),
        output_reasoning_tokens=reasoning,
    )


def usage_to_wire(usage: Usage | dict[str, int] | None) -> dict[str, Any] | None:
    """``usage`` as an answer has it; what is unknown is left out."""
    if usage is None or isinstance(usage, dict):
        return usage
    total = usage.total_tokens
    if total is None and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        total = usage.prompt_tokens + usage.completion_tokens
    wire: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
    }
    details = {
        "cached_tokens": usage.input_cache_read_tokens,
        "cache_write_tokens": usage.input_cache_write_tokens,
    }
    wire["prompt_tokens_details"] = _known(details) or None
    if usage.output_reasoning_tokens is not None:
        wire["completion_tokens_details"] = {"reasoning_tokens": usage.output_reasoning_tokens}
    return _known(wire)


def logprobs_from_wire(wire: LogprobsWire | None) -> tuple[TokenLogprob, ...] | None:
    """The tokens with their log probabilities, from either form.

    A log probability that the server did not give (the first token of an echo) is NaN.
    """
    if wire is None:
        return None
    if wire.tokens is not None:
        return _legacy_logprobs(wire.tokens, wire)
    tokens = wire.content or wire.refusal
    if not tokens:
        return None
    return tuple(
        TokenLogprob(
            token=each.token,
            logprob=_float(each.logprob),
            token_bytes=None if each.bytes is None else bytes(each.bytes),
            token_id=_token_id(each),
            top=tuple(
                TopLogprob(
                    token=top.token,
                    logprob=_float(top.logprob),
                    token_bytes=None if top.bytes is None else bytes(top.bytes),
                    token_id=_token_id(top),
                )
                for top in each.top_logprobs or ()
            ),
        )
        for each in tokens
    )


def _token_id(wire: TopWire) -> int | None:
    return wire.id if type(wire.id) is int else None


def chat_logprobs_to_wire(logprobs: Iterable[TokenLogprob], *, refusal: bool) -> dict[str, Any]:
    """``logprobs`` in the chat form."""
    tokens = [
        {**_top_to_wire(each), "top_logprobs": [_top_to_wire(top) for top in each.top]}
        for each in logprobs
    ]
    return {"content": None if refusal else tokens, "refusal": tokens if refusal else None}


def text_logprobs_to_wire(logprobs: Iterable[TokenLogprob], offset: int) -> dict[str, Any]:
    """``logprobs`` in the form of text completions; ``offset`` counts the characters before."""
    tokens = tuple(logprobs)
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    tops = [{top.token: top.logprob for top in each.top} for each in tokens]
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        # OpenAI's SDK takes no null in the place of one token's alternatives.
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def read_response(
    body: bytes, *, keep_raw: bool = False, keep: Collection[str] = ()
) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``, ``keep`` names provider fields."""
    answer, wired = _answer_in(body)
    choices = [_choice(choice, i, answer) for i, choice in enumerate(wired)]
    usage = answer.usage
    if len(choices) > 1:
        choices.sort(key=lambda choice: choice.index)
    if usage is None:
        usage = next((c.usage for c in wired if c.usage is not None), None)
    first = choices[0]
    return LLMResponse(
        text=first.text,
        model=answer.model,
        finish_reason=first.finish_reason,
        usage=usage_from_wire(usage),
        tool_calls=first.tool_calls,
        raw=decode_reply(body) if keep_raw else None,
        raw_finish_reason=first.raw_finish_reason,
        reasoning=first.reasoning,
        refusal=first.refusal,
        logprobs=first.logprobs,
        choices=tuple(choices) if len(choices) > 1 else (),
        response_id=answer.id,
        created=None if answer.created is None else int(answer.created),
        system_fingerprint=answer.system_fingerprint,
        provider_fields=provider_fields(answer, keep) if keep else None,
        stop_sequence=first.stop_sequence,
    )


def read_whole(body: bytes, *, keep: Collection[str] = ()) -> list[LLMDelta]:
    """A whole answer in as few deltas as can hold it, for those who only put them together."""
    answer, choices = _answer_in(body)
    only = choices[0]
    message = only.message
    if len(choices) > 1 or message is None or message.tool_calls or message.function_call:
        return whole(read_response(body, keep=keep))
    # Nearly every answer: it goes by way of no response, which is as much work again.
    text, reasoning = content_of(message)
    return [
        LLMDelta(
            text_delta=text or "",
            usage_delta=usage_from_wire(answer.usage or only.usage),
            reasoning_delta=reasoning or None,
            refusal_delta=message.refusal,
            finish_reason=finish_reason_from_wire(only.finish_reason),
            raw_finish_reason=only.finish_reason,
            logprobs=logprobs_from_wire(only.logprobs),
            model=answer.model,
            response_id=answer.id,
            system_fingerprint=answer.system_fingerprint,
            provider_fields=provider_fields(answer, keep) if keep else None,
            stop_sequence=stop_sequence_of(only, answer),
        )
    ]


def _answer_in(body: bytes) -> tuple[AnswerWire, list[ChoiceWire]]:
    """The answer that ``body`` is, and its choices; raises the error that it is instead."""
    try:
        answer = decode_answer(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    failure = answer_error(answer, body)
    if failure is not None:
        raise failure
    if not answer.choices:
        raise LLMBadResponseError("The backend's answer has no choices.")
    return answer, answer.choices


def provider_fields(answer: AnswerWire, keep: Collection[str]) -> dict[str, object] | None:
    """What ``answer`` tells beyond the format, of what ``keep`` names."""
    told = {name: getattr(answer, name) for name in BEYOND if name in keep}
    return _known(told) or None


def answer_error(answer: AnswerWire, body: bytes) -> LLMError | None:
    """The error that a server sent in place of an answer, if that is what this is."""
    if answer.error:
        return error_from_wire(None, decode_reply(body))
    if answer.object == "error":
        return error_from_wire(None, {"error": decode_reply(body)})
    return None


def content_of(message: MessageWire) -> tuple[str | None, str | None]:
    """Text and reasoning of a message; Mistral sends both as an array of parts."""
    reasoning = message.reasoning_content or message.reasoning
    if isinstance(message.content, list):
        text, thoughts = _joined(message.content)
        return text, reasoning or thoughts or None
    return message.content, reasoning


def arguments_of(function: FunctionWire) -> str | None:
    """A call's arguments as JSON text."""
    if isinstance(function.arguments, dict):
        return encode(function.arguments).decode()
    return function.arguments


def made_up_call_id(response_id: str | None, choice: int, number: int) -> str:
    """An id for a tool call whose server gave it none; callers need one to answer the call."""
    return f"call_{response_id or 'x'}_{choice}_{number}"


def _choice(wire: ChoiceWire, position: int, answer: AnswerWire) -> LLMChoice:
    message = wire.message or wire.delta or MessageWire(content=wire.text)
    text, reasoning = content_of(message)
    index = position if wire.index is None else wire.index
    calls = message.tool_calls or []
    if not calls and message.function_call is not None:
        calls = [ToolCallWire(function=message.function_call)]
    return LLMChoice(
        index=index,
        text=text or "",
        finish_reason=finish_reason_from_wire(wire.finish_reason),
        raw_finish_reason=wire.finish_reason,
        tool_calls=tuple(
            ToolCall(
                name=(call.function and call.function.name) or "",
                arguments_json=(call.function and arguments_of(call.function)) or "",
                call_id=call.id or made_up_call_id(answer.id, index, i),
            )
            for i, call in enumerate(calls)
        ),
        reasoning=reasoning or None,
        refusal=message.refusal,
        logprobs=logprobs_from_wire(wire.logprobs),
        stop_sequence=stop_sequence_of(wire, answer),
    )


def _legacy_logprobs(tokens: list[str], wire: LogprobsWire) -> tuple[TokenLogprob, ...] | None:
    values = wire.token_logprobs or []
    tops = wire.top_logprobs or []
    return (
        tuple(
            TokenLogprob(
                token=token,
                logprob=_float(values[i] if i < len(values) else None),
                top=tuple(
                    TopLogprob(token=name, logprob=_float(value))
                    for name, value in ((tops[i] if i < len(tops) else None) or {}).items()
                ),
            )
            for i, token in enumerate(tokens)
        )
        or None
    )


def _top_to_wire(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    raw = None if token.token_bytes is None else list(token.token_bytes)
    return {"token": token.token, "logprob": token.logprob, "bytes": raw}


def _joined(parts: list[Any]) -> tuple[str, str]:
    text: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("text"), str):
            text.append(part["text"])
        elif isinstance(part.get("thinking"), list):
            thoughts.append(_joined(part["thinking"])[0])
    return "".join(text), "".join(thoughts)


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def _remainder(whole: int | None, part: int | None, other: int | None = None) -> int | None:
    if whole is None or part is None:
        return None
    rest = whole - part - (other or 0)
    return rest if rest >= 0 else None


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
