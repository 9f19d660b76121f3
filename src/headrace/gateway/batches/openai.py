"""/v1/batches, as OpenAI has it."""

from __future__ import annotations

from attrs import define
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.gateway.asgi import Handler, answer, read_body
from headrace.gateway.batches.desk import Desk
from headrace.gateway.query import Query
from headrace.gateway.standing import standing_of
from headrace.wire import openai_batches as codec
from headrace.wire.openai_fields import integer, refuse

_limit = integer(1, 100)


@define(eq=False)
class OpenAIBatches:
    """The application that makes a batch, and the handlers of the paths beneath it."""

    _desk: Desk

    def paths(self, base: str) -> list[Path]:
        """Every path, beneath ``base``."""
        one = base + "/{batch_id}"
        return [
            Path(base, self, methods=["POST"]),
            Path(base, Handler(self.list), methods=["GET"]),
            Path(one, Handler(self.one), methods=["GET"]),
            Path(one + "/cancel", Handler(self.cancel), methods=["POST"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST``: make one."""
        body = await read_body(scope, receive, standing_of(scope).config.server)
        batch = await self._desk.create(scope, "openai", codec.read_create(body))
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def list(self, scope: Scope, send: Send) -> None:
        """A page of the caller's, the newest first."""
        query = Query(scope)
        limit, after = query.number("limit", _limit, 20), query.first("after")
        found = await self._desk.list(scope, "openai")
        if after is not None:
            ids = [each.batch_id for each in found]
            if after not in ids:
                refuse("after", after, "the id of one of your batches")
            found = found[ids.index(after) + 1 :]
        body = codec.write_batches(found[:limit], has_more=len(found) > limit)
        await answer(send, 200, body, scope["headrace.headers"])

    async def one(self, scope: Scope, send: Send) -> None:
        """How one stands."""
        batch = await self._desk.find(scope, "openai", scope["path_params"]["batch_id"])
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def cancel(self, scope: Scope, send: Send) -> None:
        """Have one end now."""
        batch = await self._desk.cancel(scope, "openai", scope["path_params"]["batch_id"])
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])
