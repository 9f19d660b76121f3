"""What is kept of a response, and what a store of them does; a server may be one."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class StoredResponse:
    """A response and the items that it was asked with, both as JSON.

    ``previous_id`` is the response that it went on from. ``item_ids`` are the ids of the input's
    and the output's items, by which a later request may refer to one of them.
    """

    response_id: str
    body: bytes
    input_items: bytes
    previous_id: str | None = None
    item_ids: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        ids = sum(len(each) for each in (self.response_id, *self.item_ids))
        return len(self.body) + len(self.input_items) + ids


class ResponseStore(Protocol):
    """Keeps responses for their owners. ``owner`` is never a key, but what is made of one.

    Nobody sees what belongs to another owner: it is as if it were not there.
    """

    async def put(self, owner: str, response: StoredResponse) -> None:
        """Keep ``response``, in place of the one of that id."""

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """The response of that id, if it is here and no older than it may be."""

    async def with_item(self, owner: str, item_id: str) -> StoredResponse | None:
        """The response that has an item of that id."""

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; whether there was one."""
