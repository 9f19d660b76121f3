"""What a face of the gateway says of itself. Adding one is a module here and its name in ``FACES``."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attrs import frozen
from starlette.routing import Route as Path
from starlette.types import Scope

from headrace.gateway.asgi import header

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway
    from headrace.gateway.standing import Standing


def _no_paths(_: Gateway) -> list[Path]:
    return []


def _nothing() -> dict[str, Any]:
    return {}


@frozen(kw_only=True)
class Face:
    """One way in which callers speak to the gateway.

    ``codec`` has ``write_error`` and ``status_of``, in whose form callers are told what went wrong.
    A request is this face's where its path is one of ``exact``, begins with one of ``prefixes`` or
    ends in one of ``suffixes``.
    What is asked at one of ``open`` is answered without a key: health checks have none.
    The request's id goes back in ``id_headers``. A key may come in one of ``key_headers`` besides
    the bearer's header, or as ``key_query`` in the address. ``paths`` are what it answers at,
    ``openapi`` these same paths and ``schemas`` what they refer to, in OpenAPI's words. Where
    ``admits`` is given it decides who may ask, in the place of the server's keys: it raises an
    LLMError for others.
    """

    name: str
    codec: ModuleType
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    open: frozenset[str] = frozenset()
    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    key_headers: tuple[bytes, ...] = (b"x-api-key",)
    key_query: bytes | None = None
    paths: Callable[[Gateway], list[Path]] = _no_paths
    openapi: Callable[[], dict[str, Any]] = _nothing
    schemas: Callable[[], dict[str, Any]] = _nothing
    admits: Callable[[Standing, Scope], None] | None = None

    def owns(self, path: str) -> bool:
        """Whether what is asked at ``path`` is asked in this face's words."""
        return path in self.exact or path.startswith(self.prefixes) or path.endswith(self.suffixes)

    def key_in(self, scope: Scope) -> bytes | None:
        """The key in one of this face's own places."""
        for name in self.key_headers:
            shown = header(scope, name)
            if shown is not None:
                return shown
        return None if self.key_query is None else _in_query(scope["query_string"], self.key_query)


def _in_query(query: bytes, name: bytes) -> bytes | None:
    from urllib.parse import parse_qsl

    # As text: of bytes, parse_qsl takes none but ASCII, also behind a percent sign.
    pairs = parse_qsl(query.decode("latin-1"), encoding="latin-1")
    wanted = name.decode("latin-1")
    return next((value.encode("latin-1") for key, value in pairs if key == wanted), None)
