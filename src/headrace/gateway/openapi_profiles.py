"""Profiles in OpenAPI, made from their contracts."""

from __future__ import annotations

from typing import Any, TypeAlias

from headrace.contracts.profiling import CONTRACTS
from headrace.contracts.schema import schemas as schemas_of

_Json: TypeAlias = dict[str, Any]
_TEXT: _Json = {"type": "string"}
_RUN: _Json = {"name": "run_id", "in": "path", "required": True, "schema": _TEXT}
_NAME: _Json = {"name": "name", "in": "path", "required": True, "schema": _TEXT}


def schemas() -> _Json:
    """Each contract by its name."""
    return schemas_of(CONTRACTS)


def paths() -> _Json:
    """Asking for a profile, following it, ending it, and its files."""
    unknown = {"404": _answer("There is no such profile.", "Error")}
    files = _object_of("artifacts", "ProfileArtifact")
    submit = {
        "summary": "Ask for a profile: it runs in a process of its own, one at a time on each device",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("LLMProfileRequest")}},
        },
        "responses": {
            "202": {
                **_answer("It is taken in.", "LLMProfileAccepted"),
                "headers": {"Location": {"description": "Where it is followed.", "schema": _TEXT}},
            },
            "400": _answer("The request is wrong; `param` names the field.", "Error"),
            **_key(),
            "429": _answer("Too many wait already.", "Error"),
        },
    }
    file = {
        "description": "The file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
    return {
        "/v1/profiles": {
            "post": submit,
            "get": _operation(
                "List the profiles, the newest first", _answer("The list.", "ProfileList")
            ),
        },
        "/v1/profiles/{run_id}": {
            "parameters": [_RUN],
            "get": _operation(
                "Tell how a profile stands, with its summary when it is done",
                _answer("How it stands.", "ProfileStatus"),
                **unknown,
            ),
            "delete": _operation(
                "End a profile; what it has written is kept and marked",
                _answer("How it stands now; it may take a while to end.", "ProfileStatus"),
                **unknown,
            ),
        },
        "/v1/profiles/{run_id}/artifacts": {
            "parameters": [_RUN],
            "get": _operation(
                "List the files that a profile has written",
                {"description": "The files.", "content": {"application/json": {"schema": files}}},
                **unknown,
            ),
        },
        "/v1/profiles/{run_id}/artifacts/{name}": {
            "parameters": [_RUN, _NAME],
            "get": _operation(
                "Fetch a file", file, **{"404": _answer("There is no such file.", "Error")}
            ),
        },
    }


def _key() -> _Json:
    return {"401": _answer("The key is missing or wrong.", "Error")}


def _operation(summary: str, answer: _Json, **refusals: _Json) -> _Json:
    return {"summary": summary, "responses": {"200": answer, **_key(), **refusals}}


def _answer(description: str, schema: str) -> _Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref(schema)}},
    }


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object_of(name: str, schema: str) -> _Json:
    inner = {"type": "array", "items": _ref(schema)}
    return {"type": "object", "required": [name], "properties": {name: inner}}
