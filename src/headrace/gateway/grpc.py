"""KServe's gRPC service in front of the gateway's own application.

Each call becomes the REST call that means the same and goes to the application in memory, so that
keys, routes, limits, errors and records are those of every other. Messages are read by our own tables
(``wire.kserve_grpc``): grpcio is needed for this port alone, and protobuf not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from attrs import frozen
from starlette.types import ASGIApp, Message, Scope

from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.gateway.asgi import id_for
from headrace.gateway.config import Config
from headrace.gateway.guard import Guard
from headrace.wire import kserve, kserve_grpc
from headrace.wire.json import decode_reply

if TYPE_CHECKING:
    import grpc.aio

log = logging.getLogger(__name__)

T = TypeVar("T")

# By what a caller would do about it.
_CODES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Health checks have no key, as over HTTP.
_OPEN = frozenset({"ServerLive", "ServerReady"})
_MOST_AT_ONCE = 64 << 10
# What a caller may say of itself, under the names that it has over HTTP.
_TAKEN_ALONG = ("authorization", "x-api-key", "x-request-id", "x-headrace-task", "traceparent")


@frozen(kw_only=True)
class _Answer:
    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class GrpcServer:
    """The service at a port of its own. ``config`` gives the settings as they are now."""

    def __init__(self, application: ASGIApp, config: Callable[[], Config]) -> None:
        self._application, self._config = application, config
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen, where the configuration has a port for it.

        Raises LLMInvalidRequestError where grpcio is missing or the port taken.
        """
        settings = self._config().server
        if settings.grpc_port is None:
            return
        try:
            import grpc
        except ImportError as missing:
            raise LLMInvalidRequestError(
                "server.grpc_port needs grpcio: pip install 'headrace[grpc]'",
                param="server.grpc_port",
            ) from missing
        server = self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.max_connections,
        )
        calls = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
        }
        # Without serializers a handler gets and gives bytes.
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(call, is_open=name in _OPEN))
            for name, call in calls.items()
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(kserve_grpc.SERVICE, handlers),)
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as refused:
            raise LLMInvalidRequestError(
                f"cannot listen on {host}:{settings.grpc_port} for gRPC: {refused}",
                param="server.grpc_port",
            ) from refused
        await server.start()
        log.info("KServe's gRPC service is at %s:%d", host, port)

    async def aclose(self) -> None:
        """Finish what is in flight, as long as the configuration has it, and close the port."""
        if self._server is not None:
            await self._server.stop(self._config().server.drain_timeout_ms / 1000)

    def _answering(
        self, call: Callable[[bytes, dict[str, str]], Awaitable[bytes]], *, is_open: bool
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """``call`` as grpcio wants it, with our errors as gRPC's."""

        async def answer(data: bytes, context: Any) -> bytes:
            told = {str(key): value for key, value in context.invocation_metadata() or ()}
            given = {name: str(told[name]) for name in _TAKEN_ALONG if name in told}
            try:
                if not is_open:
                    self._admit(given)
                return await call(data, given)
            except LLMError as error:
                import grpc

                name = _CODES.get(error.status, "INTERNAL")
                await context.abort(getattr(grpc.StatusCode, name), error.message)
                raise

        return answer

    def _admit(self, given: Mapping[str, str]) -> None:
        """Keys are checked here too: behind workers, the application leaves that to them."""
        shown = given.get("authorization"), given.get("x-api-key")
        Guard(self._config().server.api_keys).check(
            *(None if each is None else each.encode("latin-1", "replace") for each in shown)
        )

    async def _live(self, data: bytes, given: dict[str, str]) -> bytes:
        return kserve_grpc.write_yes(True)

    async def _ready(self, data: bytes, given: dict[str, str]) -> bytes:
        answer = await self._ask("GET", "/v2/health/ready", given)
        return kserve_grpc.write_yes(answer.status == 200)

    async def _model_ready(self, data: bytes, given: dict[str, str]) -> bytes:
        answer = await self._ask("GET", _path(*kserve_grpc.read_named(data), "/ready"), given)
        if answer.status not in (200, 503):
            raise _error_in(answer)
        return kserve_grpc.write_yes(answer.status == 200)

    async def _server_metadata(self, data: bytes, given: dict[str, str]) -> bytes:
        told = decode_reply(_required(await self._ask("GET", "/v2", given)))
        extensions = tuple(told["extensions"])
        return kserve_grpc.write_server(told["name"], told["version"], extensions)

    async def _model_metadata(self, data: bytes, given: dict[str, str]) -> bytes:
        answer = await self._ask("GET", _path(*kserve_grpc.read_named(data)), given)
        return kserve_grpc.write_metadata(kserve.read_metadata(_required(answer)))

    async def _index(self, data: bytes, given: dict[str, str]) -> bytes:
        answer = await self._ask("POST", "/v2/repository/index", given)
        return kserve_grpc.write_index(kserve.read_models(_required(answer)))

    async def _infer(self, data: bytes, given: dict[str, str]) -> bytes:
        request = await _aside(len(data), kserve_grpc.read_infer, data)
        if request.model is None:
            raise LLMInvalidRequestError("model_name is empty, must name a model", param="model")
        body, length = kserve.write_infer(request, binary=True)
        if length is not None:
            given[kserve.HEADER_LENGTH] = str(length)
        answer = await self._ask(
            "POST", _path(request.model, request.version, "/infer"), given, body
        )
        whole = _required(answer)
        told = answer.headers.get(kserve.HEADER_LENGTH.encode())
        length_told = None if told is None else told.decode()

        def written() -> bytes:
            return kserve_grpc.write_result(kserve.read_result(whole, length_told))

        return await _aside(len(whole), written)

    async def _ask(
        self, method: str, path: str, given: Mapping[str, str], body: bytes = b""
    ) -> _Answer:
        """What the application answers."""
        told, status = False, 0
        headers: dict[bytes, bytes] = {}
        pieces: list[bytes] = []

        async def receive() -> Message:
            nonlocal told
            if told:
                await asyncio.Event().wait()  # who has lost interest cancels
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.update(message["headers"])
            else:
                pieces.append(message.get("body", b""))

        given = {"x-request-id": id_for(None), **given}
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/octet-stream"),
                *(
                    (name.encode(), value.encode("latin-1", "replace"))
                    for name, value in given.items()
                ),
            ],
            "client": None,
            "server": None,
        }
        await self._application(scope, receive, send)
        return _Answer(status=status, headers=headers, body=b"".join(pieces))


async def _aside(size: int, work: Callable[..., T], *given: Any) -> T:
    """What ``work`` gives, of so many bytes: many are read in a thread, as they take seconds and
    everybody else's answers go through this one."""
    if size <= _MOST_AT_ONCE:
        return work(*given)
    return await asyncio.to_thread(work, *given)


def _path(model: str, version: str | None, end: str = "") -> str:
    of_version = "" if version is None else f"/versions/{version}"
    return f"/v2/models/{model}{of_version}{end}"


def _required(answer: _Answer) -> bytes:
    if answer.status != 200:
        raise _error_in(answer)
    return answer.body


def _error_in(answer: _Answer) -> LLMError:
    if not answer.status:
        return LLMUnavailableError("the server ended the call without an answer")
    return kserve.read_error(answer.status, answer.body)
