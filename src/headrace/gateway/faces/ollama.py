"""Ollama's face: what its clients ask, at the paths where they ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route as Path
from starlette.types import Scope, Send

from headrace.backends.managed.probe import GATEWAY
from headrace.contracts.errors import LLMCapabilityError
from headrace.gateway.asgi import Handler, answer
from headrace.gateway.faces.face import Face
from headrace.wire import ollama

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_ROOT = "/"
# Models are the operator's to bring and to name; and some services only Ollama's own cloud has.
_NOT_OURS = {
    "/api/pull": ("POST", "to bring models"),
    "/api/push": ("POST", "to publish models"),
    "/api/create": ("POST", "to make models"),
    "/api/copy": ("POST", "to name models"),
    "/api/delete": ("DELETE", "to remove models"),
    "/api/blobs/{digest}": ("POST HEAD", "to take models' files"),
    "/api/me": ("POST", "to sign in at ollama.com"),
    "/api/signout": ("POST", "to sign in at ollama.com"),
    "/api/web_search": ("POST", "to search the web"),
    "/api/web_fetch": ("POST", "to fetch pages"),
    "/api/experimental/web_search": ("POST", "to search the web"),
    "/api/experimental/web_fetch": ("POST", "to fetch pages"),
}


def _paths(gateway: Gateway) -> list[Path]:
    from headrace.gateway.ollama import OllamaEmbeddings, OllamaGeneration
    from headrace.gateway.ollama_models import OllamaDescription, OllamaModels
    from headrace.wire import ollama_generate

    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    chat = OllamaGeneration(codec=ollama, operation="chat", **shared)
    generate = OllamaGeneration(codec=ollama_generate, operation="chat", **shared)
    models = OllamaModels(clock=gateway.clock)
    paths = [
        Path("/api/chat", chat, methods=["POST"]),
        Path("/api/generate", generate, methods=["POST"]),
        Path("/api/embed", OllamaEmbeddings(**shared), methods=["POST"]),
        Path("/api/embeddings", OllamaEmbeddings(old=True, **shared), methods=["POST"]),
        Path("/api/show", OllamaDescription(), methods=["POST"]),
        *(Path(path, each, methods=["GET"]) for path, each in models.handlers().items()),
        *(
            Path(path, Handler(_refuse), methods=methods.split())
            for path, (methods, _) in _NOT_OURS.items()
        ),
    ]
    if not gateway.config.server.page:
        # By this their clients know that there is a server. Where there is a page, it is one too.
        paths.append(Path(_ROOT, Handler(_running), methods=["GET"]))
    return paths


async def _running(scope: Scope, send: Send) -> None:
    headers = [*scope["headrace.headers"], (b"server", GATEWAY.encode())]
    body, kind = b"Ollama is running", b"text/plain; charset=utf-8"
    await answer(send, 200, body, headers, content_type=kind)


async def _refuse(scope: Scope, send: Send) -> None:
    path: str = scope["path"]
    known = path if path in _NOT_OURS else "/api/blobs/{digest}"
    _, what = _NOT_OURS[known]
    raise LLMCapabilityError(
        f"this server does not let callers ask it {what} ({path[:100]}): its operator says which "
        "models there are, and /api/tags lists them",
        status=501,
        code="not_implemented",
    )


def _openapi() -> dict[str, Any]:
    from headrace.gateway.openapi_ollama import paths

    return paths()


def _schemas() -> dict[str, Any]:
    from headrace.gateway.openapi_ollama import schemas

    return schemas()


OLLAMA = Face(
    name="ollama",
    codec=ollama,
    prefixes=("/api/",),
    paths=_paths,
    openapi=_openapi,
    schemas=_schemas,
)
