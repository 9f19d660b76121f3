"""``/tokenize`` and ``/decode``: of models whose tokenizer is at hand, which are those in the box."""

from __future__ import annotations

from attrs import frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.gateway.asgi import answer, read_body, while_connected
from headrace.gateway.faces.hf_info import kind_of
from headrace.gateway.routes import Route, Routes
from headrace.gateway.standing import standing_of
from headrace.traffic.lane import Tokenizes
from headrace.wire import hf_tokens
from headrace.wire.json import encode


@frozen(kw_only=True)
class Tokens:
    """An ASGI application that tells the tokens of texts; or, with ``decodes``, the texts of tokens."""

    decodes: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        work = (self._decode if self.decodes else self._tokenize)(
            body, standing.routes, scope, send
        )
        await while_connected(receive, work)

    async def _tokenize(self, body: bytes, routes: Routes, scope: Scope, send: Send) -> None:
        asked = hf_tokens.read_tokenize(body)
        route = routes.pick(asked.model)
        scope["headrace.model"] = route.model
        backend, found = _tokenizer(route), []
        for text in asked.texts:
            plain = await backend.tokens_of(text, special=False)
            whole = await backend.tokens_of(text, special=True) if asked.special else plain
            found.append(hf_tokens.placed(text, plain, whole))
        # TGI, which serves models that make text, takes one text alone.
        nested = asked.is_batch or kind_of(route) != "text-generation"
        said = hf_tokens.write_tokens(found, nested=nested)
        await answer(send, 200, said, scope["headrace.headers"])

    async def _decode(self, body: bytes, routes: Routes, scope: Scope, send: Send) -> None:
        asked = hf_tokens.read_decode(body)
        route = routes.pick(asked.model)
        scope["headrace.model"] = route.model
        backend, marks = _tokenizer(route), set()
        if asked.skips:
            marks = {number for number, _ in await backend.tokens_of("", special=True)}
        texts = [
            await backend.text_of([number for number in ids if number not in marks])
            for ids in asked.ids
        ]
        await answer(send, 200, encode(texts), scope["headrace.headers"])


def _tokenizer(route: Route) -> Tokenizes:
    backend: object = route.lane.backend
    if isinstance(backend, Tokenizes):
        return backend
    raise LLMCapabilityError(
        f"the tokenizer of {route.model!r} is not at hand; those of the models in the box are",
        param="model",
        status=501,
    )
