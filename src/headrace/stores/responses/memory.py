"""Responses in this process's memory: bounded in number, bytes and age."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from attrs import frozen

from headrace.net.clock import Clock
from headrace.stores.responses.protocol import StoredResponse

_Place: TypeAlias = tuple[str, str]


@frozen
class _Kept:
    response: StoredResponse
    used: float


class MemoryResponses:
    """Keeps the responses that were used last, and none for longer than ``ttl_s`` unused.

    What is larger than ``max_bytes`` alone is not kept at all. Looking at a response counts as use.
    """

    def __init__(self, clock: Clock, *, max_count: int, max_bytes: int, ttl_s: float) -> None:
        self._clock = clock
        self._max_count, self._max_bytes, self._ttl_s = max_count, max_bytes, ttl_s
        self._kept: OrderedDict[_Place, _Kept] = OrderedDict()
        self._items: dict[_Place, str] = {}
        self._bytes = 0

    def __len__(self) -> int:
        self._forget_old()
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that are taken now."""
        return self._bytes

    async def put(self, owner: str, response: StoredResponse) -> None:
        """Keep ``response``, in place of the one of that id; others go where there is no room."""
        place = (owner, response.response_id)
        self._drop(place)
        if response.size > self._max_bytes or not self._max_count:
            return
        self._kept[place] = _Kept(response, self._clock.monotonic())
        self._bytes += response.size
        for item_id in response.item_ids:
            self._items[owner, item_id] = response.response_id
        self._forget_old()
        while len(self._kept) > self._max_count or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """The response of that id, if it is here and no older than it may be."""
        self._forget_old()
        place = (owner, response_id)
        kept = self._kept.get(place)
        if kept is None:
            return None
        self._kept[place] = _Kept(kept.response, self._clock.monotonic())
        self._kept.move_to_end(place)
        return kept.response

    async def with_item(self, owner: str, item_id: str) -> StoredResponse | None:
        """The response that has an item of that id."""
        response_id = self._items.get((owner, item_id))
        return None if response_id is None else await self.get(owner, response_id)

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; whether there was one."""
        self._forget_old()
        return self._drop((owner, response_id))

    def _forget_old(self) -> None:
        """The first is the one that was used longest ago, so looking stops at the first young one."""
        oldest = self._clock.monotonic() - self._ttl_s
        while self._kept:
            place, kept = next(iter(self._kept.items()))
            if kept.used > oldest:
                return
            self._drop(place)

    def _drop(self, place: _Place) -> bool:
        kept = self._kept.pop(place, None)
        if kept is None:
            return False
        self._bytes -= kept.response.size
        owner, response_id = place
        for item_id in kept.response.item_ids:
            if self._items.get((owner, item_id)) == response_id:
                del self._items[owner, item_id]
        return True
