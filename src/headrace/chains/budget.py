"""Money that a run may spend: what a request may cost at most is set aside before it is asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

from headrace.chains.spending import Bill


class OutOfBudget(Exception):
    """What was to be asked is left for a run that may spend more."""


class Budget:
    """``limit`` US dollars, of which ``spent`` are gone.

    A request for which not enough is left waits for others that may use less than was set aside for
    them. When there are none any more it is the end: ``at_end`` is called once, and nothing further
    is asked.
    """

    def __init__(self, limit: Decimal, spent: Decimal, at_end: Callable[[], None]) -> None:
        self.limit, self.spent = limit, spent
        self.over = False
        self._at_end = at_end
        self._aside = Decimal(0)
        self._waiting: deque[tuple[Decimal, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def aside(self, most: Decimal, one: Decimal, bill: Bill) -> AsyncIterator[None]:
        """Has ``most`` set aside for what is done within, and what comes on ``bill`` paid at the end.

        ``one`` is what a single call may cost at most; so much is paid for those that nobody told the
        price of. Raises OutOfBudget.
        """
        spent = bill.spent
        before = spent.usd, spent.unpriced + spent.untold
        await self._set_aside(most)
        try:
            yield
        finally:
            unknown = spent.unpriced + spent.untold - before[1]
            self._settle(most, spent.usd - before[0] + one * unknown)

    async def _set_aside(self, most: Decimal) -> None:
        if self.over:
            raise OutOfBudget
        if not self._waiting and self._fits(most):
            self._aside += most
            return
        if not self._aside:
            self._end()
            raise OutOfBudget
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((most, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._settle(most, Decimal(0))
            raise

    def _fits(self, most: Decimal) -> bool:
        return self.spent + self._aside + most <= self.limit

    def _settle(self, most: Decimal, paid: Decimal) -> None:
        self._aside -= most
        self.spent += paid
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():  # its row was given up
                self._waiting.popleft()
                continue
            if not self._fits(wanted):
                if not self._aside:
                    self._end()
                return
            self._waiting.popleft()
            self._aside += wanted
            turn.set_result(None)

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._at_end()
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(OutOfBudget())
        self._waiting.clear()
