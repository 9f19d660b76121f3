"""OpenAI's requests for speech, both ways: recordings to text as a form, text to sound as JSON.

https://platform.openai.com/docs/api-reference/audio. The answers are in ``openai_transcripts``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from attrs import frozen

from headrace.contracts.audio import SpeechRequest, TranscriptionRequest
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.json import decode_object, encode
from headrace.wire.multipart import Part, read_parts, write_parts
from headrace.wire.openai_errors import read_error, write_error
from headrace.wire.openai_fields import (
    Check,
    boolean,
    filled_text,
    number,
    one_of,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)

__all__ = [
    "read_error",
    "read_request",
    "read_speech_request",
    "write_error",
    "write_request",
    "write_speech_request",
]

ResponseFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]

MOST_SPOKEN = 4096
"""How many characters one request may have read aloud."""

_WITH_TIMES = ("verbose_json", "srt", "vtt")
_LIST = "[]"
_format = one_of("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
_granularity = one_of("word", "segment")
_temperature = number(0.0, 1.0)
# Fields of which a form may have several, with or without brackets behind their name.
_SEVERAL = frozenset(
    (
        *("timestamp_granularities", "include", "languages", "keywords"),
        *("known_speaker_names", "known_speaker_references"),
    )
)


@frozen(kw_only=True)
class Inbound:
    """A caller's request, and the form in which it wants to be answered."""

    request: TranscriptionRequest
    response_format: ResponseFormat = "json"
    stream: bool = False


def read_request(content_type: str, body: bytes, *, translate: bool = False) -> Inbound:
    """The request in a caller's form, or LLMInvalidRequestError naming the field."""
    audio, fields = _fields(read_parts(content_type, body))
    if audio is None:
        refuse_absence("file", "a recording, as a file with its name")
    if not audio.data:
        refuse("file", "an empty file", "a recording")
    known: dict[str, Any] = {}
    for name, check in (("model", filled_text), ("language", text), ("prompt", text)):
        if name in fields:
            known[name] = check(_one(fields, name), name)
    if "temperature" in fields:
        known["temperature"] = _temperature(_as_number(_one(fields, "temperature")), "temperature")
    granularities = tuple(
        _granularity(each, "timestamp_granularities")
        for each in fields.pop("timestamp_granularities", [])
    )
    response_format: ResponseFormat = "json"
    if "response_format" in fields:
        response_format = _format(_one(fields, "response_format"), "response_format")
    stream = "stream" in fields and boolean(_as_flag(_one(fields, "stream")), "stream")
    if granularities and response_format != "verbose_json":
        refuse(
            "timestamp_granularities",
            list(granularities),
            f"response_format 'verbose_json' beside it, but that is {response_format!r}",
        )
    if stream and response_format not in ("json", "text", "diarized_json"):
        refuse("stream", True, f"no stream for response_format {response_format!r}")
    if response_format in _WITH_TIMES and not granularities:
        granularities = ("segment",)
    options: dict[str, str | Sequence[str]] = {
        name: values if name in _SEVERAL else values[0] for name, values in fields.items()
    }
    if response_format == "diarized_json":
        options["response_format"] = response_format
    return Inbound(
        request=TranscriptionRequest(
            audio=audio.data,
            file_name=audio.file_name or "audio",
            translate=translate,
            granularities=granularities,
            provider_options=options,
            **known,
        ),
        response_format=response_format,
        stream=stream,
    )


def write_request(
    request: TranscriptionRequest,
    *,
    model: str | None = None,
    stream: bool = False,
) -> tuple[str, bytes]:
    """The content type and body of ``request`` for a backend that knows its model as ``model``."""
    fields: list[tuple[str, str]] = []
    for name, value in (
        ("model", model or request.model),
        ("language", request.language),
        ("prompt", request.prompt),
        ("temperature", request.temperature),
    ):
        if value is not None:
            fields.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    if "response_format" not in request.provider_options:
        fields.append(("response_format", "verbose_json" if request.granularities else "json"))
    # One who is asked for segments alone gives them unasked, and some know no such field.
    if request.granularities not in ((), ("segment",)):
        fields += [(f"timestamp_granularities{_LIST}", each) for each in request.granularities]
    if stream:
        fields.append(("stream", "true"))
    for name, option in request.provider_options.items():
        if isinstance(option, str):
            fields.append((name, option))
        else:
            fields += [(name + _LIST, each) for each in option]
    parts = [Part(name, value.encode()) for name, value in fields]
    parts.append(Part("file", request.audio, request.file_name, "application/octet-stream"))
    return write_parts(parts)


def _fields(parts: Sequence[Part]) -> tuple[Part | None, dict[str, list[str]]]:
    """The recording, and what else stands in a form, by names without brackets."""
    audio: Part | None = None
    fields: dict[str, list[str]] = {}
    for part in parts:
        name = part.name.removesuffix(_LIST)
        if name == "file":
            if audio is not None:
                refuse("file", "two files", "one recording")
            if part.file_name is None:
                refuse("file", "a text", "a file with its name")
            audio = part
            continue
        if part.file_name is not None:
            refuse(name[:100], "a file", "a text")
        values = fields.setdefault(name, [])
        if values and name not in _SEVERAL:
            refuse(name[:100], "twice", "it once")
        values.append(part.text)
    return audio, fields


def _one(fields: dict[str, list[str]], name: str) -> str:
    (value,) = fields.pop(name)
    return value


def _as_number(value: str) -> object:
    try:
        return float(value)
    except ValueError:
        return value


def _as_flag(value: str) -> object:
    return {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}.get(
        value, value
    )


# Text to sound


@says({"type": "string", "minLength": 1, "maxLength": MOST_SPOKEN})
def _spoken(value: Any, path: str) -> str:
    if len(filled_text(value, path)) > MOST_SPOKEN:
        refuse(path, value, f"at most {MOST_SPOKEN} characters; divide it into several requests")
    return str(value)


@says(
    {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        ]
    }
)
def _voice(value: Any, path: str) -> str:
    if type(value) is dict:
        return str(filled_text(value.get("id"), f"{path}.id"))
    if type(value) is not str:
        refuse_type(path, value, "a voice's name, or an object with its id")
    return str(filled_text(value, path))


SPEECH_ROWS: dict[str, tuple[str, Check]] = {
    "input": ("text", _spoken),
    "voice": ("voice", _voice),
    "model": ("model", filled_text),
    "response_format": (
        "response_format",
        one_of("mp3", "opus", "aac", "flac", "wav", "pcm"),
    ),
    "speed": ("speed", number(0.25, 4.0)),
    "instructions": ("instructions", text),
}


@frozen(kw_only=True)
class SpeechInbound:
    """A caller's request, and whether the sound is to come in events."""

    request: SpeechRequest
    events: bool = False


def read_speech_request(body: bytes) -> SpeechInbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    wire = decode_object(body)
    known: dict[str, Any] = {}
    options: dict[str, object] = {}
    events = False
    for name, value in wire.items():
        if name == "stream_format":
            events = value is not None and one_of("sse", "audio")(value, name) == "sse"
        elif name in SPEECH_ROWS:
            ours, check = SPEECH_ROWS[name]
            if value is not None:
                known[ours] = check(value, name)
            if ours == "voice" and type(value) is dict:
                options["voice"] = value
        else:
            options[name] = value
    if "text" not in known:
        refuse_absence("input", "the text to be read aloud")
    if "voice" not in known:
        refuse_absence("voice", "a voice's name")
    return SpeechInbound(request=SpeechRequest(provider_options=options, **known), events=events)


def write_speech_request(
    request: SpeechRequest, *, model: str | None = None, events: bool = False
) -> bytes:
    """``request`` as a body for a backend that knows its model as ``model``."""
    if not request.text:
        raise LLMInvalidRequestError("There is no text to be read aloud.", param="input")
    body: dict[str, object] = {"input": request.text, "voice": request.voice}
    for name, value in (
        ("model", model or request.model),
        ("response_format", request.response_format),
        ("speed", request.speed),
        ("instructions", request.instructions),
        ("stream_format", "sse" if events else None),
    ):
        if value is not None:
            body[name] = value
    return encode(body | dict[str, object](request.provider_options))


def schema_of_form() -> Mapping[str, object]:
    """The form's fields as a JSON Schema, for the OpenAPI document."""
    words: dict[str, object] = {"type": "string"}
    return {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "model": words,
            "language": words,
            "prompt": words,
            "temperature": {"type": "number", "minimum": 0, "maximum": 1},
            "response_format": {
                "enum": ["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
            },
            "timestamp_granularities[]": {
                "type": "array",
                "items": {"enum": ["word", "segment"]},
            },
            "stream": {"type": "boolean"},
        },
    }
