"""/v1/batch/jobs, as Mistral has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone

from attrs import define
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.batches import Batch
from headrace.gateway.asgi import Handler, answer
from headrace.gateway.batches.bodies import LargeBody, read_large
from headrace.gateway.batches.desk import Desk
from headrace.gateway.query import Query
from headrace.gateway.standing import standing_of
from headrace.stores.batches import BatchStore
from headrace.wire import mistral_batches as codec
from headrace.wire.openai_fields import integer, one_of, refuse

_page = integer(0, 2**31 - 1)
_size = integer(1, 1000)
_order = one_of("created", "-created")
_status = one_of(*codec.STATUSES)


@define(eq=False)
class MistralJobs(LargeBody):
    """The application that makes a job, and the handlers of the paths beneath it."""

    _desk: Desk

    def paths(self, base: str) -> list[Path]:
        """Every path, beneath ``base``."""
        one = base + "/{batch_id}"
        return [
            Path(base, self, methods=["POST"]),
            Path(base, Handler(self.list), methods=["GET"]),
            Path(one, Handler(self.one), methods=["GET", "DELETE"]),
            Path(one + "/cancel", Handler(self.cancel), methods=["POST"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST``: make one, of files or of the requests that come along."""
        silence_s = standing_of(scope).config.server.body_timeout_ms / 1000
        most = self._desk.settings.max_file_bytes
        body = await read_large(scope, receive, most=most, silence_s=silence_s)
        asked = await asyncio.to_thread(codec.read_create, body)
        batch = await self._desk.create(scope, "mistral", asked)
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def list(self, scope: Scope, send: Send) -> None:
        """A page of the caller's."""
        query = Query(scope)
        found = _chosen(await self._desk.list(scope, "mistral"), query)
        if query.word("order_by", _order, "-created") == "created":
            found = found[::-1]
        size = query.number("page_size", _size, 100)
        begin = size * query.number("page", _page, 0)
        body = codec.write_batches(found[begin : begin + size], total=len(found))
        await answer(send, 200, body, scope["headrace.headers"])

    async def one(self, scope: Scope, send: Send) -> None:
        """``GET`` and ``DELETE`` of one; with ``inline`` its results come along."""
        batch_id = scope["path_params"]["batch_id"]
        if scope["method"] == "DELETE":
            await self._desk.delete(scope, "mistral", batch_id)
            await answer(send, 200, codec.write_deletion(batch_id), scope["headrace.headers"])
            return
        batch = await self._desk.find(scope, "mistral", batch_id)
        outputs = await self._outputs(batch) if Query(scope).flag("inline") else None
        body = codec.write_batch(batch, outputs)
        await answer(send, 200, body, scope["headrace.headers"])

    async def cancel(self, scope: Scope, send: Send) -> None:
        """Have one end now."""
        batch = await self._desk.cancel(scope, "mistral", scope["path_params"]["batch_id"])
        await answer(send, 200, codec.write_batch(batch), scope["headrace.headers"])

    async def _outputs(self, batch: Batch) -> Sequence[bytes] | None:
        """The lines of a job's files, once it has ended."""
        if not batch.has_ended:
            return None
        names = [name for name in (batch.output_file, batch.error_file) if name is not None]

        def read(store: BatchStore) -> Sequence[bytes]:
            paths = [store.files.path(name) for name in names]
            texts = [path.read_bytes() for path in paths if path.exists()]
            return [line for text in texts for line in text.split(b"\n") if line]

        return await self._desk.home.do(read)


def _chosen(batches: Sequence[Batch], query: Query) -> Sequence[Batch]:
    """Those that the filters leave."""
    for name in ("agent_id", "metadata"):
        if query.first(name) is not None:
            refuse(name, query.first(name), "none: this server does not choose by it")
    model = query.first("model")
    wanted = [_status(each, "status") for each in query.several("status")]
    since = query.first("created_after")
    after = 0.0 if since is None else _instant(since)
    return [
        each
        for each in batches
        if (model is None or each.model == model)
        and (not wanted or codec.batch_to_wire(each)["status"] in wanted)
        and each.created > after
    ]


def _instant(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        refuse("created_after", text, "an instant as in '2026-01-31T12:00:00Z'")
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
