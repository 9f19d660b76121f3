"""Endpoints at run time in OpenAPI, made from what the configuration can say of a backend."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeAlias

from headrace.contracts.schema import schema_of
from headrace.gateway.backend_config import BackendConfig

_Json: TypeAlias = dict[str, Any]
_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_NUMBER: _Json = {"type": ["number", "null"]}
_TEXT_OR_NULL: _Json = {"type": ["string", "null"]}
_NAME: _Json = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
_SECRET = ("api_key", "api_keys")


def schemas() -> _Json:
    """What is given and told."""
    new = schema_of(BackendConfig)
    change = deepcopy(new)
    del change["required"], change["properties"]["name"]
    change["description"] = "The fields that are to change; null is as if left out."
    for name, schema in change["properties"].items():
        change["properties"][name] = {"anyOf": [schema, {"type": "null"}]}
    told = {name: each for name, each in new["properties"].items() if name not in _SECRET}
    counts = ("requests", "successes", "cancelled", "prompt_tokens", "completion_tokens")
    common: _Json = {
        **dict.fromkeys((*counts, "running", "waiting"), _COUNT),
        "failures": {"type": "object", "additionalProperties": _COUNT},
        "last_error": _TEXT_OR_NULL,
    }
    key = {**common, "key": _COUNT, "rests_s": {"type": "number"}, "refused": {"type": "boolean"}}
    return {
        "NewEndpoint": new,
        "EndpointChange": change,
        "Endpoint": {
            "type": "object",
            "required": ["name", "kind", "source"],
            "properties": {
                "name": _TEXT,
                "kind": {"enum": ["remote", "local"]},
                "source": {"enum": ["configuration", "run time"]},
                "keys": {**_COUNT, "description": "how many keys it was given"},
                **{name: {**each} for name, each in told.items() if name != "name"},
            },
        },
        "EndpointStats": {
            "type": "object",
            "required": ["name", *common],
            "properties": {
                "name": _TEXT,
                **common,
                "retries": _COUNT,
                "price_usd": _TEXT_OR_NULL,
                "priced": _COUNT,
                "latency": {"type": "object", "additionalProperties": _NUMBER},
                "last_error_at": _NUMBER,
                "since": _NUMBER,
                "circuit": {"enum": ["closed", "open", "half_open", None]},
                "keys": {"type": "array", "items": {"type": "object", "properties": key}},
            },
        },
    }


def paths() -> _Json:
    """Making, changing and removing endpoints, and what they did."""
    listed = {
        "type": "object",
        "required": ["endpoints"],
        "properties": {"endpoints": {"type": "array", "items": _ref("Endpoint")}},
    }
    gone = {
        "type": "object",
        "required": ["name", "removed"],
        "properties": {"name": _TEXT, "removed": {"const": True}},
    }
    one = "/endpoints/{name}"
    return {
        "/endpoints": {
            "get": _operation("List the endpoints", {"200": _answer("All of them.", listed)}),
            "post": _operation(
                "Make an endpoint, which is kept until this server ends",
                {
                    "201": _answer("It is there.", _ref("Endpoint")),
                    "409": _answer("There is one of that name.", _ref("Error")),
                },
                body="NewEndpoint",
            ),
        },
        one: {
            "parameters": [_NAME],
            "get": _operation("Tell of an endpoint", {"200": _answer("It.", _ref("Endpoint"))}),
            "patch": _operation(
                "Change an endpoint for the requests that begin from now on",
                {
                    "200": _answer("As it is now.", _ref("Endpoint")),
                    "409": _answer("It cannot be changed.", _ref("Error")),
                },
                body="EndpointChange",
            ),
            "delete": _operation(
                "Remove an endpoint; requests under way finish",
                {
                    "200": _answer("It is gone.", gone),
                    "409": _answer("It cannot be removed.", _ref("Error")),
                },
            ),
        },
        one + "/stats": {
            "parameters": [_NAME],
            "get": _operation(
                "Tell what an endpoint did", {"200": _answer("Its counts.", _ref("EndpointStats"))}
            ),
        },
        one + "/reset_stats": {
            "parameters": [_NAME],
            "post": _operation(
                "Have an endpoint count from nothing",
                {"200": _answer("What it did until now.", _ref("EndpointStats"))},
            ),
        },
    }


def _operation(summary: str, answers: _Json, *, body: str | None = None) -> _Json:
    operation: _Json = {
        "summary": f"{summary}. Needs one of the keys in server.admin_keys.",
        "responses": {
            **answers,
            "400": _answer("The request is wrong; `param` names the field.", _ref("Error")),
            "401": _answer("The admin key is missing or wrong.", _ref("Error")),
            "404": _answer("There is no such endpoint, or none may be changed.", _ref("Error")),
        },
    }
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}
