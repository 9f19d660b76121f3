"""Endpoints at run time: who has one of the server's admin keys may make, change and remove them.

A change goes the way of a reload: the next request finds all of it, and those under way none.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.convert import to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.snapshot import EndpointStats
from headrace.gateway.asgi import answer, header, read_body
from headrace.gateway.faces.face import Face
from headrace.gateway.overlay import (
    Change,
    Changes,
    changed,
    created,
    not_found,
    removed,
    shown,
    the_one,
)
from headrace.gateway.remotes import Placed
from headrace.gateway.standing import Standing, standing_of
from headrace.traffic.lane import Lane
from headrace.wire import json as wire_json
from headrace.wire import openai_chat

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

BASE = "/endpoints"


def _admits(standing: Standing, scope: Scope) -> None:
    """Raises LLMInvalidRequestError, status 404, where nobody may change anything, and LLMAuthError
    for a wrong key."""
    if standing.admin is None:
        raise LLMInvalidRequestError(
            "this server's endpoints cannot be changed while it runs; server.admin_keys in its "
            "configuration (HEADRACE_SERVER__ADMIN_KEYS) says who may",
            status=404,
            code="endpoints_disabled",
        )
    standing.admin.check(header(scope, b"authorization"), header(scope, b"x-api-key"))


@frozen
class _Endpoints:
    """The handlers, over ``gateway``."""

    gateway: Gateway

    def paths(self) -> list[Path]:
        """Every path, with what answers there."""
        one = BASE + "/{name}"
        return [
            Path(BASE, _Called({"GET": self.all, "POST": self.create}), methods=["GET", "POST"]),
            Path(
                one,
                _Called({"GET": self.get, "PATCH": self.change, "DELETE": self.remove}),
                methods=["GET", "PATCH", "DELETE"],
            ),
            Path(one + "/stats", _Called({"GET": self.stats}), methods=["GET"]),
            Path(one + "/reset_stats", _Called({"POST": self.reset_stats}), methods=["POST"]),
        ]

    async def all(self, scope: Scope, _: Receive, send: Send) -> None:
        """All of them."""
        found = [self._shown(name) for name in self._names()]
        await _answer(scope, send, 200, {"endpoints": found})

    async def get(self, scope: Scope, _: Receive, send: Send) -> None:
        """What is said of one."""
        await _answer(scope, send, 200, self._shown(scope["path_params"]["name"]))

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A new one."""
        body = await _body(scope, receive)
        await self._have(created(body))
        await _answer(scope, send, 201, self._shown(str(body["name"])))

    async def change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Other values for some of its fields."""
        name, body = scope["path_params"]["name"], await _body(scope, receive)
        self._refuse_what_is_ours(name)
        await self._have(changed(name, body))
        await _answer(scope, send, 200, self._shown(name))

    async def remove(self, scope: Scope, _: Receive, send: Send) -> None:
        """One less."""
        name = scope["path_params"]["name"]
        self._refuse_what_is_ours(name)
        await self._have(removed(name))
        await _answer(scope, send, 200, {"name": name, "removed": True})

    async def stats(self, scope: Scope, _: Receive, send: Send) -> None:
        """What it did, in all processes together."""
        stats = await self._stats(scope["path_params"]["name"])
        await _answer(scope, send, 200, to_plain(stats))

    async def reset_stats(self, scope: Scope, _: Receive, send: Send) -> None:
        """Count from nothing; what it did until now is the answer."""
        name = scope["path_params"]["name"]
        stats = await self._stats(name)
        lane, _placed = self._lane(name)
        lane.reset_stats()
        await _answer(scope, send, 200, to_plain(stats))

    async def _have(self, change: Change) -> None:
        changes: Changes | None = self.gateway.changes
        assert changes is not None
        await changes.change(change)

    async def _stats(self, name: str) -> EndpointStats:
        others = self.gateway.others
        if others is not None:
            await others.gather()
        lane, placed = self._lane(name)
        stats = lane.stats()
        leaving = () if placed is None else placed.leaving
        parts = [(each.running, each.waiting) for each in leaving]
        if others is not None:
            parts += [(each.running, each.waiting) for each in others.lanes() if each.name == name]
        return evolve(
            stats,
            running=stats.running + sum(running for running, _ in parts),
            waiting=stats.waiting + sum(waiting for _, waiting in parts),
        )

    def _names(self) -> list[str]:
        """Of remote backends as they are configured, and of what runs in the box or beside it."""
        standing = self.gateway.standing
        own = [lane.name for lane, _ in standing.routes.lanes()]
        return list(dict.fromkeys([*(each.backend.name for each in standing.placed), *own]))

    def _lane(self, name: str) -> tuple[Lane, Placed | None]:
        standing = self.gateway.standing
        for placed in standing.placed:
            if placed.backend.name == name:
                return placed.lane, placed
        for lane, _ in standing.routes.lanes():
            if lane.name == name:
                return lane, None
        raise not_found(name, self._names())

    def _shown(self, name: str) -> dict[str, Any]:
        _, placed = self._lane(name)
        if placed is None:
            return {"name": name, "kind": "local", "source": "configuration"}
        changes: Changes | None = self.gateway.changes
        assert changes is not None
        source = "run time" if name in changes.overlay.said else "configuration"
        # As it was said: of several processes each stands on its share.
        said = changes.overlay.said.get(name)
        backend = placed.backend if said is None or said.backend is None else said.backend
        if said is None:
            backend = the_one(changes.base, name)
        return {"kind": "remote", "source": source, **shown(backend)}

    def _refuse_what_is_ours(self, name: str) -> None:
        _, placed = self._lane(name)
        if placed is None:
            raise LLMInvalidRequestError(
                f"{name!r} runs in the box or beside it, by the configuration; only endpoints that "
                "are asked across HTTP can be changed at run time",
                status=409,
                param="name",
                code="not_changeable",
            )


_Handler = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


@frozen
class _Called:
    """The ASGI application of one path, which is another one for each method."""

    by_method: Mapping[str, _Handler]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Here too, so that nothing hangs on whose a path was taken for.
        _admits(standing_of(scope), scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self.by_method[method](scope, receive, send)


async def _body(scope: Scope, receive: Receive) -> dict[str, Any]:
    raw = await read_body(scope, receive, standing_of(scope).config.server)
    return wire_json.decode_object(raw)


async def _answer(scope: Scope, send: Send, status: int, value: object) -> None:
    headers = [*scope["headrace.headers"], (b"cache-control", b"no-store")]
    await answer(send, status, wire_json.encode(value), headers)


def _openapi() -> dict[str, Any]:
    from headrace.gateway.openapi_endpoints import paths

    return paths()


def _schemas() -> dict[str, Any]:
    from headrace.gateway.openapi_endpoints import schemas

    return schemas()


FACE = Face(
    name="endpoints",
    codec=openai_chat,
    exact=frozenset({BASE}),
    prefixes=(BASE + "/",),
    paths=lambda gateway: _Endpoints(gateway).paths(),
    openapi=_openapi,
    schemas=_schemas,
    admits=_admits,
)
