"""The Responses face: a generation endpoint that keeps what it was asked and answered.

What stands around generation here: the conversation that a request goes on from, answers in the
background, and the paths under which what is kept is read, listed, ended and deleted.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import aclosing
from typing import Any

from attrs import field, frozen
from starlette.routing import Route as Path
from starlette.types import Scope, Send

from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMRateLimitError
from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.gateway.asgi import Handler, answer
from headrace.gateway.behind import is_behind
from headrace.gateway.config import ResponsesConfig
from headrace.gateway.generation import STREAM_HEADERS, Asked, Generation
from headrace.gateway.owner import owner_of
from headrace.gateway.query import Query
from headrace.gateway.routes import Route
from headrace.stores.responses import ResponseStore, StoredResponse
from headrace.traffic.hedge import Hedging
from headrace.wire import json as wire_json
from headrace.wire import openai_responses as codec
from headrace.wire.inbound import Inbound
from headrace.wire.openai_fields import integer, one_of, refuse
from headrace.wire.openai_responses_items import stored_items
from headrace.wire.openai_responses_settings import include_from_wire
from headrace.wire.openai_responses_stream import replay

log = logging.getLogger("headrace.requests")

_Json = dict[str, Any]
_UNFINISHED = ("queued", "in_progress")
_PLAIN_FAILURE = LLMError(
    "the server failed to answer this request; its log has the details", code="internal_error"
)
_limit = integer(1, 100)
_order = one_of("asc", "desc")
_starting_after = integer(0, 2**31 - 1)


@frozen(kw_only=True)
class Responses(Generation):
    """An ASGI application for ``POST /v1/responses``, and the handlers of the paths beneath it."""

    store: ResponseStore
    settings: ResponsesConfig
    _running: dict[tuple[str, str], asyncio.Task[None]] = field(factory=dict, init=False)

    def paths(self, base: str) -> list[Path]:
        """Every path of this face, beneath ``base``."""
        one = base + "/{response_id}"
        return [
            Path(base, self, methods=["POST"]),
            Path(one, Handler(self.one), methods=["GET", "DELETE"]),
            Path(f"{one}/cancel", Handler(self.cancel), methods=["POST"]),
            Path(f"{one}/input_items", Handler(self.input_items), methods=["GET"]),
        ]

    # Asking

    async def _read(self, scope: Scope, body: bytes) -> codec.ResponsesInbound:
        inbound = await super()._read(scope, body)
        assert isinstance(inbound, codec.ResponsesInbound)
        if inbound.background and inbound.stream:
            refuse("stream", True, "false beside 'background': ask for the response until it ended")
        if inbound.background and not inbound.store:
            refuse("store", False, "true beside 'background': what is not kept cannot be asked for")
        owner = owner_of(scope)
        history: list[_Json] = []
        if inbound.previous_response_id is not None:
            history = await self._history(owner, inbound.previous_response_id)
        found = {name: await self._item(owner, name, history) for name in inbound.references}
        if not history and not found:
            return inbound
        return codec.with_history(inbound, history, found)

    def _hedging(self, inbound: Inbound, route: Route) -> Hedging | None:
        """Nobody waits for the first token of what runs in the background."""
        assert isinstance(inbound, codec.ResponsesInbound)
        return None if inbound.background else super()._hedging(inbound, route)

    async def _body(self, asked: Asked, response: LLMResponse) -> bytes:
        response_id = _new_id()
        body = codec.write_response(
            response,
            response_id=response_id,
            model=asked.route.asked(asked.inbound.request.model),
            created=int(self.clock.wall()),
            **repeated(asked.inbound, asked.route),
            completed_at=int(self.clock.wall()),
        )
        await self._keep(asked, wire_json.decode_reply(body))
        return body

    def _writer(self, asked: Asked, first: LLMDelta | None) -> Any:
        return codec.stream_writer(
            response_id=_new_id(),
            model=asked.route.asked(asked.inbound.request.model),
            created=int(self.clock.wall()),
            **repeated(asked.inbound, asked.route),
        )

    async def _end(self, asked: Asked, writer: Any, error: LLMError | None = None) -> bytes:
        writer.completed_at = int(self.clock.wall())
        last = await super()._end(asked, writer, error)
        await self._keep(asked, writer.response)
        return last

    async def _whole(self, asked: Asked) -> None:
        if not _inbound(asked).background:
            await super()._whole(asked)
            return
        if len(self._running) >= self.settings.max_background:
            await asked.calls.aclose()
            raise LLMRateLimitError(
                f"{len(self._running)} responses run in the background, as many as may; ask again "
                "later, or without 'background'",
                retry_after_s=1.0,
                param="background",
            )
        writer = self._writer(asked, None)
        writer.response = {**writer.response, "status": "queued"}
        await self._keep(asked, writer.response)
        place = owner_of(asked.scope), str(writer.response["id"])
        body = wire_json.encode(writer.response)
        self._running[place] = asyncio.create_task(self._run(asked, writer, place))
        await answer(asked.send, 200, body, asked.answer_headers())

    async def _run(self, asked: Asked, writer: Any, place: tuple[str, str]) -> None:
        """Answer in the background; the response is kept in each state that it comes to."""
        try:
            async with aclosing(asked.calls):
                begun = False
                async for delta in asked.calls:
                    if not begun:
                        begun = True
                        writer.response = {**writer.response, "status": "in_progress"}
                        await self._keep(asked, writer.response)
                    writer.write(delta)
            writer.completed_at = int(self.clock.wall())
            writer.finish()
        except asyncio.CancelledError:
            writer.response = {**writer.response, "status": "cancelled"}
        except LLMError as error:
            writer.error(error)
        except Exception:
            request_id = asked.scope["headrace.request_id"]
            log.exception("unexpected error", extra={"request_id": request_id})
            writer.error(_PLAIN_FAILURE)
        if self._running.pop(place, None) is not None:  # else it was deleted meanwhile
            await self._keep(asked, writer.response)

    # What is kept

    async def one(self, scope: Scope, send: Send) -> None:
        """``GET`` and ``DELETE`` of ``/v1/responses/{id}``."""
        if scope["method"] == "DELETE":
            await self._delete(scope, send)
        else:
            await self._retrieve(scope, send)

    async def cancel(self, scope: Scope, send: Send) -> None:
        """``POST /v1/responses/{id}/cancel``: ends what runs in the background, at once."""
        owner, response_id = owner_of(scope), scope["path_params"]["response_id"]
        kept = wire_json.decode_reply((await self._found(owner, response_id)).body)
        if not kept["background"]:
            raise LLMInvalidRequestError(
                f"Response '{response_id}' cannot be cancelled: it was not asked for with "
                "'background': true. To end a synchronous response, close its connection.",
                code="not_cancellable",
            )
        task = self._running.get((owner, response_id))
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        body = (await self._found(owner, response_id)).body
        await answer(send, 200, body, scope["headrace.headers"])

    async def input_items(self, scope: Scope, send: Send) -> None:
        """``GET /v1/responses/{id}/input_items``, a page of them."""
        response_id = scope["path_params"]["response_id"]
        found = await self._found(owner_of(scope), response_id)
        asked = Query(scope)
        limit = asked.number("limit", _limit, 20)
        items = wire_json.decode_reply(found.input_items)
        if asked.word("order", _order, "desc") == "desc":
            items.reverse()
        after = asked.first("after")
        if after is not None:
            places = [i for i, item in enumerate(items) if item["id"] == after]
            if not places:
                refuse("after", after, "the id of one of the response's input items")
            items = items[places[0] + 1 :]
        page = items[:limit]
        body = wire_json.encode(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(items) > limit,
            }
        )
        await answer(send, 200, body, scope["headrace.headers"])

    async def _retrieve(self, scope: Scope, send: Send) -> None:
        found = await self._found(owner_of(scope), scope["path_params"]["response_id"])
        asked = Query(scope)
        include_from_wire(asked.several("include"), "include")
        if not asked.flag("stream"):
            await answer(send, 200, found.body, scope["headrace.headers"])
            return
        response = wire_json.decode_reply(found.body)
        if response["status"] in _UNFINISHED:
            refuse("stream", True, f"false: the response is still {response['status']!r}")
        after = asked.number("starting_after", _starting_after, -1)
        body = b"".join(replay(response)[after + 1 :])
        headers = [*STREAM_HEADERS[1:], *scope["headrace.headers"]]
        await answer(send, 200, body, headers, content_type=STREAM_HEADERS[0][1])

    async def _delete(self, scope: Scope, send: Send) -> None:
        owner, response_id = owner_of(scope), scope["path_params"]["response_id"]
        task = self._running.pop((owner, response_id), None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if not await self.store.delete(owner, response_id):
            raise _missing(response_id)
        told = {"id": response_id, "object": "response", "deleted": True}
        await answer(send, 200, wire_json.encode(told), scope["headrace.headers"])

    async def _keep(self, asked: Asked, response: _Json) -> None:
        inbound = _inbound(asked)
        # What came in a batch is kept there; here it would take the place of what others go on from.
        if not inbound.store or is_behind(asked.scope):
            return
        response_id = response["id"]
        items = stored_items(inbound.items, response_id.removeprefix("resp_"))
        await self.store.put(
            owner_of(asked.scope),
            StoredResponse(
                response_id=response_id,
                body=wire_json.encode(response),
                input_items=wire_json.encode(items),
                previous_id=inbound.previous_response_id,
                item_ids=tuple(item["id"] for item in (*items, *response["output"])),
            ),
        )

    async def _found(self, owner: str, response_id: str) -> StoredResponse:
        found = await self.store.get(owner, response_id)
        if found is None:
            raise _missing(response_id)
        return found

    async def _history(self, owner: str, previous_id: str) -> list[_Json]:
        """The items of the response of that id and of all that it went on from, first to last."""
        turns: list[list[_Json]] = []
        next_id: str | None = previous_id
        while next_id is not None:
            found = await self.store.get(owner, next_id)
            if found is None:
                raise _lost(previous_id, next_id)
            response = wire_json.decode_reply(found.body)
            if response["status"] in _UNFINISHED:
                refuse("previous_response_id", next_id, "a response that has come to its end")
            turns.append([*wire_json.decode_reply(found.input_items), *response["output"]])
            next_id = found.previous_id
        return [item for turn in reversed(turns) for item in turn]

    async def _item(self, owner: str, item_id: str, history: list[_Json]) -> _Json:
        """The item of that id."""
        for item in history:
            if item.get("id") == item_id:
                return item
        found = await self.store.with_item(owner, item_id)
        if found is not None:
            output = wire_json.decode_reply(found.body)["output"]
            for item in (*wire_json.decode_reply(found.input_items), *output):
                if item["id"] == item_id:
                    kept: _Json = item
                    return kept
        raise LLMInvalidRequestError(
            f"Item with id '{item_id[:100]}' not found.",
            status=404,
            param="input",
            code="item_not_found",
        )


def _inbound(asked: Asked) -> codec.ResponsesInbound:
    assert isinstance(asked.inbound, codec.ResponsesInbound)
    return asked.inbound


def stands_alone(inbound: Inbound) -> bool:
    """Whether nothing that is kept is asked for, and nothing is to be kept."""
    assert isinstance(inbound, codec.ResponsesInbound)
    return not (
        inbound.store
        or inbound.background
        or inbound.previous_response_id is not None
        or inbound.references
    )


def repeated(inbound: Inbound, route: Route) -> _Json:
    """``asked``: what the response repeats of its request, with what the route filled in."""
    assert isinstance(inbound, codec.ResponsesInbound)
    told, defaults = dict(inbound.asked), route.defaults
    if "temperature" not in told and defaults.temperature is not None:
        told["temperature"] = defaults.temperature
        if defaults.top_p is not None:
            told.setdefault("top_p", defaults.top_p)
    return {"asked": told}


def _new_id() -> str:
    return f"resp_{uuid.uuid4().hex}"


def _missing(response_id: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"Response with id '{response_id[:100]}' not found. It may have been deleted, or have made "
        "room for newer ones.",
        status=404,
        param="response_id",
        code="response_not_found",
    )


def _lost(previous_id: str, response_id: str) -> LLMInvalidRequestError:
    one = "" if previous_id == response_id else f" (it goes on from '{response_id[:100]}')"
    return LLMInvalidRequestError(
        f"Previous response with id '{previous_id[:100]}' not found{one}. It may have been deleted, "
        "or have made room for newer ones; send the whole conversation as 'input' instead.",
        param="previous_response_id",
        code="previous_response_not_found",
    )
