"""Files and batches in OpenAPI, in the words of the three vendors whose APIs they are."""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

from headrace.contracts.batches import BatchPhase
from headrace.wire import mistral_batches, openai_batches

_Json: TypeAlias = dict[str, Any]
_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_SECONDS: _Json = {"type": "integer", "minimum": 3600, "maximum": 30 * 24 * 3600}
_KEPT: _Json = {
    "type": "object",
    "required": ["anchor", "seconds"],
    "properties": {"anchor": {"const": "created_at"}, "seconds": _SECONDS},
}
_METADATA: _Json = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "additionalProperties": {"type": "string", "maxLength": 512},
}
_CUSTOM_ID: _Json = {"type": "string", "minLength": 1, "maxLength": 512}


def schemas() -> _Json:
    """Each object by its name."""
    openai_create = _object(
        ("input_file_id", "endpoint", "completion_window"),
        input_file_id={"type": "string", "minLength": 1},
        endpoint={"enum": list(openai_batches.ENDPOINTS)},
        completion_window={"const": "24h"},
        metadata=_METADATA,
        output_expires_after={"anyOf": [_KEPT, {"type": "null"}]},
    )
    mistral_create = _object(
        ("endpoint",),
        endpoint={"enum": list(mistral_batches.ENDPOINTS)},
        input_files={"type": ["array", "null"], "items": _TEXT},
        requests={
            "type": ["array", "null"],
            "items": _object(("body",), custom_id=_or_null(_CUSTOM_ID), body={"type": "object"}),
            "maxItems": mistral_batches.MOST_INLINE,
        },
        model=_or_null(_TEXT),
        agent_id={"type": "null"},
        metadata=_METADATA,
        timeout_hours={"type": "integer", "minimum": 1, "maximum": 168},
    )
    messages_create = _object(
        ("requests",),
        requests={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ("custom_id", "params"),
                custom_id={"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                params={"$ref": "#/components/schemas/MessagesRequest"},
            ),
        },
    )
    for each in (openai_create, mistral_create, messages_create):
        each["additionalProperties"] = False
    batch = _object(
        ("id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"),
        id=_TEXT,
        object={"const": "batch"},
        endpoint=_TEXT,
        input_file_id=_TEXT,
        completion_window=_TEXT,
        status={"enum": list(get_args(BatchPhase))},
        created_at=_COUNT,
        output_file_id=_or_null(_TEXT),
        error_file_id=_or_null(_TEXT),
        request_counts=_counts("total", "completed", "failed"),
    )
    message_batch = _object(
        ("id", "type", "processing_status", "request_counts", "created_at", "expires_at"),
        id=_TEXT,
        type={"const": "message_batch"},
        processing_status={"enum": ["in_progress", "canceling", "ended"]},
        request_counts=_counts("processing", "succeeded", "errored", "canceled", "expired"),
        created_at=_TEXT,
        expires_at=_TEXT,
        results_url=_or_null(_TEXT),
    )
    job = _object(
        ("id", "object", "input_files", "endpoint", "errors", "status", "created_at"),
        id=_TEXT,
        object={"const": "batch"},
        input_files={"type": "array", "items": _TEXT},
        endpoint=_TEXT,
        errors={"type": "array", "items": {"type": "object"}},
        status={"enum": list(mistral_batches.STATUSES)},
        created_at=_COUNT,
        output_file=_or_null(_TEXT),
        error_file=_or_null(_TEXT),
        **dict.fromkeys(
            (
                "total_requests",
                "completed_requests",
                "succeeded_requests",
                "failed_requests",
            ),
            _COUNT,
        ),
    )
    file = _object(
        ("id", "object", "bytes", "created_at", "filename", "purpose", "status"),
        id=_TEXT,
        object={"const": "file"},
        bytes=_COUNT,
        created_at=_COUNT,
        expires_at=_or_null(_COUNT),
        filename=_TEXT,
        purpose={"enum": ["batch", "batch_output"]},
        status=_TEXT,
        num_lines=_or_null(_COUNT),
    )
    return {
        "BatchCreate": openai_create,
        "Batch": batch,
        "MessageBatchCreate": messages_create,
        "MessageBatch": message_batch,
        "BatchJobCreate": mistral_create,
        "BatchJob": job,
        "File": file,
    }


def paths() -> _Json:
    """Bringing and fetching files; making, following, ending and forgetting batches."""
    form = {
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"const": "batch"},
            "expires_after[anchor]": {"const": "created_at"},
            "expires_after[seconds]": _SECONDS,
        },
    }
    binary = {"type": "string", "format": "binary"}
    file = {**_said("The file.", {}), "content": {"application/octet-stream": {"schema": binary}}}
    lines = {**_said("A line each.", {}), "content": {"application/x-jsonl": {"schema": binary}}}
    upload = {
        "summary": "Bring a file of requests for a batch",
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        },
        "responses": {"200": _said("It is kept.", _ref("File")), **_refused(400, 401, 413, 503)},
    }
    one_file = _in_path("file_id")
    page = [_query("after", _TEXT), _query("limit", _COUNT)]
    return {
        "/v1/files": {
            "post": upload,
            "get": _operation(
                "List your files",
                _listed("File"),
                *page,
                _query("purpose", _TEXT),
                _query("order", {"enum": ["asc", "desc"]}),
            ),
        },
        "/v1/files/{file_id}": {
            "parameters": [one_file],
            "get": _operation("Tell of a file", _said("The file's data.", _ref("File"))),
            "delete": _operation("Remove a file", _gone()),
        },
        "/v1/files/{file_id}/content": {
            "parameters": [one_file],
            "get": _operation("Fetch what a file holds", file),
        },
        **_batch_paths("/v1/batches", "BatchCreate", "Batch", page),
        **_batch_paths(
            "/v1/messages/batches",
            "MessageBatchCreate",
            "MessageBatch",
            [_query("after_id", _TEXT), _query("before_id", _TEXT), _query("limit", _COUNT)],
            error="MessagesError",
            is_deleted=True,
        ),
        "/v1/messages/batches/{batch_id}/results": {
            "parameters": [_in_path("batch_id")],
            "get": _operation(
                "Fetch what became of each request of a batch", lines, error="MessagesError"
            ),
        },
        **_batch_paths(
            "/v1/batch/jobs",
            "BatchJobCreate",
            "BatchJob",
            [
                _query("page", _COUNT),
                _query("page_size", _COUNT),
                _query("status", {"type": "array", "items": _TEXT}),
            ],
            is_deleted=True,
        ),
    }


def _batch_paths(
    base: str,
    create: str,
    batch: str,
    page: list[_Json],
    *,
    error: str = "Error",
    is_deleted: bool = False,
) -> _Json:
    answer = _said("How it stands.", _ref(batch))
    make = {
        "summary": "Make a batch: its requests are answered while nobody else asks",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(create)}},
        },
        "responses": {"200": answer, **_refused(400, 401, 413, 429, 503, error=error)},
    }
    one: _Json = {
        "parameters": [_in_path("batch_id")],
        "get": _operation("Tell how a batch stands", answer, error=error),
    }
    if is_deleted:
        one["delete"] = _operation("Forget a batch that has ended", _gone(), error=error)
    return {
        base: {
            "post": make,
            "get": _operation("List your batches", _listed(batch), *page, error=error),
        },
        base + "/{batch_id}": one,
        base + "/{batch_id}/cancel": {
            "parameters": [_in_path("batch_id")],
            "post": _operation("Have a batch end now", answer, error=error),
        },
    }


def _operation(summary: str, answer: _Json, *parameters: _Json, error: str = "Error") -> _Json:
    found: _Json = {
        "summary": summary,
        "responses": {"200": answer, **_refused(400, 401, 404, 503, error=error)},
    }
    if parameters:
        found["parameters"] = list(parameters)
    return found


def _refused(*statuses: int, error: str = "Error") -> _Json:
    why = {
        400: "The request is wrong.",
        401: "The key is missing or wrong.",
        404: "There is none of that id, or it is another caller's.",
        413: "It is too large, or too much is kept already.",
        429: "Too many of your batches have not ended.",
        503: "The folder of batches cannot be used now.",
    }
    return {str(status): _said(why[status], _ref(error)) for status in statuses}


def _listed(name: str) -> _Json:
    schema = _object(("data",), data={"type": "array", "items": _ref(name)})
    return _said("A page.", schema)


def _gone() -> _Json:
    return _said("It is gone.", _object(("id",), id=_TEXT))


def _counts(*names: str) -> _Json:
    return _object(names, **dict.fromkeys(names, _COUNT))


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _said(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _in_path(name: str) -> _Json:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _query(name: str, schema: _Json) -> _Json:
    return {"name": name, "in": "query", "schema": schema}
