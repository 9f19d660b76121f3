"""The paths of OpenAI's API that the gateway does not read: handed on, or refused by name.

Only what stands in the table (``wire.openai_paths``) is handed on, under a path written anew from
that table, to a backend that the configuration marks or that the request's model leads to.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from attrs import evolve, frozen
from starlette.exceptions import HTTPException
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.relay import RelayRequest
from headrace.contracts.requests import LLMRequest
from headrace.gateway.asgi import header, read_body, while_connected
from headrace.gateway.relay import Handed, can_relay, hand_on
from headrace.gateway.routes import Way
from headrace.gateway.standing import Standing, standing_of
from headrace.gateway.tasks import ROUTE_HEADER, headers_of, route_header
from headrace.net.clock import Clock
from headrace.traffic.call import Traffic
from headrace.traffic.routing.asking import AsRequest
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_fields import boolean, filled_text, refuse_absence
from headrace.wire.openai_paths import PREFIXES, Known, find

# What of a request's head a provider may need; neither keys nor accounts are among it.
_HANDED_ON = (b"accept", b"content-type", b"openai-beta")
_MOST_HEADER = 1024
_MOST_QUERY = 4096


@frozen(kw_only=True)
class PassThrough:
    """An ASGI application for whatever the table knows and no other handler answers."""

    traffic: Traffic
    clock: Clock

    def beside_others(self) -> list[Path]:
        """Its paths that another handler answers by other methods."""
        entries = (
            ("/chat/completions", "GET"),
            ("/models/{model}", "DELETE"),
            ("/responses/compact", "POST"),
            ("/responses/input_tokens", "POST"),
        )
        return [
            Path(prefix + template, self, methods=[method])
            for prefix in PREFIXES
            for template, method in entries
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing, known = self.clock.monotonic(), standing_of(scope), known_at(scope)
        if known is None:
            raise HTTPException(404)
        if scope["method"] not in known.methods:
            raise HTTPException(405, headers={"Allow": ", ".join(known.methods)})
        if known.group.treatment == "marked":
            way, route = _marked(standing, known)
            body = await read_body(scope, receive, standing.config.server)
            handed = Handed(
                request=_written(scope, known, body, repeats=scope["method"] == "GET"),
                ways=(way,),
                operation="pass_through",
                queued=queued,
                route=route,
                streams=b'"stream"' in body and _asks_for_stream(scope, body),
            )
        elif known.group.treatment == "by_model":
            body = await read_body(scope, receive, standing.config.server)
            handed = _by_model(scope, standing, known, body, queued)
        else:
            raise LLMCapabilityError(
                f"this server does not have {scope['path'][:200]!r}: {known.group.says}",
                status=501,
                code="not_supported",
            )
        await while_connected(receive, hand_on(self.traffic, handed, scope, send))


class Beyond:
    """What is asked where no path of ours fits: ``known`` for what the table has, else a 404."""

    def __init__(self, known: ASGIApp) -> None:
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        if known_at(scope) is None:
            raise HTTPException(404)
        await self._known(scope, receive, send)


def known_at(scope: Scope) -> Known | None:
    """What the table knows of a request's path."""
    path: str = scope["path"]
    for prefix in PREFIXES:
        if path.startswith(f"{prefix}/"):
            return find(scope["method"], path.removeprefix(prefix))
    return None


def _marked(standing: Standing, known: Known) -> tuple[Way, str]:
    """The backend that is marked to have ``known``, and its name; 501 where none is."""
    name = known.group.name
    for placed in standing.placed:
        if name in placed.backend.passes:
            route = placed.route
            return Way(lane=route.lane, format=route.format), placed.backend.name
    raise LLMCapabilityError(
        f"this server hands {known.template} on to no backend; 'passes: [{name}]' in the entry of one "
        "that has it lets it do so",
        status=501,
        code="not_supported",
    )


def _by_model(scope: Scope, standing: Standing, known: Known, body: bytes, queued: float) -> Handed:
    asked = decode_object(body)
    if asked.get("model") is None:
        refuse_absence("model", "the name of one of this server's models")
    model = filled_text(asked["model"], "model")
    route = standing.routes.pick(model)
    scope["headrace.model"] = route.model
    name = route.asked(model)
    chosen = route.choose(
        AsRequest(
            request=LLMRequest(messages=(), model=model),
            model=name,
            prompts=(),
            headers=headers_of(scope),
        )
    )
    able = [way for way in chosen.ways if can_relay(way)]
    if not able:
        raise LLMCapabilityError(
            f"the model {model[:200]!r} is not behind a server that speaks OpenAI's format, in which "
            f"{known.template} is asked; name a model that is",
            param="model",
            status=501,
            code="not_supported",
        )
    chosen = chosen.among(able[:1], "it does not speak OpenAI's format")
    if chosen.decision is not None:
        scope["headrace.headers"].append((ROUTE_HEADER, route_header(chosen.decision)))
    (way,) = chosen.ways

    def write(theirs: str | None) -> tuple[str, bytes]:
        told = body if theirs in (None, model) else encode({**asked, "model": theirs})
        return "application/json", told

    return Handed(
        request=evolve(_written(scope, known, b"", repeats=True), model=name, write=write),
        ways=(way,),
        operation="pass_through",
        queued=queued,
        route=route.model,
        requested_model=model,
        decision=chosen.decision,
    )


def _written(scope: Scope, known: Known, body: bytes, *, repeats: bool) -> RelayRequest:
    """What the backend is asked."""
    headers = []
    for name in _HANDED_ON:
        value = header(scope, name)
        if value is None or (name == b"content-type" and not body):
            continue
        if len(value) > _MOST_HEADER:
            raise LLMInvalidRequestError(
                f"the header {name.decode()} is longer than {_MOST_HEADER} bytes",
                param=name.decode(),
            )
        headers.append((name.decode(), value.decode("latin-1")))
    return RelayRequest(
        method=scope["method"],
        path=known.target + _query(scope["query_string"]),
        headers=tuple(headers),
        body=body,
        repeats=repeats,
    )


def _query(query: bytes) -> str:
    """The query, written anew: nothing in it can end the request's line."""
    if not query:
        return ""
    if len(query) > _MOST_QUERY:
        raise LLMInvalidRequestError(f"the query is longer than {_MOST_QUERY} bytes", status=414)
    return "?" + urlencode(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


def _asks_for_stream(scope: Scope, body: bytes) -> bool:
    content_type = header(scope, b"content-type") or b""
    if not content_type.startswith(b"application/json"):
        return False
    told = decode_object(body).get("stream")
    return told is not None and boolean(told, "stream")
