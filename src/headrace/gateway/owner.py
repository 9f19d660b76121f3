"""Whose a kept thing is: what is made of the caller's key, where keys are asked for."""

from __future__ import annotations

from hashlib import sha256

from starlette.types import Scope

from headrace.gateway.asgi import header
from headrace.gateway.behind import owner_behind
from headrace.gateway.config import ServerConfig
from headrace.gateway.standing import standing_of

_ANYBODY = ""


def owner_of(scope: Scope) -> str:
    """Who asks; the same for everyone where no keys are asked for."""
    behind = owner_behind(scope)
    if behind is not None:
        return behind
    known = standing_of(scope).config.server.api_keys
    if not known:
        return _ANYBODY
    shown = header(scope, b"authorization")
    bearer = None if shown is None else shown.split(None, 1)[-1]
    keys = [key for key in (bearer, header(scope, b"x-api-key")) if key is not None]
    hashes = [sha256(key.strip()).hexdigest() for key in keys or (b"",)]
    # One of the two was let in by; the other may be anything.
    return next((each for each in hashes if f"sha256:{each}" in known), hashes[0])


def may_ask(owner: str, server: ServerConfig) -> bool:
    """Whether ``owner`` is one of the callers that are let in now."""
    if not server.api_keys:
        return owner == _ANYBODY
    return f"sha256:{owner}" in server.api_keys
