"""Speech, pictures and judgements in OpenAPI, made from the tables by which requests are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from headrace.wire.openai_audio import SPEECH_ROWS, schema_of_form
from headrace.wire.openai_fields import Check, schema_of
from headrace.wire.openai_services import EDIT_ROWS, GENERATION_ROWS, MODERATION_ROWS

_Json: TypeAlias = dict[str, Any]
_TEXT: _Json = {"type": "string"}
_FILE: _Json = {"type": "string", "contentMediaType": "application/octet-stream"}
_JSON, _FORM = "application/json", "multipart/form-data"
_EVENTS: _Json = {"text/event-stream": {}}
# What subtitles, sound and pictures are is their own media types' to say.
_ANY: _Json = {"*/*": {}}


def schemas() -> _Json:
    """Each object by its name."""
    speech = {name: check for name, (_, check) in SPEECH_ROWS.items()}
    form = dict(schema_of_form())
    form["properties"] = {**form["properties"], "file": _FILE}  # type: ignore[dict-item]
    edit = _object({k: v for k, v in GENERATION_ROWS.items() if k != "style"}, "prompt", "image")
    edit["properties"] |= {"image": _FILE, "mask": _FILE}
    variation = _object({k: GENERATION_ROWS[k] for k in ("model", "n", "size", "user")}, "image")
    variation["properties"]["image"] = _FILE
    return {
        "TranscriptionForm": form,
        "SpeechRequest": _object(speech, "input", "voice"),
        "ImageRequest": _object(GENERATION_ROWS, "prompt"),
        "ImageEditRequest": _object(EDIT_ROWS, "images", "prompt"),
        "ImageEditForm": edit,
        "ImageVariationForm": variation,
        "ModerationRequest": _object(MODERATION_ROWS, "input"),
        "Transcription": {"type": "object", "required": ["text"], "properties": {"text": _TEXT}},
    }


def paths() -> _Json:
    """Each path."""
    heard = {_JSON: {"schema": _ref("Transcription")}, **_EVENTS, **_ANY}
    made = {_JSON: {"schema": {"type": "object"}}, **_EVENTS}
    return {
        "/v1/audio/transcriptions": _post(
            "Turn a recording into text", {_FORM: "TranscriptionForm"}, heard
        ),
        "/v1/audio/translations": _post(
            "Turn a recording into English text", {_FORM: "TranscriptionForm"}, heard
        ),
        "/v1/audio/speech": _post("Read a text aloud", {_JSON: "SpeechRequest"}, _ANY),
        "/v1/images/generations": _post("Make pictures", {_JSON: "ImageRequest"}, made),
        "/v1/images/edits": _post(
            "Make pictures of others", {_JSON: "ImageEditRequest", _FORM: "ImageEditForm"}, made
        ),
        "/v1/images/variations": _post(
            "Make pictures like another", {_FORM: "ImageVariationForm"}, made
        ),
        "/v1/moderations": _post("Judge texts and pictures", {_JSON: "ModerationRequest"}, made),
    }


def _object(rows: Mapping[str, Check], *required: str) -> _Json:
    properties: _Json = {
        name: schema_of(check)
        if name in required
        else {"anyOf": [schema_of(check), {"type": "null"}]}
        for name, check in rows.items()
    }
    return {"type": "object", "required": list(required), "properties": properties}


def _post(summary: str, asked: Mapping[str, str], answers: _Json) -> _Json:
    refusals = {
        "400": "The request is wrong; `param` names the field.",
        "401": "The key is missing or wrong.",
        "404": "There is no such model.",
        "408": "The body did not arrive in time.",
        "413": "The body is too large.",
        "415": "The body is of another kind.",
        "429": "The server is full; Retry-After says when to come back.",
        "501": "No backend of this server has it.",
        "502": "The backend failed.",
        "503": "The backend cannot be reached.",
        "504": "The backend did not answer in time.",
    }
    content = {kind: {"schema": _ref(name)} for kind, name in asked.items()}
    return {
        "post": {
            "summary": f"{summary}, by a backend that does so",
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {"description": "The answer.", "content": answers},
                **{
                    status: {"description": why, "content": {_JSON: {"schema": _ref("Error")}}}
                    for status, why in refusals.items()
                },
            },
        }
    }


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}
