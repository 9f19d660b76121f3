"""The part of the OpenAPI document that tells of Ollama's paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from headrace.wire import ollama, ollama_embed, ollama_generate
from headrace.wire.openai_fields import Check, schema_of

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_FLAG: _Json = {"type": "boolean"}
_STAMP: _Json = {"type": "string", "format": "date-time"}
_NUMBERS: _Json = {"type": "array", "items": {"type": "number"}}
_NDJSON = "application/x-ndjson"
_WHY = {
    400: "The request is wrong; the message names the field.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "The server is full; Retry-After says when to come back.",
    500: "An unexpected failure; the log has it under the request id.",
    501: "This server has no such service.",
    502: "The backend failed.",
    503: "The backend cannot be reached.",
    504: "The backend did not answer in time.",
}
_ALL = (400, 401, 404, 408, 413, 429, 500, 502, 503, 504)
_REFUSED = {
    "/api/pull": "post",
    "/api/push": "post",
    "/api/create": "post",
    "/api/copy": "post",
    "/api/delete": "delete",
}


def paths() -> _Json:
    """Its paths, those among them that are refused."""
    found: _Json = {
        "/api/chat": _post("Answer a conversation, in Ollama's form", "Chat", streams=True),
        "/api/generate": _post("Answer or continue a prompt", "Generate", streams=True),
        "/api/embed": _post("Turn texts into vectors", "Embed"),
        "/api/embeddings": _post("Turn one text into a vector, in the older form", "OldEmbed"),
        "/api/show": _post("Describe a model", "Show"),
        "/api/tags": _get("List the models", "ModelList"),
        "/api/ps": _get("List the models that are in this machine's memory", "ModelList"),
        "/api/version": _get("Which version of Ollama's API this is", "Version"),
    }
    for path, method in _REFUSED.items():
        summary = "Refused: the operator says which models there are"
        found[path] = {method: {"summary": summary, "responses": _refusals(401, 501)}}
    return found


def schemas() -> _Json:
    """Its schemas."""
    counts = {
        "done_reason": _TEXT,
        "total_duration": _COUNT,
        "load_duration": _COUNT,
        "prompt_eval_count": _COUNT,
        "prompt_eval_duration": _COUNT,
        "eval_count": _COUNT,
        "eval_duration": _COUNT,
        "logprobs": {"type": "array", "items": {"type": "object"}},
    }
    every = {"model": _TEXT, "created_at": _STAMP, "done": _FLAG}
    named = {"name": _TEXT, "model": _TEXT, "digest": _TEXT, "details": {"type": "object"}}
    call = _object(
        (), id=_TEXT, function=_object(("name",), name=_TEXT, arguments={"type": "object"})
    )
    return {
        "OllamaMessage": _object(
            ("role",),
            role={"enum": ["system", "user", "assistant", "tool"]},
            content=_or_null(_TEXT),
            thinking=_or_null(_TEXT),
            images=_or_null({"type": "array", "items": _TEXT}),
            tool_calls=_or_null({"type": "array", "items": call}),
            tool_name=_or_null(_TEXT),
            tool_call_id=_or_null(_TEXT),
        ),
        "OllamaChatRequest": _request(ollama.ROWS, "model"),
        "OllamaChatResponse": _object(
            ("model", "message", "done"),
            **every,
            message={"$ref": "#/components/schemas/OllamaMessage"},
            **counts,
        ),
        "OllamaGenerateRequest": _request(ollama_generate.ROWS, "model"),
        "OllamaGenerateResponse": _object(
            ("model", "response", "done"), **every, response=_TEXT, thinking=_TEXT, **counts
        ),
        "OllamaEmbedRequest": _request(ollama_embed.ROWS, "model", "input"),
        "OllamaEmbedResponse": _object(
            ("model", "embeddings"),
            model=_TEXT,
            embeddings={"type": "array", "items": _NUMBERS},
            total_duration=_COUNT,
            prompt_eval_count=_COUNT,
        ),
        "OllamaOldEmbedRequest": _request(ollama_embed.OLD_ROWS, "model", "prompt"),
        "OllamaOldEmbedResponse": _object(("embedding",), embedding=_NUMBERS),
        "OllamaShowRequest": _object(("model",), model={"type": "string", "minLength": 1}),
        "OllamaShowResponse": _object(
            ("details", "model_info", "capabilities"),
            modified_at=_STAMP,
            details={"type": "object"},
            model_info={"type": "object"},
            capabilities={"type": "array", "items": _TEXT},
            parameters=_TEXT,
            license=_TEXT,
        ),
        "OllamaModelList": _object(
            ("models",),
            models={"type": "array", "items": _object(("name", "model", "digest"), **named)},
        ),
        "OllamaVersion": _object(("version",), version=_TEXT),
        "OllamaError": _object(("error",), error=_TEXT),
    }


def _post(summary: str, name: str, *, streams: bool = False) -> _Json:
    said: _Json = {"application/json": {"schema": _ref(f"{name}Response")}}
    if streams:
        said[_NDJSON] = {}
    dropped = {
        "description": "Fields of the request that the backend had no use for.",
        "schema": _TEXT,
    }
    headers = {"x-request-id": {"schema": _TEXT}, "x-headrace-dropped": dropped}
    good = {"description": "The answer.", "headers": headers, "content": said}
    body = {"required": True, "content": {"application/json": {"schema": _ref(f"{name}Request")}}}
    statuses = (*_ALL, 501) if streams else _ALL
    return {
        "post": {
            "summary": summary,
            "requestBody": body,
            "responses": {"200": good, **_refusals(*statuses)},
        }
    }


def _get(summary: str, name: str) -> _Json:
    said = {"application/json": {"schema": _ref(name)}}
    good = {"description": "The answer.", "content": said}
    return {"get": {"summary": summary, "responses": {"200": good, **_refusals(401)}}}


def _refusals(*statuses: int) -> _Json:
    said = {"application/json": {"schema": _ref("Error")}}
    return {str(each): {"description": _WHY[each], "content": said} for each in statuses}


def _request(rows: Mapping[str, tuple[str, Check]], *required: str) -> _Json:
    """A request's schema out of its table; null stands for absent."""
    return _object(
        required,
        **{
            name: schema_of(check) if name in required else _or_null(schema_of(check))
            for name, (_, check) in rows.items()
        },
    )


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/Ollama{name}"}


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    schema: _Json = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}
