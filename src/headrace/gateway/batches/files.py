"""/v1/files: what callers bring for their batches, and what their batches have made."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypeAlias

from attrs import define
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.batches import KeptFile
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError
from headrace.gateway.asgi import Handler, answer, header
from headrace.gateway.batches.bodies import FORM_ROOM, LargeBody, check_length, send_file
from headrace.gateway.batches.desk import check_space
from headrace.gateway.batches.home import Home
from headrace.gateway.batches.uploads import Form, receive_form
from headrace.gateway.batches_config import BatchesConfig
from headrace.gateway.owner import owner_of
from headrace.gateway.query import Query
from headrace.gateway.standing import standing_of
from headrace.net.clock import Clock
from headrace.stores.batches import BatchStore
from headrace.wire import openai_files
from headrace.wire.openai_fields import integer, one_of, refuse

_Files: TypeAlias = Sequence[KeptFile]

_limit = integer(1, 10_000)
_page = integer(0, 2**31 - 1)
_order = one_of("asc", "desc")


@define(kw_only=True, eq=False)
class Files(LargeBody):
    """The application that takes a file in, and the handlers of the paths beneath it."""

    home: Home
    settings: BatchesConfig
    clock: Clock

    def paths(self, base: str) -> list[Path]:
        """Every path, beneath ``base``."""
        one = base + "/{file_id}"
        return [
            Path(base, self, methods=["POST"]),
            Path(base, Handler(self.list), methods=["GET"]),
            Path(one, Handler(self.one), methods=["GET", "DELETE"]),
            Path(one + "/content", Handler(self.content), methods=["GET"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST``: keep a file."""
        most, file_id = self.settings.max_file_bytes, f"file-{uuid.uuid4().hex}"
        check_length(scope, most + FORM_ROOM)
        silence_s = standing_of(scope).config.server.body_timeout_ms / 1000
        content_type = (header(scope, b"content-type") or b"").decode("latin-1")
        file = await self.home.do(lambda store: store.files.begin(file_id))
        try:
            with file:
                form = Form(file)
                await receive_form(receive, content_type, form, most=most, silence_s=silence_s)
                told = openai_files.read_form(form.fields)
            now = int(self.clock.wall())
            kept_s = self.settings.keep_ms // 1000 if told.kept_s is None else told.kept_s
            kept = KeptFile(
                file_id=file_id,
                name=form.name or "file",
                purpose=told.purpose,
                size=form.size,
                lines=form.lines,
                created=now,
                expires=now + kept_s,
            )
            owner = owner_of(scope)

            def keep(store: BatchStore) -> None:
                check_space(store, kept.size, self.settings.max_stored_bytes)
                store.files.add(owner, kept)

            await self.home.do(keep)
        except OSError as full:
            await self.home.do(lambda store: store.files.drop_begun(file_id))
            raise LLMUnavailableError(
                f"this server cannot keep the file now: {full}", code="batches_unavailable"
            ) from full
        except BaseException:
            await self.home.do(lambda store: store.files.drop_begun(file_id))
            raise
        await answer(send, 200, openai_files.write_file(kept), scope["headrace.headers"])

    async def list(self, scope: Scope, send: Send) -> None:
        """The caller's files: OpenAI's page behind an id, or Mistral's by its number."""
        query, owner, now = Query(scope), owner_of(scope), self.clock.wall()
        purpose = query.first("purpose")
        order = query.word("order", _order, "desc")
        found = await self.home.do(
            lambda store: store.files.list(
                owner, now, purpose=purpose, order="asc" if order == "asc" else "desc"
            )
        )
        found = _chosen(found, query)
        total = len(found)
        if query.first("page") is not None or query.first("page_size") is not None:
            size = query.number("page_size", _limit, 100)
            begin = size * query.number("page", _page, 0)
        else:
            size, after = query.number("limit", _limit, 10_000), query.first("after")
            ids = [each.file_id for each in found]
            if after is not None and after not in ids:
                refuse("after", after, "the id of one of your files")
            begin = 0 if after is None else ids.index(after) + 1
        body = openai_files.write_files(
            found[begin : begin + size], has_more=total > begin + size, total=total
        )
        await answer(send, 200, body, scope["headrace.headers"])

    async def one(self, scope: Scope, send: Send) -> None:
        """``GET`` and ``DELETE`` of one file."""
        file = await self._found(scope)
        if scope["method"] == "GET":
            await answer(send, 200, openai_files.write_file(file), scope["headrace.headers"])
            return

        def delete(store: BatchStore) -> None:
            users = store.batches.users_of(file.file_id)
            if users:
                raise LLMInvalidRequestError(
                    f"File '{file.file_id}' is read by the batch '{users[0]}', which has not "
                    "ended; cancel that first.",
                    param="file_id",
                    code="file_in_use",
                )
            store.files.delete(file.file_id)

        await self.home.do(delete)
        body = openai_files.write_deletion(file.file_id)
        await answer(send, 200, body, scope["headrace.headers"])

    async def content(self, scope: Scope, send: Send) -> None:
        """What a file holds."""
        file = await self._found(scope)
        path = await self.home.do(lambda store: store.files.path(file.file_id))
        await send_file(send, path, scope["headrace.headers"], b"application/octet-stream")

    async def _found(self, scope: Scope) -> KeptFile:
        owner, file_id = owner_of(scope), scope["path_params"]["file_id"]
        now = self.clock.wall()
        found = await self.home.do(lambda store: store.files.find(owner, file_id, now))
        if found is None:
            raise LLMInvalidRequestError(
                f"No such File object: {file_id[:100]}. It may have been deleted, or be too old.",
                status=404,
                param="id",
                code="file_not_found",
            )
        return found


def _chosen(files: _Files, query: Query) -> _Files:
    """Those that Mistral's filters leave."""
    search = query.first("search")
    samples, sources = query.several("sample_type"), query.several("source")
    wires = [(each, openai_files.file_to_wire(each)) for each in files]
    return [
        each
        for each, wire in wires
        if (not samples or wire["sample_type"] in samples)
        and (not sources or wire["source"] in sources)
        and (search is None or search.lower() in each.name.lower())
    ]
