"""The head of a request that may go the fast way."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

from headrace.gateway.guard import Guard
from headrace.gateway.head import Head
from headrace.gateway.hot.faces import HotFace
from headrace.gateway.standing import Standing


@define(kw_only=True, eq=False)
class HotHead:
    """What was found of ``head`` under ``standing``; it holds for every request with these bytes.

    ``model`` is what the address has of it. ``let_in_by`` is the guard that has seen its key and let it in.
    """

    head: Head
    fields: Mapping[bytes, bytes]
    face: HotFace
    most_body_bytes: int
    standing: Standing
    model: str | None = None
    let_in_by: Guard | None = None
