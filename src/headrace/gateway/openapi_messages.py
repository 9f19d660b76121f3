"""The part of the OpenAPI document that tells of Anthropic's messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from headrace.wire import anthropic
from headrace.wire.openai_fields import Check

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_TEXT_OR_NULL: _Json = {"type": ["string", "null"]}
_MARK: _Json = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"const": "ephemeral"}, "ttl": {"enum": ["5m", "1h"]}},
}
_STOP_REASONS = [
    *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),
    "model_context_window_exceeded",
]


def schemas(request: Callable[..., _Json]) -> _Json:
    """Its schemas; ``request`` makes one of a codec's table."""
    blocks: _Json = {"type": "array", "items": _ref("Block")}
    content: _Json = {"anyOf": [_TEXT, blocks]}
    counted: Mapping[str, tuple[str, Check]] = anthropic.COUNT_ROWS
    return {
        "MessagesRequest": request(anthropic.ROWS, "model", "messages", "max_tokens"),
        "MessagesCountRequest": request(counted, "model", "messages"),
        "MessagesTurn": _object(
            ("role", "content"), role={"enum": ["user", "assistant", "system"]}, content=content
        ),
        "MessagesBlock": _object(
            ("type",),
            type={
                "enum": [
                    *("text", "image", "document", "tool_use", "tool_result", "thinking"),
                    "redacted_thinking",
                ]
            },
            text=_TEXT,
            source={"type": "object"},
            id=_TEXT,
            name=_TEXT,
            input={"type": "object"},
            tool_use_id=_TEXT,
            content=content,
            is_error={"type": "boolean"},
            thinking=_TEXT,
            signature=_TEXT,
            data=_TEXT,
            cache_control={"anyOf": [_MARK, {"type": "null"}]},
        ),
        "MessagesTool": _object(
            ("name", "input_schema"),
            name=_TEXT,
            description=_TEXT,
            input_schema={"type": "object"},
            strict={"type": ["boolean", "null"]},
            cache_control={"anyOf": [_MARK, {"type": "null"}]},
        ),
        "MessagesResponse": _object(
            ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
            id=_TEXT,
            type={"const": "message"},
            role={"const": "assistant"},
            model=_TEXT,
            content=blocks,
            stop_reason={"enum": _STOP_REASONS},
            stop_sequence=_TEXT_OR_NULL,
            usage=_object(
                ("input_tokens", "output_tokens"),
                input_tokens=_COUNT,
                output_tokens=_COUNT,
                cache_read_input_tokens=_COUNT,
                cache_creation_input_tokens=_COUNT,
            ),
        ),
        "MessagesCount": _object(("input_tokens",), input_tokens=_COUNT),
        "MessagesModel": _object(
            ("type", "id", "display_name", "created_at", "lifecycle"),
            type={"const": "model"},
            id=_TEXT,
            display_name=_TEXT,
            created_at={"type": "string", "format": "date-time"},
            lifecycle=_TEXT,
            max_input_tokens={"type": ["integer", "null"]},
        ),
        "MessagesModelList": _object(
            ("data", "has_more", "first_id", "last_id"),
            data={"type": "array", "items": _ref("Model")},
            has_more={"type": "boolean"},
            first_id=_TEXT_OR_NULL,
            last_id=_TEXT_OR_NULL,
        ),
        "MessagesError": _object(
            ("type", "error"),
            type={"const": "error"},
            error=_object(("type", "message"), type=_TEXT, message=_TEXT),
            request_id=_TEXT,
        ),
    }


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/Messages{name}"}


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    return {"type": "object", "required": list(required), "properties": properties}
