"""Who may be sent to an engine now: as many as its window has, and nobody while its key is held.

A semaphore's size cannot change, and has no way for those who come again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from headrace.chains.pace.account import Account
from headrace.chains.pace.window import Window


class Door:
    """``enter`` it, and ``leave`` after that."""

    def __init__(self, window: Window, account: Account) -> None:
        self._window, self._account = window, account
        self._queue: deque[asyncio.Future[None]] = deque()
        self.running = 0
        account.tell(self._let_in)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    async def enter(self, *, again: bool) -> None:
        """Wait for a place; who comes ``again`` has waited before, and goes first."""
        if not self._queue and self.running < self._window.size and not self._account.held:
            self.running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # the place was given in the very step
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        if self._queue:
            self._let_in()

    def shut(self, why: Callable[[], Exception]) -> None:
        """Turn away all who wait."""
        for turn in self._queue:
            if not turn.done():
                turn.set_exception(why())
        self._queue.clear()

    def _let_in(self) -> None:
        while self._queue and self.running < self._window.size and not self._account.held:
            turn = self._queue.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)
