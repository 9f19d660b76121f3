"""KServe's Open Inference Protocol at ``/v2``, with Triton's binary and generate extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route as Path

from headrace.gateway.asgi import Handler
from headrace.gateway.faces.face import Face
from headrace.wire import kserve, kserve_text
from headrace.wire.openai_fields import schema_of

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_MODEL = "/v2/models/{model:path}"
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"

_TEXT = {"type": "string"}
_TRUE_OR_NOT = {"type": "boolean"}


def _paths(gateway: Gateway) -> list[Path]:
    from headrace.gateway.kserve import (
        EmbeddingByTensors,
        Generate,
        Infer,
        Models,
        TextByTensors,
    )
    from headrace.wire import kserve_generate

    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    text: dict[str, Any] = {
        "codec": kserve_generate,
        "operation": "completion",
        "format": "kserve",
        **shared,
    }
    models = Models(gateway=gateway)
    infer = Infer(texts=TextByTensors(**text), embeddings=EmbeddingByTensors(**shared), **shared)
    whole, streamed = Generate(streams=False, **text), Generate(streams=True, **text)
    # The longer first: a model's name may have slashes.
    of_models = [
        path
        for base in (f"{_MODEL}/versions/{{version}}", _MODEL)
        for path in (
            Path(f"{base}/infer", infer, methods=["POST"]),
            Path(f"{base}/generate", whole, methods=["POST"]),
            Path(f"{base}/generate_stream", streamed, methods=["POST"]),
            Path(f"{base}/ready", Handler(models.model_ready), methods=["GET"]),
        )
    ]
    return [
        Path("/v2", Handler(models.server), methods=["GET"]),
        Path(_LIVE, Handler(models.live), methods=["GET"]),
        Path(_READY, Handler(models.ready), methods=["GET"]),
        Path("/v2/repository/index", Handler(models.index), methods=["POST"]),
        *of_models,
        Path(f"{_MODEL}/versions/{{version}}", Handler(models.model), methods=["GET"]),
        Path(_MODEL, Handler(models.model), methods=["GET"]),
    ]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_WRONG = {
    400: "The request is wrong; the message names the field.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    413: "The body is too large.",
    429: "The server is full; Retry-After says when to come back.",
    502: "The backend failed.",
    503: "The backend cannot be reached.",
    504: "The backend did not answer in time.",
}


def _operation(
    summary: str, answer: dict[str, Any], *wrong: int, model: bool = False, body: str | None = None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": answer,
            **{str(status): _answer(_WRONG[status], _ref("KServeError")) for status in wrong},
        },
    }
    if model:
        told["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": _TEXT}]
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _openapi() -> dict[str, Any]:
    of_model = "/v2/models/{model}"
    health = {"type": "object", "properties": {"live": _TRUE_OR_NOT, "ready": _TRUE_OR_NOT}}
    server = {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {
            "name": _TEXT,
            "version": _TEXT,
            "extensions": {"type": "array", "items": _TEXT},
        },
    }
    ready = {
        "type": "object",
        "required": ["name", "ready"],
        "properties": {"name": _TEXT, "ready": _TRUE_OR_NOT},
    }
    index = {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "version", "state"],
            "properties": {"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT},
        },
    }
    everything = (400, 401, 404, 413, 429, 502, 503, 504)
    streamed = _answer("Events, each with the text that is new.", _ref("KServeText"))
    streamed["content"] = {"text/event-stream": {}}
    asking = {
        f"{of_model}/infer": (
            "Ask a model by tensors: a text model by BYTES text_input, an embedding model by BYTES "
            "text, one of a KServe backend by its own. Tensors may follow the JSON as raw bytes, "
            "whose length before them Inference-Header-Content-Length tells",
            _answer("The outputs.", _ref("KServeInferResponse")),
            "KServeInferRequest",
        ),
        f"{of_model}/generate": (
            "Continue a text, in Triton's form",
            _answer("The answer.", _ref("KServeText")),
            "KServeGenerateRequest",
        ),
        f"{of_model}/generate_stream": (
            "Continue a text piece by piece, in Triton's form",
            streamed,
            "KServeGenerateRequest",
        ),
    }
    live = _operation("Whether this process is alive", _answer("Alive.", health))
    is_ready = _operation("Whether every model is answered for", _answer("Ready.", health))
    is_ready["responses"]["503"] = _answer("Not ready, or draining.", health)
    for operation in (live, is_ready):
        operation["security"] = []
    model_ready = _operation(
        "Whether a model is answered for", _answer("Ready.", ready), 401, 404, model=True
    )
    model_ready["responses"]["503"] = _answer("Not ready.", ready)
    return {
        "/v2": {"get": _operation("What this server is", _answer("The server.", server), 401)},
        _LIVE: {"get": live},
        _READY: {"get": is_ready},
        "/v2/repository/index": {
            "post": _operation("List the models", _answer("The models.", index), 401)
        },
        of_model: {
            "get": _operation(
                "What a model takes and gives; also at .../versions/{version}, as all that follows",
                _answer("The model.", _ref("KServeModel")),
                401,
                404,
                model=True,
            )
        },
        f"{of_model}/ready": {"get": model_ready},
        **{
            path: {"post": _operation(summary, answer, *everything, model=True, body=body)}
            for path, (summary, answer, body) in asking.items()
        },
    }


def _schemas() -> dict[str, Any]:
    parameters = {"type": "object"}
    shape = {"type": "array", "items": {"type": "integer"}}
    info = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {"name": _TEXT, "datatype": _TEXT, "shape": shape},
    }
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            **info["properties"],  # type: ignore[dict-item]
            "datatype": {"type": "string", "enum": list(kserve.DATATYPES)},
            "parameters": parameters,
            "data": {"type": "array"},
        },
    }
    asked = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": _TEXT,
            "parameters": {"type": "object", "properties": {"binary_data": _TRUE_OR_NOT}},
        },
    }
    settings = {
        name: {"anyOf": [schema_of(check), {"type": "null"}]}
        for name, (_, check) in kserve_text.SETTINGS.items()
    }
    text = {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "text_output": _TEXT,
        "finish_reason": _TEXT,
        "num_input_tokens": {"type": "integer", "minimum": 0},
        "num_output_tokens": {"type": "integer", "minimum": 0},
    }
    return {
        "KServeError": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
        "KServeModel": {
            "type": "object",
            "required": ["name", "platform", "inputs", "outputs"],
            "properties": {
                "name": _TEXT,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": {"type": "array", "items": info},
                "outputs": {"type": "array", "items": info},
            },
        },
        "KServeInferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": _TEXT,
                "parameters": parameters,
                "inputs": {"type": "array", "minItems": 1, "items": tensor},
                "outputs": {"type": "array", "items": asked},
            },
        },
        "KServeInferResponse": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "id": _TEXT,
                "model_name": _TEXT,
                "model_version": _TEXT,
                "parameters": parameters,
                "outputs": {"type": "array", "items": tensor},
            },
        },
        "KServeGenerateRequest": {
            "type": "object",
            "required": ["text_input"],
            "properties": {"text_input": _TEXT, "parameters": parameters, **settings},
        },
        "KServeText": {
            "type": "object",
            "required": ["model_name", "text_output"],
            "properties": text,
        },
    }


KSERVE = Face(
    name="kserve",
    codec=kserve,
    exact=frozenset({"/v2"}),
    prefixes=("/v2/",),
    open=frozenset({_LIVE, _READY}),
    paths=_paths,
    openapi=_openapi,
    schemas=_schemas,
)
