"""What a child has sent for one request and nobody has read yet."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from headrace.contracts.errors import LLMError

_T = TypeVar("_T")


class Inbox(Generic[_T]):
    """Filled by the connection, emptied by the request; an error comes after what came before it."""

    __slots__ = ("_error", "_items", "_waiter")

    def __init__(self) -> None:
        self._items: list[_T] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: LLMError | None = None

    def put(self, item: _T) -> None:
        """Something came."""
        self._items.append(item)
        self._wake()

    def fail(self, error: LLMError) -> None:
        """Nothing more comes, for that reason."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> list[_T]:
        """All that has come; waits for something."""
        if not self._items and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self._error is not None and not self._items:
            # Each of those who share it raises one of its own.
            shared = self._error
            raise shared.__class__(
                str(shared),
                retry_after_s=shared.retry_after_s,
                provider=shared.provider,
                transient=shared.transient,
                param=shared.param,
                code=shared.code,
            )
        items, self._items = self._items, []
        return items
