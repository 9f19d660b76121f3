"""The part of the OpenAPI document that tells of the turns of a chat, role by role."""

from __future__ import annotations

from typing import Any, TypeAlias

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_FILLED: _Json = {"type": "string", "minLength": 1}
_BASE64: _Json = {"type": "string", "minLength": 1, "contentEncoding": "base64"}
_TEXT_OR_NULL: _Json = {"type": ["string", "null"]}


def schemas() -> _Json:
    """``Message`` and what it is made of."""
    function = _object(
        ("name",),
        name=_FILLED,
        description={"type": ["string", "null"]},
        parameters={"type": ["object", "null"]},
        strict={"type": ["boolean", "null"]},
    )
    called = _object(("name", "arguments"), name=_FILLED, arguments=_TEXT)
    return {
        "Message": {
            "anyOf": [_ref(f"{role}Message") for role in ("System", "User", "Assistant", "Tool")]
        },
        "SystemMessage": _object(
            ("role", "content"),
            role={"enum": ["system", "developer"]},
            content=_content("TextPart"),
            name=_TEXT,
        ),
        "UserMessage": _object(
            ("role", "content"),
            role={"const": "user"},
            content=_content("ContentPart"),
            name=_TEXT,
        ),
        "AssistantMessage": {
            **_object(
                ("role",),
                role={"const": "assistant"},
                content={"anyOf": [*_content("AnswerPart", least=0)["anyOf"], {"type": "null"}]},
                name=_TEXT,
                tool_calls={"type": "array", "items": _ref("ToolCall")},
                refusal=_TEXT_OR_NULL,
                reasoning_content=_TEXT_OR_NULL,
            ),
            "anyOf": [
                {"required": ["content"]},
                {"required": ["tool_calls"], "properties": {"tool_calls": {"minItems": 1}}},
                {"required": ["refusal"], "properties": {"refusal": _TEXT}},
                {"required": ["reasoning_content"], "properties": {"reasoning_content": _TEXT}},
            ],
        },
        "ToolMessage": _object(
            ("role", "content", "tool_call_id"),
            role={"const": "tool"},
            content=_content("ContentPart", least=0),
            tool_call_id=_TEXT,
            name=_TEXT,
        ),
        "ContentPart": {
            "anyOf": [_ref(f"{kind}Part") for kind in ("Text", "Image", "Audio", "File")]
        },
        "AnswerPart": {"anyOf": [_ref("TextPart"), _ref("RefusalPart")]},
        "TextPart": _part("text", text=_TEXT),
        "RefusalPart": _part("refusal", refusal=_TEXT),
        "ImagePart": _part(
            "image_url",
            image_url=_object(
                ("url",),
                url={"type": "string", "pattern": "^(https?://|data:)"},
                detail={"enum": ["auto", "low", "high"]},
            ),
        ),
        "AudioPart": _part(
            "input_audio",
            input_audio=_object(("data", "format"), data=_BASE64, format=_FILLED),
        ),
        "FilePart": _part(
            "file",
            file={
                **_object((), file_id=_FILLED, filename=_TEXT, file_data=_FILLED),
                "anyOf": [{"required": ["file_id"]}, {"required": ["file_data"]}],
            },
        ),
        "Function": function,
        "Tool": _object(
            ("type", "function"), type={"const": "function"}, function=_ref("Function")
        ),
        "ToolCall": _object(
            ("id", "type", "function"), id=_TEXT, type={"const": "function"}, function=called
        ),
    }


def _content(part: str, *, least: int = 1) -> _Json:
    return {"anyOf": [_TEXT, {"type": "array", "minItems": least, "items": _ref(part)}]}


def _part(kind: str, **body: _Json) -> _Json:
    return _object(("type", *body), type={"const": kind}, **body)


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    schema: _Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema
