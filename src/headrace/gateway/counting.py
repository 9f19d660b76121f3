"""The endpoint that counts a prompt's tokens: read, route, count, write."""

from __future__ import annotations

from types import ModuleType

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend
from headrace.contracts.requests import LLMRequest
from headrace.gateway.asgi import answer, read_body, while_connected
from headrace.gateway.generation import choose, for_backend
from headrace.gateway.routes import Route
from headrace.gateway.standing import standing_of
from headrace.gateway.tasks import headers_of
from headrace.traffic.lane import CountsTokens
from headrace.wire import anthropic
from headrace.wire.inbound import Inbound


@frozen(kw_only=True)
class TokenCount:
    """An ASGI application that counts as the backend would for the same request; it never guesses.

    ``codec`` is the face's wire module and ``format`` the name of its format.
    """

    codec: ModuleType = anthropic
    format: str = "anthropic"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        inbound = self._read(scope, body)
        del body
        route = standing.routes.pick(inbound.request.model)
        scope["headrace.model"] = route.model
        await while_connected(receive, self._answer(inbound, route, scope, send))

    def _read(self, scope: Scope, body: bytes) -> Inbound:
        """The request in ``body``."""
        inbound: Inbound = self.codec.read_count_request(body)
        return inbound

    async def _answer(self, inbound: Inbound, route: Route, scope: Scope, send: Send) -> None:
        named = evolve(inbound.request, model=route.asked(inbound.request.model))
        way = choose(headers_of(scope), route, inbound).ways[0]
        request, _ = for_backend(named, way, self.codec.OWN_FIELDS, self.format)
        tokens = await _count(route.model, way.lane.backend, request)
        await answer(send, 200, self.codec.write_count(tokens), scope["headrace.headers"])


async def _count(model: str, backend: Backend, request: LLMRequest) -> int:
    if isinstance(backend, CountsTokens):
        return await backend.count_tokens(request)
    if isinstance(backend, Remote):
        return await backend.count_prompt(request)
    raise LLMCapabilityError(
        f"the backend of {model!r} does not count tokens; ask another model", param="model"
    )
