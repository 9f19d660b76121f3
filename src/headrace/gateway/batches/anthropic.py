"""/v1/messages/batches, as Anthropic has it."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from attrs import define
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.asgi import Handler, answer
from headrace.gateway.batches.bodies import LargeBody, read_large, send_file
from headrace.gateway.batches.desk import Desk
from headrace.gateway.standing import standing_of
from headrace.stores.batches.shelf import results_file
from headrace.wire import anthropic_batches as codec
from headrace.wire.anthropic_models import on_page, read_page


@define(eq=False)
class AnthropicBatches(LargeBody):
    """The application that makes a batch, and the handlers of the paths beneath it."""

    _desk: Desk

    def paths(self, base: str) -> list[Path]:
        """Every path, beneath ``base``."""
        one = base + "/{batch_id}"
        return [
            Path(base, self, methods=["POST"]),
            Path(base, Handler(self.list), methods=["GET"]),
            Path(one, Handler(self.one), methods=["GET", "DELETE"]),
            Path(one + "/cancel", Handler(self.cancel), methods=["POST"]),
            Path(one + "/results", Handler(self.results), methods=["GET"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST``: make one of the requests that come along."""
        silence_s = standing_of(scope).config.server.body_timeout_ms / 1000
        most = self._desk.settings.max_file_bytes
        body = await read_large(scope, receive, most=most, silence_s=silence_s)
        asked = await asyncio.to_thread(codec.read_create, body)
        del body
        most_items = self._desk.settings.max_requests
        if len(asked.items) > most_items:
            raise LLMInvalidRequestError(
                f"A batch has at most {most_items:,} requests here, this one has "
                f"{len(asked.items):,}; make several.",
                status=413,
                param="requests",
                code="too_many_requests",
            )
        batch = await self._desk.create(scope, "anthropic", asked)
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def list(self, scope: Scope, send: Send) -> None:
        """A page of the caller's, the newest first."""
        page = read_page(parse_qs(scope["query_string"].decode("latin-1")))
        found = await self._desk.list(scope, "anthropic")
        shown, has_more = on_page(found, page, lambda batch: batch.batch_id)
        body = codec.write_batches(shown, has_more=has_more)
        await answer(send, 200, body, scope["headrace.headers"])

    async def one(self, scope: Scope, send: Send) -> None:
        """``GET`` and ``DELETE`` of one."""
        batch_id = scope["path_params"]["batch_id"]
        if scope["method"] == "DELETE":
            await self._desk.delete(scope, "anthropic", batch_id)
            body = codec.write_deletion(batch_id)
        else:
            body = codec.write_batch(await self._desk.find(scope, "anthropic", batch_id))
        await answer(send, 200, body, scope["headrace.headers"])

    async def cancel(self, scope: Scope, send: Send) -> None:
        """Have one end now."""
        batch = await self._desk.cancel(scope, "anthropic", scope["path_params"]["batch_id"])
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def results(self, scope: Scope, send: Send) -> None:
        """What became of each request, a line each."""
        batch = await self._desk.find(scope, "anthropic", scope["path_params"]["batch_id"])
        if not batch.has_ended:
            raise LLMInvalidRequestError(
                f"Batch '{batch.batch_id}' has no results yet: it has not ended.", code="not_ended"
            )
        name = results_file(batch.batch_id)
        path = await self._desk.home.do(lambda store: store.files.path(name))
        await send_file(send, path, scope["headrace.headers"], b"application/x-jsonl")
