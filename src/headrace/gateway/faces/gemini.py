"""Gemini's face: ``/v1beta/models/{model}:generateContent`` and its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route as Path
from starlette.types import ASGIApp

from headrace.gateway.asgi import Handler
from headrace.gateway.faces.face import Face
from headrace.wire import gemini

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_BETA = "/v1beta/models"
METHODS = (
    *("generateContent", "streamGenerateContent", "countTokens"),
    *("embedContent", "batchEmbedContents"),
)
"""What a model can be asked for."""


def _paths(gateway: Gateway) -> list[Path]:
    from headrace.gateway.gemini import (
        FORMAT,
        Count,
        Embed,
        Generate,
        get_model,
        list_models,
        no_method,
    )

    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    asking: dict[str, Any] = {"codec": gemini, "operation": "chat", "format": FORMAT, **shared}
    applications: tuple[ASGIApp, ...] = (
        Generate(**asking),
        Generate(streams=True, **asking),
        Count(codec=gemini, format=FORMAT),
        Embed(**shared),
        Embed(batch=True, **shared),
    )
    # The list at /v1/models is OpenAI's and Anthropic's; what lies behind a model's name is ours.
    return [
        *(
            Path(f"{base}/{{model:path}}:{method}", application, methods=["POST"])
            for base in (_BETA, "/v1/models")
            for method, application in zip(METHODS, applications, strict=True)
        ),
        Path(f"{_BETA}/{{model:path}}", Handler(no_method), methods=["POST"]),
        Path(_BETA, Handler(list_models), methods=["GET"]),
        Path(f"{_BETA}/{{model:path}}", Handler(get_model), methods=["GET"]),
    ]


def _openapi() -> dict[str, Any]:
    from headrace.gateway import openapi_gemini

    return openapi_gemini.paths()


def _schemas() -> dict[str, Any]:
    from headrace.gateway import openapi_gemini

    return openapi_gemini.schemas()


GEMINI = Face(
    name="gemini",
    codec=gemini,
    prefixes=("/v1beta/",),
    suffixes=tuple(f":{method}" for method in METHODS),
    key_headers=(b"x-goog-api-key", b"x-api-key"),
    key_query=b"key",
    paths=_paths,
    openapi=_openapi,
    schemas=_schemas,
)
