"""The part of the OpenAPI document that tells of Gemini's paths."""

from __future__ import annotations

from typing import Any, TypeAlias

from headrace.wire import gemini
from headrace.wire.openai_fields import schema_of

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_MODEL: _Json = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
_KEY: _Json = {
    "name": "key",
    "in": "query",
    "description": "The key, where it is in no header; a header is the better place.",
    "schema": _TEXT,
}
_ALT: _Json = {
    "name": "alt",
    "in": "query",
    "description": "'sse' for server-sent events; a JSON array that grows otherwise.",
    "schema": {"enum": ["json", "sse"], "default": "json"},
}
_REFUSALS = {
    400: "The request is wrong; a field violation names the field.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "The server is full; RetryInfo says when to come back.",
    500: "An unexpected failure; the log has it under the request id.",
    502: "The backend failed.",
    503: "The backend cannot be reached.",
    504: "The backend did not answer in time.",
}


def paths() -> _Json:
    """Its paths; the same methods are at ``/v1/models/{model}:...``."""
    streamed = _post("Answer a conversation in pieces", "Request", "Response", _ALT)
    answer = streamed["post"]["responses"]["200"]
    answer["content"] = {
        "application/json": {"schema": {"type": "array", "items": _ref("Response")}},
        "text/event-stream": {},
    }
    page = [
        {"name": "pageSize", "in": "query", "schema": {**_COUNT, "default": 50}},
        {"name": "pageToken", "in": "query", "schema": _TEXT},
    ]
    found = {
        "generateContent": _post("Answer a conversation", "Request", "Response"),
        "streamGenerateContent": streamed,
        "countTokens": _post("Count a conversation's tokens", "CountRequest", "Count"),
        "embedContent": _post("Turn a text into a vector", "EmbedRequest", "Embedding"),
        "batchEmbedContents": _post(
            "Turn texts into vectors", "BatchEmbedRequest", "BatchEmbedding"
        ),
    }
    return {
        **{
            f"{base}/{{model}}:{method}": each
            for base in ("/v1beta/models", "/v1/models")
            for method, each in found.items()
        },
        "/v1beta/models": {
            "get": {
                "summary": "List the models, in Gemini's form",
                "parameters": [*page, _KEY],
                "responses": _responses("ModelList", 400, 401),
            }
        },
        "/v1beta/models/{model}": {
            "get": {
                "summary": "Describe a model, in Gemini's form",
                "parameters": [_MODEL, _KEY],
                "responses": _responses("Model", 401, 404),
            }
        },
    }


def schemas() -> _Json:
    """Its schemas."""
    content = _ref("Content")
    number = {"type": "number"}
    vector = _object(("values",), values={"type": "array", "items": number})
    return {
        "GeminiRequest": _object(
            ("contents",), **{name: schema_of(row[1]) for name, row in gemini.ROWS.items()}
        ),
        "GeminiContent": _object(
            ("parts",), role={"enum": ["user", "model"]}, parts=_array(_ref("Part"))
        ),
        "GeminiPart": _object(
            (),
            text=_TEXT,
            inlineData=_object(("mimeType", "data"), mimeType=_TEXT, data=_TEXT),
            fileData=_object(("fileUri",), mimeType=_TEXT, fileUri=_TEXT),
            functionCall=_object(("name",), id=_TEXT, name=_TEXT, args={"type": "object"}),
            functionResponse=_object(
                ("name", "response"), id=_TEXT, name=_TEXT, response={"type": "object"}
            ),
            thought={"type": "boolean"},
            thoughtSignature=_TEXT,
        ),
        "GeminiTool": _object(
            ("functionDeclarations",),
            functionDeclarations=_array(
                _object(
                    ("name",),
                    name=_TEXT,
                    description=_TEXT,
                    parameters={"type": "object"},
                    parametersJsonSchema={"type": "object"},
                )
            ),
        ),
        "GeminiResponse": _object(
            ("candidates", "modelVersion", "responseId"),
            candidates=_array(
                _object(
                    ("content", "index"),
                    content=content,
                    index=_COUNT,
                    finishReason=_TEXT,
                    avgLogprobs=number,
                    logprobsResult={"type": "object"},
                )
            ),
            usageMetadata=_object(
                (),
                promptTokenCount=_COUNT,
                candidatesTokenCount=_COUNT,
                totalTokenCount=_COUNT,
                cachedContentTokenCount=_COUNT,
                thoughtsTokenCount=_COUNT,
            ),
            modelVersion=_TEXT,
            responseId=_TEXT,
        ),
        "GeminiCountRequest": _object(
            (), contents=_array(content), generateContentRequest=_ref("Request")
        ),
        "GeminiCount": _object(("totalTokens",), totalTokens=_COUNT),
        "GeminiEmbedRequest": _object(
            ("content",),
            model=_TEXT,
            content=content,
            outputDimensionality={"type": "integer", "minimum": 1},
            taskType=_TEXT,
            title=_TEXT,
        ),
        "GeminiBatchEmbedRequest": _object(("requests",), requests=_array(_ref("EmbedRequest"))),
        "GeminiEmbedding": _object(("embedding",), embedding=vector),
        "GeminiBatchEmbedding": _object(("embeddings",), embeddings=_array(vector)),
        "GeminiModel": _object(
            ("name", "version", "displayName", "supportedGenerationMethods"),
            name=_TEXT,
            version=_TEXT,
            displayName=_TEXT,
            inputTokenLimit=_COUNT,
            outputTokenLimit=_COUNT,
            supportedGenerationMethods=_array(_TEXT),
        ),
        "GeminiModelList": _object(("models",), models=_array(_ref("Model")), nextPageToken=_TEXT),
        "GeminiError": _object(
            ("error",),
            error=_object(
                ("code", "message", "status"),
                code=_COUNT,
                message=_TEXT,
                status=_TEXT,
                details=_array({"type": "object"}),
            ),
        ),
    }


def _post(summary: str, request: str, response: str, *parameters: _Json) -> _Json:
    return {
        "post": {
            "summary": f"{summary}, in Gemini's form",
            "parameters": [_MODEL, *parameters, _KEY],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref(request)}},
            },
            "responses": _responses(response, *_REFUSALS),
        }
    }


def _responses(schema: str, *refusals: int) -> _Json:
    found = {"200": _answer("The answer.", schema)}
    return found | {str(status): _answer(_REFUSALS[status], "Error") for status in refusals}


def _answer(description: str, schema: str) -> _Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref(schema)}},
    }


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/Gemini{name}"}


def _array(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    schema: _Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema
