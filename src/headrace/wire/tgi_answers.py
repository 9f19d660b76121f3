"""What TGI answers, whole or token by token, both ways.

A token has an id there. Those of us who are not told it write 0, and the face says so in its list of
what was dropped. The text ends with the stop string that ended it, where one did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.responses import (
    FinishReason,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.wire import sse
from headrace.wire.assemble import whole
from headrace.wire.hf_errors import TGI, error_from_wire, error_to_wire
from headrace.wire.json import bad_reply, decode_reply, encode

_FINISH_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "eos_token": "stop",
    "stop_sequence": "stop",
}
_NOTHING: tuple[object, ...] = (None, float("inf"), float("-inf"))


class TokenWire(Struct, gc=False):
    """A token of an answer, or an alternative to one."""

    id: int | None = None
    text: str = ""
    logprob: float | None = None
    special: bool = False


class DetailsWire(Struct, gc=False):
    """What is told of an answer besides its text; ``input_length`` in streams, and by us."""

    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None
    tokens: list[TokenWire] | None = None
    top_tokens: list[list[TokenWire]] | None = None


class AnswerWire(Struct, gc=False):
    """A whole answer."""

    generated_text: str | None = None
    details: DetailsWire | None = None
    error: str | None = None


class EventWire(Struct, gc=False):
    """A token of a stream; the last has the whole text."""

    token: TokenWire | None = None
    top_tokens: list[TokenWire] | None = None
    generated_text: str | None = None
    details: DetailsWire | None = None
    error: str | None = None


_decode: Any = json.Decoder(AnswerWire | list[AnswerWire]).decode
_decode_event = json.Decoder(EventWire).decode


def read_response(
    body: bytes, *, keep_raw: bool = False, keep: Collection[str] = ()
) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``, ``logprobs`` in ``keep`` these."""
    try:
        answer: Any = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if isinstance(answer, list):  # as ``/`` answers
        answer = answer[0] if answer else AnswerWire()
    if answer.error is not None:
        raise error_from_wire(_object_in(body))
    if answer.generated_text is None:
        raise LLMBadResponseError("The backend's answer has no 'generated_text'.")
    details = answer.details or DetailsWire()
    raw = decode_reply(body) if keep_raw else None
    return LLMResponse(
        text=answer.generated_text,
        finish_reason=_reason(details.finish_reason),
        raw_finish_reason=details.finish_reason,
        usage=_usage(details),
        raw=raw if isinstance(raw, dict) else None,
        logprobs=_logprobs(details) if "logprobs" in keep else None,
    )


def read_whole(body: bytes, *, keep: Collection[str] = ()) -> list[LLMDelta]:
    """A whole answer in as few deltas as can hold it, for those who only put them together."""
    return whole(read_response(body, keep=keep))


def usage_from_headers(headers: Mapping[str, str]) -> Usage | None:
    """The tokens that a whole answer's headers tell of, for its body has not the prompt's."""
    prompt, answered = headers.get("x-prompt-tokens"), headers.get("x-generated-tokens")
    if not (prompt and answered and prompt.isdigit() and answered.isdigit()):
        return None
    return _counted(int(prompt[:18]), int(answered[:18]))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
    details: bool = True,
    before: str = "",
    seed: int | None = None,
) -> bytes:
    """``response`` as a body, with ``before`` before its text; of ids and dates it has none."""
    ending = response.stop_sequence or ""
    said: dict[str, Any] = {"generated_text": f"{before}{response.text}{ending}"}
    if details:
        usage = response.usage if isinstance(response.usage, Usage) else Usage()
        tokens = response.logprobs or ()
        told = {
            **_told(response.finish_reason, response.stop_sequence, usage, seed, len(tokens)),
            "prefill": [],
            "tokens": [_token_to_wire(each) for each in tokens],
        }
        if any(each.top for each in tokens):
            told["top_tokens"] = [[_token_to_wire(top) for top in each.top] for each in tokens]
        said["details"] = told
    return encode(said)


class StreamReader:
    """Reads a stream's bytes into deltas; ``done`` turns true when nothing more can come."""

    def __init__(self, keep: Collection[str] = ()) -> None:
        self.done = False
        self._with_logprobs = "logprobs" in keep
        self._events = sse.Reader()
        self._failure: LLMError | None = None
        self._said: list[str] = []

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes; what stands before an error is given first."""
        if self._failure is not None:
            raise self._failure
        deltas: list[LLMDelta] = []
        try:
            for event in self._events.feed(data):
                if self.done:
                    break
                self._read(event.data, deltas)
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
                "The backend's stream was cut short: it ended without the whole text."
            )
        return []

    def _read(self, data: bytes, deltas: list[LLMDelta]) -> None:
        if not data or data.startswith(b"[DONE]"):
            return
        try:
            event = _decode_event(data)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(data, error) from error
        if event.error is not None:
            raise error_from_wire(_object_in(data))
        token = event.token
        text = "" if token is None or token.special else token.text
        ends = event.generated_text is not None
        if event.generated_text is not None:
            before = "".join(self._said)
            if event.generated_text.startswith(before):
                text = event.generated_text[len(before) :]
            self.done = True
        else:
            self._said.append(text)
        logprobs = None
        if self._with_logprobs and token is not None and _is_likely(token):
            logprobs = (_token(token, event.top_tokens or ()),)
        details = event.details or DetailsWire()
        if text or logprobs or ends:
            deltas.append(
                LLMDelta(
                    text_delta=text or None,
                    logprobs=logprobs,
                    finish_reason=(_reason(details.finish_reason) or "stop") if ends else None,
                    raw_finish_reason=details.finish_reason if ends else None,
                )
            )
        usage = _usage(details)
        if usage is not None:
            deltas.append(LLMDelta(usage_delta=usage))


class StreamWriter:
    """Writes deltas as a stream's bytes: ``write`` each, then ``finish``, or ``error`` instead.

    ``details`` are told with the last event, ``before`` stands before the text in it.
    ``lacks_ids`` turns true when a token went out whose id nobody has told.
    """

    def __init__(self, *, details: bool = True, before: str = "", seed: int | None = None) -> None:
        self.lacks_ids = False
        self._details, self._seed = details, seed
        self._said = [before]
        self._index = 0
        self._usage = Usage()
        self._reason: str | None = None
        self._stop: str | None = None

    def write(self, delta: LLMDelta) -> bytes:
        """The events for ``delta``; nothing where it holds nothing that a caller gets now."""
        if delta.usage_delta is not None:
            self._usage = delta.usage_delta
        if delta.finish_reason is not None:
            self._reason, self._stop = delta.finish_reason, delta.stop_sequence
        if delta.index:
            return b""
        text = delta.text_delta or ""
        self._said.append(text)
        if not delta.logprobs:
            return self._event(TokenLogprob(token=text, logprob=float("nan"))) if text else b""
        tokens = delta.logprobs
        if "".join(each.token for each in tokens) == text:
            return b"".join(map(self._event, tokens))
        # What a stop string or half a character keeps back is told with the last of them.
        *others, last = tokens
        events = b"".join(self._event(each, "") for each in others)
        return events + self._event(last, text)

    def finish(self) -> bytes:
        """The end of a whole stream."""
        ending = self._stop or ""
        self._index += 1
        last: dict[str, Any] = {
            "index": self._index,
            # The token that ends an answer has no text of its own.
            "token": {"id": 0, "text": ending, "logprob": None, "special": not ending},
            "generated_text": "".join(self._said) + ending,
            "details": None,
        }
        if self._details:
            usage = self._usage
            told = _told(self._reason, self._stop, usage, self._seed, self._index - 1)
            last["details"] = {"input_length": usage.prompt_tokens or 0, **told}
        return sse.write(encode(last))

    def error(self, error: LLMError) -> bytes:
        """The end of a stream that breaks off."""
        return sse.write(encode(error_to_wire(error, TGI)))

    def _event(self, token: TokenLogprob, text: str | None = None) -> bytes:
        self._index += 1
        self.lacks_ids = self.lacks_ids or token.token_id is None
        wire = _token_to_wire(token)
        if text is not None:
            wire["text"] = text
        event: dict[str, Any] = {"index": self._index, "token": wire}
        if token.top:
            event["top_tokens"] = [_token_to_wire(top) for top in token.top]
        return sse.write(encode(event | {"generated_text": None, "details": None}))


def reason_to_wire(reason: str | None, stop_sequence: str | None) -> str:
    """TGI's word for a reason to stop."""
    if reason == "length":
        return "length"
    return "eos_token" if stop_sequence is None else "stop_sequence"


def _reason(wire: str | None) -> FinishReason | None:
    return None if wire is None else _FINISH_REASONS.get(wire, "other")


def _told(
    reason: str | None, stop: str | None, usage: Usage, seed: int | None, counted: int
) -> dict[str, Any]:
    """What an answer tells of its end; ``counted`` is how many tokens were seen."""
    told: dict[str, Any] = {
        "finish_reason": reason_to_wire(reason, stop),
        "generated_tokens": counted if usage.completion_tokens is None else usage.completion_tokens,
        "seed": seed,
    }
    if usage.prompt_tokens is not None:
        told["input_length"] = usage.prompt_tokens
    return told


def _usage(details: DetailsWire) -> Usage | None:
    if details.generated_tokens is None:
        return None
    return _counted(details.input_length, details.generated_tokens)


def _counted(prompt: int | None, answered: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=answered,
        total_tokens=None if prompt is None else prompt + answered,
    )


def _logprobs(details: DetailsWire) -> tuple[TokenLogprob, ...] | None:
    tops = details.top_tokens or []
    found = [
        _token(token, tops[place] if place < len(tops) else ())
        for place, token in enumerate(details.tokens or ())
        if _is_likely(token)
    ]
    return tuple(found) or None


def _is_likely(token: TokenWire) -> bool:
    """Whether ``token`` is one of the text whose probability was told."""
    return not token.special and token.logprob is not None


def _token(wire: TokenWire, tops: Collection[TokenWire]) -> TokenLogprob:
    return TokenLogprob(
        token=wire.text,
        logprob=_number(wire.logprob),
        token_id=wire.id,
        top=tuple(
            TopLogprob(token=top.text, logprob=_number(top.logprob), token_id=top.id)
            for top in tops
        ),
    )


def _number(logprob: float | None) -> float:
    return float("nan") if logprob is None else logprob


def _token_to_wire(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    # NaN is the log probability that nobody told; JSON has no word for the infinite ones either.
    known = token.logprob == token.logprob and token.logprob not in _NOTHING
    return {
        "id": token.token_id or 0,
        "text": token.token,
        "logprob": token.logprob if known else None,
        "special": False,
    }


def _object_in(data: bytes) -> dict[str, Any]:
    wire = decode_reply(data)
    return wire if isinstance(wire, dict) else {}
