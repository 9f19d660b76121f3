"""The gateway's OpenAPI document, made from the same tables by which requests are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from headrace.gateway import openapi_batches, openapi_chat, openapi_messages, openapi_profiles
from headrace.gateway.faces import FACES
from headrace.wire import openai_chat, openai_completions, openai_embeddings, openai_responses
from headrace.wire.openai_fields import Check, schema_of
from headrace.wire.openai_responses_envelope import envelope

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_TASK: _Json = {
    "name": "x-headrace-task",
    "in": "header",
    "description": "What matters for the choice among backends, as in 'cost; max_cost_usd=0.01; "
    "max_latency_ms=2000; tags=eu fast'; or, in the body, an object task_profile.",
    "schema": _TEXT,
}
# OpenAPI 3.1 has no words for events: some readers take a schema for the whole text's, some for each
# event's.
_EVENTS: _Json = {}


def describe(
    *,
    needs_key: bool,
    version: str,
    is_watched: bool = True,
    is_profiled: bool = False,
    has_batches: bool = True,
) -> _Json:
    """OpenAPI 3.1 of every path of this gateway.

    ``is_watched``: it has snapshots; ``is_profiled``: it makes profiles;
    ``has_batches``: it keeps batches and files.
    """
    document: _Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": version,
            "description": "Language models behind one endpoint, in the forms of OpenAI, Anthropic and Gemini.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }
    if not is_watched:
        del document["paths"]["/snapshot"]
    if is_profiled:
        document["paths"] |= openapi_profiles.paths()
        document["components"]["schemas"] |= openapi_profiles.schemas()
    if has_batches:
        document["paths"] |= openapi_batches.paths()
        document["components"]["schemas"] |= openapi_batches.schemas()
    for face in FACES:
        document["paths"] |= face.openapi()
        document["components"]["schemas"] |= face.schemas()
    if needs_key:
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"key": []}, {"api_key": []}]
        for path in ("/health", "/ready"):
            document["paths"][path]["get"]["security"] = []
    return document


def _paths() -> _Json:
    name: _Json = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    prometheus: _Json = {"description": "Metrics.", "content": {"text/plain": {"schema": _TEXT}}}
    state: _Json = {"type": "object", "required": ["status"], "properties": {"status": _TEXT}}
    return {
        "/v1/chat/completions": _generation("Answer a conversation", "ChatRequest", "ChatResponse"),
        "/v1/completions": _generation(
            "Continue a text", "CompletionRequest", "CompletionResponse"
        ),
        "/v1/embeddings": _generation(
            "Turn texts into vectors", "EmbeddingRequest", "EmbeddingResponse", streams=False
        ),
        **_responses_paths(),
        "/v1/messages": _generation(
            "Answer a conversation, in Anthropic's form",
            "MessagesRequest",
            "MessagesResponse",
            error="MessagesError",
        ),
        "/v1/messages/count_tokens": _generation(
            "Count a conversation's tokens, in Anthropic's form",
            "MessagesCountRequest",
            "MessagesCount",
            streams=False,
            error="MessagesError",
        ),
        "/v1/models": _get(
            "List the models, the default one first; in Anthropic's form for those who send "
            "'anthropic-version'",
            _either("ModelList", "MessagesModelList"),
            401,
        ),
        "/v1/models/{model}": {
            "get": {
                **_get("Describe a model", _either("Model", "MessagesModel"), 401, 404)["get"],
                "parameters": [name],
            }
        },
        "/health": _get("Whether this process is alive", _answer("Alive.", state)),
        "/ready": _get("Whether the engines answer", _answer("Ready.", state), not_ready=state),
        "/metrics": _get("Prometheus metrics", prometheus, 401),
        "/snapshot": _get(
            "How things stand now: what the page shows. /snapshot/stream sends it four times a "
            "second as server-sent events, until the caller leaves",
            _answer("The snapshot.", {"type": "object", "required": ["taken", "uptime_s"]}),
            401,
        ),
        "/openapi.json": _get("This document", _answer("OpenAPI 3.1.", {"type": "object"}), 401),
    }


def _responses_paths() -> _Json:
    """The Responses API: asking, and what is kept of it."""
    one: _Json = {"name": "response_id", "in": "path", "required": True, "schema": _TEXT}

    def said(name: str, schema: _Json) -> _Json:
        return {"name": name, "in": "query", "schema": schema}

    flags = [
        said("stream", {"type": "boolean"}),
        said("starting_after", _COUNT),
        said("include", _array(schema_of(openai_responses.ROWS["include"][1])["items"])),
    ]
    page = [
        said("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        said("order", {"enum": ["asc", "desc"], "default": "desc"}),
        said("after", _TEXT),
    ]
    read = _ok("Response")
    read["content"]["text/event-stream"] = _EVENTS
    deleted = _answer("It is gone.", _object(("id", "deleted"), id=_TEXT, deleted={"const": True}))
    items = _object(
        ("object", "data", "has_more"),
        object={"const": "list"},
        data=_array({"type": "object"}),
        first_id=_or_null(_TEXT),
        last_id=_or_null(_TEXT),
        has_more={"type": "boolean"},
    )
    missing = {
        "400": _answer("A parameter is wrong.", _ref("Error")),
        "401": _answer("The key is missing or wrong.", _ref("Error")),
        "404": _answer("There is no such response, or it is another caller's.", _ref("Error")),
    }

    def kept(summary: str, answer: _Json, *parameters: _Json) -> _Json:
        return {
            "summary": summary,
            "parameters": [one, *parameters],
            "responses": {"200": answer, **missing},
        }

    asking = _generation(
        "Answer a conversation, and keep it to go on from", "ResponsesRequest", "Response"
    )
    asking["post"]["responses"]["200"]["links"] = {
        name: {
            "operationRef": f"#/paths/~1v1~1responses~1{{response_id}}{place}",
            "parameters": {"response_id": "$response.body#/id"},
        }
        for name, place in {
            "read": "/get",
            "forget": "/delete",
            "cancel": "~1cancel/post",
            "list_input_items": "~1input_items/get",
        }.items()
    }
    return {
        "/v1/responses": asking,
        "/v1/responses/{response_id}": {
            "get": kept("Read a response that is kept, whole or as events", read, *flags),
            "delete": kept("Forget a response; ends it where it still runs", deleted),
        },
        "/v1/responses/{response_id}/cancel": {
            "post": kept("End a response that runs in the background", _ok("Response"))
        },
        "/v1/responses/{response_id}/input_items": {
            "get": kept("List what a response was asked with", _answer("A page.", items), *page)
        },
    }


def _generation(
    summary: str, request: str, response: str, *, streams: bool = True, error: str = "Error"
) -> _Json:
    answer = _answer("The answer, whole or as server-sent events.", _ref(response))
    if streams:
        answer["content"]["text/event-stream"] = _EVENTS
    else:
        answer["description"] = "The answer."
    answer["headers"] = {
        "x-request-id": {"schema": _TEXT},
        "x-headrace-route": {
            "description": "Where several backends answer for the model: the route, its policy, "
            "which backend was chosen, and the reason.",
            "schema": _TEXT,
        },
        "x-headrace-dropped": {
            "description": "Fields of the request that the backend had no use for.",
            "schema": _TEXT,
        },
        "x-headrace-hedge": {
            "description": "The first token was late: whether a second request won or lost, or was "
            "not allowed.",
            "schema": {"type": "string", "enum": ["won", "lost", "not_allowed"]},
        },
    }
    body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    refusals = {
        str(status): _answer(why, _ref(error))
        for status, why in {
            400: "The request is wrong; `param` names the field.",
            401: "The key is missing or wrong.",
            404: "There is no such model.",
            408: "The body did not arrive in time.",
            413: "The body is too large.",
            429: "The server is full; Retry-After says when to come back.",
            500: "An unexpected failure; the log has it under the request id.",
            502: "The backend failed.",
            503: "The backend cannot be reached.",
            504: "The backend did not answer in time.",
        }.items()
    }
    return {
        "post": {
            "summary": summary,
            "parameters": [_TASK],
            "requestBody": body,
            "responses": {"200": answer, **refusals},
        }
    }


def _get(summary: str, answer: _Json, *refusals: int, not_ready: _Json | None = None) -> _Json:
    why = {401: "The key is missing or wrong.", 404: "There is no such model."}
    responses = {"200": answer}
    responses |= {str(status): _answer(why[status], _ref("Error")) for status in refusals}
    if not_ready is not None:
        responses["503"] = _answer("Not ready, or draining.", not_ready)
    return {"get": {"summary": summary, "responses": responses}}


def _answer(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ok(schema: str) -> _Json:
    return _answer("The answer.", _ref(schema))


def _either(*schemas: str) -> _Json:
    return _answer("The answer.", {"anyOf": [_ref(schema) for schema in schemas]})


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: tuple[str, ...] = (), **properties: _Json) -> _Json:
    schema: _Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def _array(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _request(rows: Mapping[str, tuple[str, Check]], *required: str) -> _Json:
    """A request's schema out of its table; null stands for absent, further fields are the engine's."""
    properties = {
        name: schema_of(check) if name in required else _or_null(schema_of(check))
        for name, (_, check) in rows.items()
    }
    return _object(required, **properties)


def _schemas() -> _Json:
    usage = _object(
        ("prompt_tokens", "completion_tokens", "total_tokens"),
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object(cached_tokens=_COUNT),
        completion_tokens_details=_object(reasoning_tokens=_COUNT),
    )
    chat = openapi_chat.schemas()
    return {
        **openapi_messages.schemas(_request),
        **chat,
        "ChatRequest": _request(openai_chat.ROWS, "messages"),
        "CompletionRequest": _request(openai_completions.ROWS, "prompt"),
        "EmbeddingRequest": _request(openai_embeddings.ROWS, "input"),
        "ResponsesRequest": _request(openai_responses.ROWS),
        "ResponsesTool": _object(
            ("type", "name"), type={"const": "function"}, **chat["Function"]["properties"]
        ),
        "Response": _object(
            tuple(envelope(response_id="", model="", created=0)),
            id=_TEXT,
            object={"const": "response"},
            created_at=_COUNT,
            status={
                "enum": [
                    *("queued", "in_progress", "completed"),
                    *("incomplete", "failed", "cancelled"),
                ]
            },
            model=_TEXT,
            output=_array({"type": "object"}),
            usage=_or_null(
                _object(
                    ("input_tokens", "output_tokens", "total_tokens"),
                    input_tokens=_COUNT,
                    output_tokens=_COUNT,
                    total_tokens=_COUNT,
                    input_tokens_details=_object(cached_tokens=_COUNT, cache_write_tokens=_COUNT),
                    output_tokens_details=_object(reasoning_tokens=_COUNT),
                )
            ),
        ),
        "Usage": usage,
        "ChatResponse": _response(
            "chat.completion",
            message=_object(
                ("role", "content"),
                role={"const": "assistant"},
                content=_or_null(_TEXT),
                refusal=_or_null(_TEXT),
                reasoning_content=_TEXT,
                tool_calls=_array(_ref("ToolCall")),
            ),
        ),
        "CompletionResponse": _response("text_completion", text=_TEXT),
        "EmbeddingResponse": _object(
            ("object", "data", "model", "usage"),
            object={"const": "list"},
            data=_array(
                _object(
                    ("object", "index", "embedding"),
                    object={"const": "embedding"},
                    index=_COUNT,
                    embedding={"anyOf": [_array({"type": "number"}), _TEXT]},
                )
            ),
            model=_TEXT,
            usage=_object(
                ("prompt_tokens", "total_tokens"), prompt_tokens=_COUNT, total_tokens=_COUNT
            ),
        ),
        "Model": _object(
            ("id", "object", "created", "owned_by"),
            id=_TEXT,
            object={"const": "model"},
            created=_COUNT,
            owned_by=_TEXT,
            max_model_len=_COUNT,
        ),
        "ModelList": _object(
            ("object", "data"), object={"const": "list"}, data=_array(_ref("Model"))
        ),
        "Error": _object(
            ("error",),
            error=_object(
                ("message", "type", "param", "code"),
                message=_TEXT,
                type=_TEXT,
                param=_or_null(_TEXT),
                code=_or_null(_TEXT),
            ),
        ),
    }


def _response(kind: str, **choice: _Json) -> _Json:
    return _object(
        ("id", "object", "created", "model", "choices"),
        id=_TEXT,
        object={"const": kind},
        created=_COUNT,
        model=_TEXT,
        choices=_array(
            _object(
                ("index", "finish_reason", *choice),
                index=_COUNT,
                finish_reason=_TEXT,
                logprobs=_or_null({"type": "object"}),
                **choice,
            )
        ),
        usage=_ref("Usage"),
    )
