"""What OpenAI's audio endpoints answer with, both ways: JSON, text, subtitles, and events.

https://platform.openai.com/docs/api-reference/audio. Subtitles are SubRip's and WebVTT's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from headrace.contracts.audio import (
    TranscribedSegment,
    TranscribedWord,
    TranscriptionDelta,
    TranscriptionResult,
)
from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.responses import Usage
from headrace.wire.json import decode_reply, encode
from headrace.wire.openai_audio import ResponseFormat
from headrace.wire.openai_errors import error_from_wire, write_error
from headrace.wire.openai_usage import usage_from_either
from headrace.wire.sse import STREAM_TYPE, Reader

__all__ = ["STREAM_TYPE", "StreamReader", "StreamWriter", "read_response", "write_response"]

_JSON, _PLAIN = "application/json", "text/plain; charset=utf-8"
_TYPES = {"srt": "application/x-subrip; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}
_KNOWN = frozenset(("task", "language", "duration", "text", "segments", "words", "usage"))


def read_response(body: bytes, content_type: str = _JSON) -> TranscriptionResult:
    """What a backend's answer says; LLMBadResponseError where it says nothing."""
    if not content_type.startswith(_JSON):
        try:
            return TranscriptionResult(text=body.decode().strip())
        except UnicodeDecodeError as error:
            raise LLMBadResponseError(f"The backend's answer is no text: {error}.") from error
    wire = decode_reply(body)
    if not isinstance(wire, dict):
        raise LLMBadResponseError("The backend's answer is no JSON object.")
    if wire.get("error"):
        raise error_from_wire(None, {"error": wire["error"]})
    return _result(wire)


def _result(wire: dict[str, Any]) -> TranscriptionResult:
    text = wire.get("text")
    if not isinstance(text, str):
        raise LLMBadResponseError("The backend's answer has no 'text'.")
    usage, duration_s = wire.get("usage"), _number(wire.get("duration"))
    if duration_s is None and isinstance(usage, dict) and usage.get("type") == "duration":
        duration_s = _number(usage.get("seconds"))
    language = wire.get("language")
    return TranscriptionResult(
        text=text,
        language=language if isinstance(language, str) else None,
        duration_s=duration_s,
        segments=_several(wire.get("segments"), _segment),
        words=_several(wire.get("words"), _word),
        usage=usage_from_either(usage),
        provider_fields={
            name: value for name, value in wire.items() if name not in _KNOWN and name != "type"
        },
    )


def _several(wire: Any, read: Callable[[dict[str, Any]], Any]) -> tuple[Any, ...] | None:
    if wire is None:
        return None
    if not isinstance(wire, list) or not all(isinstance(each, dict) for each in wire):
        raise LLMBadResponseError("The backend's answer has segments or words that are no objects.")
    return tuple(read(each) for each in wire)


def _segment(wire: dict[str, Any]) -> TranscribedSegment:
    tokens, speaker = wire.get("tokens"), wire.get("speaker")
    return TranscribedSegment(
        start_s=_number(wire.get("start")) or 0.0,
        end_s=_number(wire.get("end")) or 0.0,
        text=str(wire.get("text") or ""),
        seek=int(_number(wire.get("seek")) or 0),
        token_ids=tuple(each for each in tokens if type(each) is int)
        if isinstance(tokens, list)
        else (),
        temperature=_number(wire.get("temperature")) or 0.0,
        avg_logprob=_number(wire.get("avg_logprob")) or 0.0,
        compression_ratio=_number(wire.get("compression_ratio")) or 0.0,
        no_speech_prob=_number(wire.get("no_speech_prob")) or 0.0,
        speaker=speaker if isinstance(speaker, str) else None,
    )


def _word(wire: dict[str, Any]) -> TranscribedWord:
    return TranscribedWord(
        word=str(wire.get("word") or ""),
        start_s=_number(wire.get("start")) or 0.0,
        end_s=_number(wire.get("end")) or 0.0,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, str):  # OpenAI's duration was a text for a while
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if type(value) in (int, float) else None


def write_response(
    result: TranscriptionResult,
    response_format: ResponseFormat = "json",
    *,
    translate: bool = False,
) -> tuple[str, bytes]:
    """The content type and body that say ``result`` in that form."""
    match response_format:
        case "text":
            return _PLAIN, f"{result.text}\n".encode()
        case "srt" | "vtt":
            written = _subtitles(result, response_format)
            return _TYPES[response_format], written.encode()
        case "json":
            wire: dict[str, object] = {"text": result.text, **result.provider_fields}
            if not translate:
                wire["language"] = result.language  # Mistral's clients need the field
                wire |= _usage_to_wire(result.usage, result.duration_s)
            return _JSON, encode(wire)
    wire = {
        "task": "translate" if translate else "transcribe",
        "language": result.language or "",
        "duration": result.duration_s or 0.0,
        "text": result.text,
        **result.provider_fields,
    }
    if result.segments is not None:
        is_by_voice = response_format == "diarized_json"
        wire["segments"] = [
            _speech_to_wire(at, each) if is_by_voice else _segment_to_wire(at, each)
            for at, each in enumerate(result.segments)
        ]
    if result.words is not None:
        wire["words"] = [
            {"word": each.word, "start": each.start_s, "end": each.end_s} for each in result.words
        ]
    return _JSON, encode(wire | _usage_to_wire(result.usage, result.duration_s))


def _segment_to_wire(at: int, segment: TranscribedSegment) -> dict[str, object]:
    return {
        "id": at,
        "seek": segment.seek,
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": list(segment.token_ids),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _speech_to_wire(at: int, segment: TranscribedSegment) -> dict[str, object]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{at:03}",
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "speaker": segment.speaker or "",
    }


def _usage_to_wire(usage: Usage | None, duration_s: float | None) -> dict[str, object]:
    if usage is not None:
        prompt, output = usage.prompt_tokens or 0, usage.completion_tokens or 0
        tokens = {"type": "tokens", "input_tokens": prompt, "output_tokens": output}
        return {"usage": {**tokens, "total_tokens": usage.total_tokens or prompt + output}}
    if duration_s is not None:
        return {"usage": {"type": "duration", "seconds": duration_s}}
    return {}


def _subtitles(result: TranscriptionResult, response_format: str) -> str:
    segments: Sequence[TranscribedSegment] = result.segments or (
        [TranscribedSegment(start_s=0.0, end_s=result.duration_s or 0.0, text=result.text)]
        if result.text
        else []
    )
    is_srt = response_format == "srt"
    blocks = []
    for at, each in enumerate(segments, 1):
        begin, end = (_clock(each.start_s, is_srt), _clock(each.end_s, is_srt))
        # An empty line would end the block, and an arrow would be taken for the times.
        words = " ".join(each.text.split()).replace("-->", "->")
        number = f"{at}\n" if is_srt else ""
        blocks.append(f"{number}{begin} --> {end}\n{words}\n")
    return ("" if is_srt else "WEBVTT\n\n") + "\n".join(blocks)


def _clock(seconds: float, is_srt: bool) -> str:
    whole = max(0, round(seconds * 1000))
    minutes, rest = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    mark = "," if is_srt else "."
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


class StreamReader:
    """Reads the events of a text that is heard; the last delta has the result."""

    def __init__(self) -> None:
        self._events = Reader()
        self._texts: list[str] = []
        self._segments: list[TranscribedSegment] = []
        self._result: TranscriptionResult | None = None

    def feed(self, piece: bytes) -> list[TranscriptionDelta]:
        """What ``piece`` brings."""
        deltas: list[TranscriptionDelta] = []
        for event in self._events.feed(piece):
            if event.data == b"[DONE]":
                continue
            wire = decode_reply(event.data)
            if not isinstance(wire, dict):
                raise LLMBadResponseError("The backend sent an event that is no JSON object.")
            if wire.get("error"):
                raise error_from_wire(None, {"error": wire["error"]})
            match wire.get("type"):
                case "transcript.text.delta":
                    text = str(wire.get("delta") or "")
                    self._texts.append(text)
                    deltas.append(TranscriptionDelta(text=text))
                case "transcript.text.segment":
                    self._segments.append(_segment(wire))
                case "transcript.text.done":
                    self._result = _result(wire)
        return deltas

    def close(self) -> list[TranscriptionDelta]:
        """What is left at the end; LLMBadResponseError where the end did not come."""
        if self._result is None:
            raise LLMBadResponseError("The backend's stream ended without 'transcript.text.done'.")
        segments = tuple(self._segments) or self._result.segments
        return [TranscriptionDelta(result=evolve(self._result, segments=segments))]


class StreamWriter:
    """Writes the events of a text that is heard; ``by_voice``: with the segments of each speaker."""

    def __init__(self, *, by_voice: bool = False) -> None:
        self._by_voice = by_voice

    def write(self, delta: TranscriptionDelta) -> bytes:
        """The events that say ``delta``; none where it has nothing to say."""
        events: list[dict[str, object]] = []
        if delta.text:
            events.append({"type": "transcript.text.delta", "delta": delta.text})
        result = delta.result
        if result is not None:
            if self._by_voice and result.segments is not None:
                events += [_speech_to_wire(at, each) for at, each in enumerate(result.segments)]
            done: dict[str, object] = {"type": "transcript.text.done", "text": result.text}
            events.append(
                done
                | result.provider_fields
                | (_usage_to_wire(result.usage, None) if result.usage is not None else {})
            )
        return b"".join(b"data: %b\n\n" % encode(event) for event in events)

    def error(self, error: LLMError) -> bytes:
        """The last event, where the text broke off."""
        return b"data: %b\n\n" % write_error(error)
