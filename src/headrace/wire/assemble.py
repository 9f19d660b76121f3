"""Deltas to a response and back, whatever format they came in."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.responses import (
    FinishReason,
    LLMChoice,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)


@define
class _Call:
    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list)


@define
class _Answer:
    text: list[str] = field(factory=list)
    reasoning: list[str] = field(factory=list)
    reasoning_parts: list[ReasoningPart] = field(factory=list)
    refusal: list[str] = field(factory=list)
    logprobs: list[TokenLogprob] = field(factory=list)
    calls: dict[int, _Call] = field(factory=dict)
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    stop_sequence: str | None = None

    def choice(self, index: int) -> LLMChoice:
        return LLMChoice(
            index=index,
            text="".join(self.text),
            finish_reason=self.finish_reason,
            raw_finish_reason=self.raw_finish_reason,
            tool_calls=tuple(
                ToolCall(
                    name=call.name,
                    arguments_json="".join(call.arguments),
                    call_id=call.call_id or f"call_{index}_{number}",
                )
                for number, call in sorted(self.calls.items())
            ),
            reasoning="".join(self.reasoning) or None,
            refusal="".join(self.refusal) or None,
            logprobs=tuple(self.logprobs) or None,
            reasoning_parts=tuple(self.reasoning_parts),
            stop_sequence=self.stop_sequence,
        )


class Assembler:
    """Puts the deltas of one answer together."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}
        self._usage: Usage | None = None
        self.model: str | None = None
        """As the answer named it so far."""
        self._response_id: str | None = None
        self._fingerprint: str | None = None
        self._beyond: dict[str, object] = {}

    def add(self, delta: LLMDelta) -> None:
        """Takes the next delta."""
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        self.model = self.model or delta.model
        self._response_id = self._response_id or delta.response_id
        self._fingerprint = self._fingerprint or delta.system_fingerprint
        if delta.provider_fields is not None:
            self._beyond.update(delta.provider_fields)
        if delta.begins_again:
            self._answers.pop(delta.index, None)
        answer = self._answers.get(delta.index)
        if answer is None:
            if _says_nothing(delta):
                return
            answer = self._answers[delta.index] = _Answer()
        if delta.text_delta:
            answer.text.append(delta.text_delta)
        if delta.reasoning_delta:
            answer.reasoning.append(delta.reasoning_delta)
        if delta.reasoning_part is not None:
            answer.reasoning_parts.append(delta.reasoning_part)
        if delta.refusal_delta:
            answer.refusal.append(delta.refusal_delta)
        if delta.logprobs:
            answer.logprobs += delta.logprobs
        if delta.finish_reason is not None:
            answer.finish_reason = delta.finish_reason
            answer.raw_finish_reason = delta.raw_finish_reason
            answer.stop_sequence = delta.stop_sequence
        if delta.tool_call_delta is not None:
            _add_call(answer, delta.tool_call_delta)

    def response(self, **known: Any) -> LLMResponse:
        """What the deltas so far make together; ``known`` are fields that they do not tell."""
        choices = tuple(a.choice(index) for index, a in sorted(self._answers.items()))
        first = choices[0] if choices else LLMChoice(index=0)
        return LLMResponse(
            text=first.text,
            model=self.model,
            finish_reason=first.finish_reason,
            usage=self._usage,
            tool_calls=first.tool_calls,
            raw_finish_reason=first.raw_finish_reason,
            reasoning=first.reasoning,
            refusal=first.refusal,
            logprobs=first.logprobs,
            choices=choices if len(choices) > 1 else (),
            response_id=self._response_id,
            system_fingerprint=self._fingerprint,
            provider_fields=self._beyond or None,
            reasoning_parts=first.reasoning_parts,
            stop_sequence=first.stop_sequence,
            **known,
        )


def of_one(delta: LLMDelta, **known: Any) -> LLMResponse:
    """What ``delta`` makes alone; ``known`` is as in Assembler.response."""
    if delta.index or delta.tool_call_delta or delta.reasoning_part or _says_nothing(delta):
        assembler = Assembler()
        assembler.add(delta)
        return assembler.response(**known)
    return LLMResponse(
        text=delta.text_delta or "",
        model=delta.model,
        finish_reason=delta.finish_reason,
        usage=delta.usage_delta,
        raw_finish_reason=delta.raw_finish_reason,
        reasoning=delta.reasoning_delta or None,
        refusal=delta.refusal_delta or None,
        logprobs=delta.logprobs or None,
        response_id=delta.response_id,
        system_fingerprint=delta.system_fingerprint,
        provider_fields=delta.provider_fields,
        stop_sequence=delta.stop_sequence,
        **known,
    )


def assemble(deltas: list[LLMDelta]) -> LLMResponse:
    """What ``deltas`` make together."""
    assembler = Assembler()
    for delta in deltas:
        assembler.add(delta)
    return assembler.response()


def choices_of(response: LLMResponse) -> tuple[LLMChoice, ...]:
    """Every answer in ``response``: its choices, or the single one that its own fields are."""
    if response.choices:
        return response.choices
    return (
        LLMChoice(
            index=0,
            text=response.text,
            finish_reason=response.finish_reason,  # type: ignore[arg-type]
            raw_finish_reason=response.raw_finish_reason,
            tool_calls=response.tool_calls,
            reasoning=response.reasoning,
            refusal=response.refusal,
            logprobs=response.logprobs,
            reasoning_parts=response.reasoning_parts,
            stop_sequence=response.stop_sequence,
        ),
    )


def deltas(response: LLMResponse) -> list[LLMDelta]:
    """``response`` as the deltas of a stream that says the same: reasoning, text, calls, the end."""
    pieces: list[LLMDelta] = []
    names: dict[str, object] = {
        "model": response.model,
        "response_id": response.response_id,
        "system_fingerprint": response.system_fingerprint,
    }

    def say(index: int, **fields: object) -> None:
        pieces.append(LLMDelta(index=index, **names, **fields))  # type: ignore[arg-type]

    for choice in choices_of(response):
        for part in choice.reasoning_parts:
            if part.text:
                say(choice.index, reasoning_delta=part.text)
            say(choice.index, reasoning_part=part)
        if choice.reasoning and not choice.reasoning_parts:
            say(choice.index, reasoning_delta=choice.reasoning)
        if choice.text or (choice.logprobs and not choice.refusal):
            say(choice.index, text_delta=choice.text, logprobs=choice.logprobs)
        if choice.refusal:
            unsaid = None if choice.text else choice.logprobs
            say(choice.index, refusal_delta=choice.refusal, logprobs=unsaid)
        for number, call in enumerate(choice.tool_calls):
            piece = ToolCallDelta(
                call_id=call.call_id,
                name=call.name,
                arguments_json_delta=call.arguments_json,
                index=number,
            )
            say(choice.index, tool_call_delta=piece)
        say(
            choice.index,
            finish_reason=choice.finish_reason,
            raw_finish_reason=choice.raw_finish_reason,
            stop_sequence=choice.stop_sequence,
        )
    if isinstance(response.usage, Usage):
        say(0, usage_delta=response.usage, provider_fields=response.provider_fields)
    return pieces


def whole(response: LLMResponse) -> list[LLMDelta]:
    """``response`` in as few deltas as can hold it, for those who only put them together."""
    if response.choices or len(response.tool_calls) > 1 or response.reasoning_parts:
        return deltas(response)
    call = None
    if response.tool_calls:
        only = response.tool_calls[0]
        call = ToolCallDelta(
            call_id=only.call_id, name=only.name, arguments_json_delta=only.arguments_json
        )
    return [
        LLMDelta(
            text_delta=response.text,
            tool_call_delta=call,
            usage_delta=response.usage if isinstance(response.usage, Usage) else None,
            reasoning_delta=response.reasoning,
            refusal_delta=response.refusal,
            finish_reason=response.finish_reason,  # type: ignore[arg-type]
            raw_finish_reason=response.raw_finish_reason,
            logprobs=response.logprobs,
            model=response.model,
            response_id=response.response_id,
            system_fingerprint=response.system_fingerprint,
            provider_fields=response.provider_fields,
            stop_sequence=response.stop_sequence,
        )
    ]


def _says_nothing(delta: LLMDelta) -> bool:
    """Whether ``delta`` holds nothing of an answer; usage and names belong to all of them."""
    return (
        delta.text_delta is None
        and delta.tool_call_delta is None
        and delta.reasoning_delta is None
        and delta.reasoning_part is None
        and delta.refusal_delta is None
        and delta.finish_reason is None
        and delta.logprobs is None
    )


def _add_call(answer: _Answer, piece: ToolCallDelta) -> None:
    call = answer.calls.setdefault(piece.index, _Call())
    call.call_id = call.call_id or piece.call_id or ""
    call.name = call.name or piece.name or ""
    if piece.arguments_json_delta:
        call.arguments.append(piece.arguments_json_delta)
