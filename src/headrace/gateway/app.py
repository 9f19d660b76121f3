"""The gateway as an ASGI application: its paths, and what holds for all of them.

Around every request: an id, the key check, one log line, and an error answer in the caller's
format whatever goes wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import parse_qs

from attrs import define, field
from starlette.exceptions import HTTPException
from starlette.routing import Route as Path
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.backends.managed.probe import GATEWAY
from headrace.contracts.errors import (
    LLMAuthError,
    LLMCancelledError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMProviderError,
    LLMUnavailableError,
)
from headrace.contracts.profiling import ProfileService
from headrace.gateway.asgi import CODEC, Handler, Headers, answer, header, id_for
from headrace.gateway.audio import Transcriptions
from headrace.gateway.batches import Batches
from headrace.gateway.behind import is_behind
from headrace.gateway.config import Config
from headrace.gateway.counting import TokenCount
from headrace.gateway.embeddings import Embeddings
from headrace.gateway.faces import FACES, Face, face_of, speaks_anthropic
from headrace.gateway.generation import Generation
from headrace.gateway.guard import Guard
from headrace.gateway.logs import log_request
from headrace.gateway.messages import Messages
from headrace.gateway.openapi import describe
from headrace.gateway.overlay import Changes
from headrace.gateway.owner import may_ask
from headrace.gateway.page import PAGE_PATHS, Page
from headrace.gateway.pass_through import Beyond, PassThrough
from headrace.gateway.profiles import Profiles
from headrace.gateway.responses import Responses
from headrace.gateway.routes import Routes
from headrace.gateway.services import service_paths
from headrace.gateway.standing import Standing
from headrace.gateway.watch import SNAPSHOT_PATH, STREAM_PATH, Others, Watch, read_engines
from headrace.net.clock import Clock
from headrace.numbers.history import History
from headrace.numbers.live import Tally
from headrace.numbers.prometheus import CONTENT_TYPE, write_metrics
from headrace.stores.responses import MemoryResponses
from headrace.traffic.call import Traffic
from headrace.wire import (
    anthropic,
    anthropic_models,
    openai_chat,
    openai_completions,
    openai_models,
    openai_responses,
)
from headrace.wire import json as wire_json

log = logging.getLogger("headrace.requests")

# Health checks come from load balancers, which have no key; they learn nothing else there. Nor does
# who opens the page: it is the same for all, and asks for a key before it shows anything.
_OPEN_PATHS = frozenset({"/health", "/ready", *PAGE_PATHS})
_RETRY_ELSEWHERE_S = 1.0
# Where we list models as engines do: whoever looks for an engine should know that we are none.
_NAME = (b"server", GATEWAY.encode())


@define(kw_only=True, eq=False)
class Gateway:
    """What the application's handlers share. ``draining`` is set once a stop was asked for.

    ``standing`` is what the next request is answered by; another takes its place in one step. Where
    several processes serve together, ``in_place_of`` says what answers at a path in a worker, and
    ``others`` are the supervisor's workers. ``changes`` has it stand on other endpoints. ``profiles`` makes
    profiles, where there shall be any.
    """

    standing: Standing
    traffic: Traffic
    tally: Tally
    clock: Clock
    history: History = field(factory=History)
    draining: bool = False
    in_place_of: Callable[[Path], ASGIApp] | None = None
    others: Others | None = None
    changes: Changes | None = None
    profiles: ProfileService | None = None
    batches: Batches = field(init=False)
    started: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.started = self.clock.monotonic()

    @property
    def config(self) -> Config:
        """The settings that the next request finds."""
        return self.standing.config

    @property
    def routes(self) -> Routes:
        """The routes that the next request finds."""
        return self.standing.routes

    @property
    def guard(self) -> Guard:
        """The keys that the next request finds."""
        return self.standing.guard

    def application(self) -> Around:
        """The ASGI application."""
        shared: dict[str, Any] = {"traffic": self.traffic, "clock": self.clock}
        chat = Generation(codec=openai_chat, operation="chat", **shared)
        completions = Generation(codec=openai_completions, operation="completion", **shared)
        messages = Messages(codec=anthropic, operation="chat", format="anthropic", **shared)
        count = TokenCount()
        embeddings = Embeddings(**shared)
        kept = self.config.responses
        store = MemoryResponses(
            self.clock,
            max_count=kept.max_stored,
            max_bytes=kept.max_stored_bytes,
            ttl_s=kept.keep_ms / 1000,
        )
        responses = Responses(
            codec=openai_responses,
            operation="chat",
            format="openai-responses",
            store=store,
            settings=kept,
            **shared,
        )
        around = Around(self)
        self.batches = Batches(
            self.config.batches,
            self.clock,
            around,
            may_run=lambda owner: may_ask(owner, self.config.server),
            stops=lambda: self.draining,
        )
        # Without /v1, for those who come from a server that does not ask for it (llama.cpp's);
        # beneath /openai/v1 for Groq's clients.
        paths = [
            path
            for prefix in ("/v1", "", "/openai/v1")
            for path in (
                Path(f"{prefix}/chat/completions", chat, methods=["POST"]),
                Path(f"{prefix}/completions", completions, methods=["POST"]),
                Path(f"{prefix}/messages", messages, methods=["POST"]),
                Path(f"{prefix}/messages/count_tokens", count, methods=["POST"]),
                Path(f"{prefix}/embeddings", embeddings, methods=["POST"]),
                Path(f"{prefix}/audio/transcriptions", Transcriptions(**shared), methods=["POST"]),
                Path(
                    f"{prefix}/audio/translations",
                    Transcriptions(translate=True, **shared),
                    methods=["POST"],
                ),
                *service_paths(prefix, **shared),
                *responses.paths(f"{prefix}/responses"),
                *self.batches.paths(prefix),
                Path(f"{prefix}/models", Handler(self.models), methods=["GET"]),
                Path(f"{prefix}/models/{{model:path}}", Handler(self.model), methods=["GET"]),
            )
        ]
        paths += [
            Path("/health", Handler(self.health), methods=["GET"]),
            Path("/ready", Handler(self.ready), methods=["GET"]),
            Path("/metrics", Handler(self.metrics), methods=["GET"]),
            Path("/openapi.json", Handler(self.openapi), methods=["GET"]),
            *Profiles(self.profiles).paths(),
        ]
        beyond = PassThrough(**shared)
        paths += beyond.beside_others()
        for face in FACES:
            paths += face.paths(self)
        if self.config.server.page:
            watch = Watch(
                tally=self.tally,
                history=self.history,
                routes=lambda: self.routes,
                clock=self.clock,
                draining=lambda: self.draining,
                others=self.others,
            )
            page = Page()
            paths += [Path(path, page, methods=["GET"]) for path in PAGE_PATHS]
            paths += [
                Path(SNAPSHOT_PATH, Handler(watch.snapshot), methods=["GET"]),
                Path(STREAM_PATH, watch, methods=["GET"]),
            ]
        rest = Path("/{rest:path}", beyond)
        if self.in_place_of is not None:
            rest = Path(rest.path, self.in_place_of(rest))
            paths = [
                Path(path.path, self.in_place_of(path), methods=sorted(path.methods or ()))
                for path in paths
            ]
        # The bare router: Starlette's application would answer errors by itself, in text.
        around.inner = Router(paths, redirect_slashes=False, default=Beyond(rest.app))
        return around

    def running(self) -> int:
        """Requests that run or wait now."""
        lanes = [lane.snapshot() for lane, _ in self.routes.lanes()]
        if self.others is not None:
            lanes += self.others.lanes()
        return sum(lane.running + lane.waiting for lane in lanes)

    async def models(self, scope: Scope, send: Send) -> None:
        """The models, the default one first."""
        if speaks_anthropic(scope):
            page = anthropic_models.read_page(parse_qs(scope["query_string"].decode("latin-1")))
            body = anthropic_models.write_models(self.routes.models(), page)
        else:
            body = openai_models.write_models(self.routes.models())
        await answer(send, 200, body, [*scope["headrace.headers"], _NAME])

    async def model(self, scope: Scope, send: Send) -> None:
        """One model."""
        name = scope["path_params"]["model"]
        route = self.routes.pick(name)
        found = next(info for info in self.routes.models() if info.model_id == route.model)
        codec = anthropic_models if speaks_anthropic(scope) else openai_models
        await answer(send, 200, codec.write_model(found), scope["headrace.headers"])

    async def health(self, scope: Scope, send: Send) -> None:
        """Alive: this process answers."""
        body = wire_json.encode({"status": "ok"})
        await answer(send, 200, body, [*scope["headrace.headers"], _NAME])

    async def ready(self, scope: Scope, send: Send) -> None:
        """Whether every model is answered for now; 503 where one is not, and while draining.

        A model of several backends is while one of them answers.
        """
        if self.draining:
            body = wire_json.encode({"status": "draining"})
            await answer(send, 503, body, scope["headrace.headers"])
            return
        ready, backends = await self.standing_of_backends()
        body = wire_json.encode({"status": "ready" if ready else "not ready", "backends": backends})
        await answer(send, 200 if ready else 503, body, scope["headrace.headers"])

    async def standing_of_backends(self) -> tuple[bool, dict[str, dict[str, object]]]:
        """Whether every model is answered for now, and how each backend stands."""
        backends: dict[str, dict[str, object]] = {}
        for lane, _ in self.routes.lanes():
            status = await lane.backend.status()
            state = {key: value for key, value in (status.details or {}).items() if key == "state"}
            backends[lane.name] = {"ok": status.ok, **state}
        ready = all(
            any(backends[lane.name]["ok"] for lane in lanes) for lanes in self.routes.needed()
        )
        return ready, backends

    async def metrics(self, scope: Scope, send: Send) -> None:
        """Prometheus text."""
        if self.others is not None:
            await self.others.gather()
        engines = await read_engines(self.routes)
        body = write_metrics(self.tally, self.clock.monotonic(), engines)
        headers = scope["headrace.headers"]
        await answer(send, 200, body, headers, content_type=CONTENT_TYPE.encode())

    async def openapi(self, scope: Scope, send: Send) -> None:
        """This application in OpenAPI 3.1."""
        from headrace import __version__

        needs_key = bool(self.config.server.api_keys)
        document = describe(
            needs_key=needs_key,
            version=__version__,
            is_watched=self.config.server.page,
            is_profiled=self.profiles is not None,
            has_batches=self.config.batches.enabled,
        )
        body = wire_json.encode(document)
        await answer(send, 200, body, scope["headrace.headers"])


class Serves(Protocol):
    """What the next request is answered by, and whether there shall be one."""

    @property
    def standing(self) -> Standing: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def draining(self) -> bool: ...


class Around:
    """What holds for every path, around the ``inner`` application that knows them."""

    inner: Router

    def __init__(self, gateway: Serves) -> None:
        self._gateway, self._clock = gateway, gateway.clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        begin = self._clock.monotonic()
        # What went the fast way at first has both already.
        standing = scope.setdefault("headrace.standing", self._gateway.standing)
        request_id = scope.get("headrace.request_id") or id_for(header(scope, b"x-request-id"))
        scope["headrace.request_id"] = request_id
        face = face_of(scope)
        codec = face.codec
        headers: Headers = [(name, request_id.encode()) for name in face.id_headers]
        scope["headrace.headers"] = headers
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._admit(scope, standing, face)
            scope["app"] = self  # tells the router to raise what it refuses
            await self.inner(scope, receive, noting)
        except LLMCancelledError as error:
            status = error.status
        except asyncio.CancelledError:
            if not self._gateway.draining or is_behind(scope):
                raise
            # The time that a stop leaves to what is in flight is over.
            if not status:
                late = _stopping("before it could answer")
                late.request_id = request_id
                await _send_error(noting, late, headers, scope.get(CODEC, codec))
        except HTTPException as refused:
            allow = (refused.headers or {}).get("Allow", "").encode()
            allowed: Headers = [(b"allow", allow)] if allow else []
            refusal = _refusal(scope, refused)
            refusal.request_id = request_id
            await _send_error(noting, refusal, [*headers, *allowed], codec)
        except LLMError as error:
            error.request_id = request_id
            if status:
                raise  # the answer has begun: the server must cut it, not end it cleanly
            await _send_error(noting, for_caller(error), headers, scope.get(CODEC, codec))
        except Exception:
            log.exception("unexpected error", extra={"request_id": request_id})
            if status:
                raise
            await _send_error(noting, _plain_500(request_id), headers, scope.get(CODEC, codec))
        finally:
            # What was handed to another process has its line there.
            if standing.config.logging.requests and not scope.get("headrace.handed"):
                self._log(scope, status or 499, self._clock.monotonic() - begin)

    def _admit(self, scope: Scope, standing: Standing, face: Face) -> None:
        """Raises LLMAuthError for a wrong key and LLMUnavailableError for a request that comes late."""
        is_open = scope["path"] in face.open or (
            scope["path"] in _OPEN_PATHS and scope["method"] in ("GET", "HEAD")
        )
        if face.admits is not None:
            face.admits(standing, scope)
        elif not is_open and not is_behind(scope):
            standing.guard.check(header(scope, b"authorization"), face.key_in(scope))
        is_new = "headrace.earlier" not in scope
        if scope["method"] == "POST" and is_new and self._gateway.draining:
            raise _stopping("and takes no new requests")

    def _log(self, scope: Scope, status: int, took_s: float) -> None:
        model, request_id = scope.get("headrace.model"), scope["headrace.request_id"]
        log_request(scope["method"], scope["path"], status, took_s, request_id, model)


def for_caller(error: LLMError) -> LLMError:
    """What the caller is told of ``error``: a backend that refuses our key is no fault of theirs."""
    if not isinstance(error, LLMAuthError) or error.provider is None:
        return error
    log.error("a backend refuses our key or account: %s", error)
    return LLMProviderError(
        f"the backend ({error.provider}) refused this server's own credentials",
        provider=error.provider,
        request_id=error.request_id,
        code="backend_credentials",
    )


async def _send_error(send: Send, error: LLMError, headers: Headers, codec: ModuleType) -> None:
    extra: Headers = []
    if error.retry_after_s is not None:
        extra.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
        extra.append((b"retry-after-ms", str(round(error.retry_after_s * 1000)).encode()))
    if isinstance(error, LLMAuthError) and error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if error.status == 408:  # nobody can tell where the next request would begin
        extra.append((b"connection", b"close"))
    if error.status == 501:  # it will not be there a moment later either
        extra.append((b"x-should-retry", b"false"))
    # A 500 says that this server failed; where a backend did, the right word is 502.
    failed_there = isinstance(error, LLMProviderError) and error.status == 500
    status = 502 if failed_there else codec.status_of(error)
    await answer(send, status, codec.write_error(error), [*headers, *extra])


def _plain_500(request_id: str) -> LLMError:
    return LLMError(
        "the server failed to answer this request; its log has the details under the request id",
        code="internal_error",
        request_id=request_id,
    )


def _stopping(what: str) -> LLMError:
    return LLMUnavailableError(
        f"this server is being stopped {what}", retry_after_s=_RETRY_ELSEWHERE_S, code="draining"
    )


def _refusal(scope: Scope, refused: HTTPException) -> LLMError:
    """The router's own refusals, as errors of ours."""
    path, method = scope["path"][:200], scope["method"]
    if refused.status_code == 404:
        return LLMModelNotFoundError(
            f"there is nothing at {path!r}; /openapi.json lists what there is", code="unknown_path"
        )
    return LLMInvalidRequestError(
        f"{path!r} does not take {method}",
        status=refused.status_code,
        code="method_not_allowed",
    )
