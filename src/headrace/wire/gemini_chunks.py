"""Gemini's answers, read and written whole; one that is whole is a stream's only chunk.

Some models say a reason to stop with every chunk of a stream, so the reason and the counts that go
with it wait for the end.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from attrs import define, evolve, field
from msgspec import DecodeError, Raw, json

from headrace.contracts.errors import LLMBadResponseError, LLMContentFilterError
from headrace.contracts.messages import ReasoningPart
from headrace.contracts.responses import (
    LLMChoice,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from headrace.wire.assemble import assemble, choices_of
from headrace.wire.gemini_answers import (
    CandidateWire,
    ResponseWire,
    UsageWire,
    candidate,
    finish_reason_from_wire,
    finish_reason_to_wire,
    logprobs_from_wire,
    logprobs_to_wire,
    parts_of,
    usage_from_wire,
    usage_to_wire,
)
from headrace.wire.gemini_contents import MADE_ID, call_from_wire
from headrace.wire.gemini_errors import error_from_wire
from headrace.wire.gemini_seals import (
    OWN_SEALS,
    TEXT_SEAL,
    THOUGHT_SEAL,
    Thoughts,
    call_seal,
    packed_seal,
)
from headrace.wire.json import bad_reply, decode_reply, encode

_decode = json.Decoder(ResponseWire).decode
_decode_array = json.Decoder(list[Raw]).decode


@define
class _Choice:
    """One candidate that is being read; ``calls`` counts its calls."""

    thoughts: Thoughts = field(factory=Thoughts)
    calls: int = 0
    raw: str | None = None


class Chunks:
    """Reads chunks into deltas; ``close`` gives what is known at the end only."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: UsageWire | None = None
        self._untold: Usage | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there is a candidate."""
        return bool(self._choices)

    @property
    def has_ended(self) -> bool:
        """Whether every candidate so far has said why it stopped."""
        return bool(self._choices) and all(c.raw is not None for c in self._choices.values())

    def read(self, data: bytes) -> list[LLMDelta]:
        """What the chunk ``data`` says."""
        try:
            said = _decode(data)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(data, error) from error
        if said.error:
            raise error_from_wire(None, decode_reply(data))
        if not self._names:
            self._names = {"model": said.modelVersion, "response_id": said.responseId}
        if said.usageMetadata is not None:
            # The totals so far: who breaks off here has used that much.
            self._usage = said.usageMetadata
            self._untold = usage_from_wire(said.usageMetadata)
        if not said.candidates and said.promptFeedback and not self._choices:
            raise _blocked(said.promptFeedback)
        deltas: list[LLMDelta] = []
        for each in said.candidates or ():
            self._read_candidate(each, data, deltas)
        if self._untold is not None:
            deltas.append(LLMDelta(usage_delta=self._untold, **self._names))
            self._untold = None
        return deltas

    def close(self) -> list[LLMDelta]:
        """The last thoughts, the reasons to stop and the counts."""
        deltas: list[LLMDelta] = []
        for index, choice in sorted(self._choices.items()):
            self._seal(index, choice.thoughts.close(), deltas)
            reason = finish_reason_from_wire(choice.raw or "", called=choice.calls > 0)
            self._say(index, deltas, finish_reason=reason, raw_finish_reason=choice.raw)
        usage = usage_from_wire(self._usage)
        if usage is not None:
            deltas.append(LLMDelta(usage_delta=usage, **self._names))
        return deltas

    def _read_candidate(self, wire: CandidateWire, data: bytes, deltas: list[LLMDelta]) -> None:
        index = wire.index or 0
        choice = self._choices.setdefault(index, _Choice())
        logprobs = logprobs_from_wire(wire.logprobsResult)
        for part in (wire.content and wire.content.parts) or ():
            text = part.get("text")
            if isinstance(text, str) and not part.get("thought"):
                if text or logprobs:
                    self._say(index, deltas, text_delta=text, logprobs=logprobs)
                    logprobs = None
                self._sealed(index, choice, part, TEXT_SEAL, deltas)
            elif isinstance(text, str):
                if text:
                    choice.thoughts.say(text)
                    self._say(index, deltas, reasoning_delta=text)
                self._sealed(index, choice, part, THOUGHT_SEAL, deltas)
            elif isinstance(part.get("functionCall"), dict):
                self._sealed(index, choice, part, call_seal(choice.calls), deltas)
                self._call(index, choice, part["functionCall"], data, deltas)
            else:
                # What Google's own tools did, or a picture: the text around it says what came of it.
                self._sealed(index, choice, part, TEXT_SEAL, deltas)
        if logprobs:
            self._say(index, deltas, text_delta="", logprobs=logprobs)
        if wire.finishReason is not None and wire.finishReason != "FINISH_REASON_UNSPECIFIED":
            choice.raw = wire.finishReason

    def _call(
        self,
        index: int,
        choice: _Choice,
        wire: dict[str, Any],
        data: bytes,
        deltas: list[LLMDelta],
    ) -> None:
        name = self._names.get("response_id")
        # The same in every answer that has no id of its own would be too little: what is called tells
        # one from another.
        told = name[:24] if name else blake2b(data, digest_size=8).hexdigest()
        call = call_from_wire(wire, f"{MADE_ID}{told}_{index or ''}{choice.calls}")
        piece = ToolCallDelta(
            call_id=call.call_id,
            name=call.name,
            arguments_json_delta=call.arguments_json,
            index=choice.calls,
        )
        choice.calls += 1
        self._say(index, deltas, tool_call_delta=piece)

    def _sealed(
        self,
        index: int,
        choice: _Choice,
        part: dict[str, Any],
        place: str,
        deltas: list[LLMDelta],
    ) -> None:
        signature = part.get("thoughtSignature")
        if isinstance(signature, str) and signature:
            self._seal(index, choice.thoughts.seal(signature, place), deltas)

    def _seal(self, index: int, parts: list[ReasoningPart], deltas: list[LLMDelta]) -> None:
        for part in parts:
            self._say(index, deltas, reasoning_part=part)

    def _say(self, index: int, deltas: list[LLMDelta], **fields: Any) -> None:
        usage, self._untold = self._untold, None
        deltas.append(LLMDelta(index=index, usage_delta=usage, **fields, **self._names))


def read_whole(body: bytes, *, keep: object = ()) -> list[LLMDelta]:
    """A whole answer in deltas, for those who only put them together.

    It may be an array of a stream's chunks: some servers know nothing of ``alt=sse``.
    """
    chunks = Chunks()
    deltas: list[LLMDelta] = []
    for chunk in _entries(body) if body.lstrip()[:1] == b"[" else (body,):
        deltas += chunks.read(chunk)
    if not chunks.has_begun:
        raise LLMBadResponseError("The backend's answer has no candidates.")
    return deltas + chunks.close()


def read_response(body: bytes, *, keep_raw: bool = False, keep: object = ()) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``."""
    response = assemble(read_whole(body, keep=keep))
    return evolve(response, raw=decode_reply(body)) if keep_raw else response


def _entries(body: bytes) -> list[bytes]:
    try:
        return [bytes(entry) for entry in _decode_array(body)]
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    said = [_candidate_of(choice) for choice in choices_of(response)]
    return encode(
        {
            "candidates": said,
            "usageMetadata": usage_to_wire(response.usage),
            "modelVersion": model or response.model or "",
            "responseId": response_id or response.response_id or "",
        }
    )


def without_thoughts(response: LLMResponse) -> LLMResponse:
    """``response`` without what was thought, but for the signatures over it."""
    choices = tuple(map(_without_thoughts, response.choices))
    parts = _seals_alone(response.reasoning_parts)
    return evolve(response, reasoning=None, reasoning_parts=parts, choices=choices)


def _without_thoughts(choice: LLMChoice) -> LLMChoice:
    return evolve(choice, reasoning=None, reasoning_parts=_seals_alone(choice.reasoning_parts))


def _seals_alone(parts: tuple[ReasoningPart, ...]) -> tuple[ReasoningPart, ...]:
    found = []
    for part in parts:
        seal = packed_seal(part)
        if seal is not None:
            own = (part.part_id or "").startswith(OWN_SEALS)
            found.append(
                ReasoningPart(signature=seal, part_id=part.part_id if own else THOUGHT_SEAL)
            )
    return tuple(found)


def _candidate_of(choice: LLMChoice) -> dict[str, object]:
    wire = candidate(choice.index, parts_of(choice))
    wire["finishReason"] = finish_reason_to_wire(choice.finish_reason, choice.raw_finish_reason)
    if choice.logprobs:
        wire["logprobsResult"] = logprobs_to_wire(choice.logprobs)
        wire["avgLogprobs"] = _average(choice.logprobs)
    return wire


def _average(logprobs: tuple[TokenLogprob, ...]) -> float:
    return sum(each.logprob for each in logprobs) / len(logprobs)


def _blocked(feedback: dict[str, Any]) -> LLMContentFilterError:
    reason = feedback.get("blockReason") or "no reason given"
    said = feedback.get("blockReasonMessage")
    words = f": {said}" if isinstance(said, str) and said else ""
    return LLMContentFilterError(
        f"The prompt was blocked ({reason}){words}.",
        provider_message=said if isinstance(said, str) else None,
        param="contents",
    )
