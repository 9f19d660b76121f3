"""What is handed on as it stands: a request that we do not read, and an answer that goes by."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen


@frozen(kw_only=True)
class RelayRequest:
    """A request for a path of a provider's API.

    Its ``body`` is written already, or ``write`` gives content type and body once it is known by
    which name the provider knows the ``model``.
    ``path`` begins where the API's own paths begin (behind ``/v1``) and may have a query.
    ``headers`` are the few that go along, without any key. ``repeats``: it may be made again where
    it has brought nothing yet, for it leaves nothing behind. With ``of_model`` the path is one that
    some providers have beneath their model's name.
    """

    method: str = "POST"
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    write: Callable[[str | None], tuple[str, bytes]] | None = field(default=None, repr=False)
    model: str | None = None
    repeats: bool = False
    of_model: bool = False
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class RelayHead:
    """How an answer begins: its status, and the headers that its caller is to see."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
