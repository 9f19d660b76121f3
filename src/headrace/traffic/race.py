"""One call at two backends at a time: the first to bring output answers, the other is left at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeAlias

from attrs import define, evolve

from headrace.contracts.errors import LLMError
from headrace.contracts.record import Hedge, Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import Usage
from headrace.net.clock import Timer
from headrace.traffic.fallback import Alternative, Earlier, another_may_mend
from headrace.traffic.hedge import Hedging, why_not_twice
from headrace.traffic.lane import Lane
from headrace.traffic.opening import asked_there, opened
from headrace.traffic.running import Running
from headrace.traffic.visit import Visit

log = logging.getLogger(__name__)

Paid: TypeAlias = Callable[[str | None, Sequence[str | None], Usage], Decimal | None]


@define(kw_only=True, eq=False)
class _Beside(Running):
    """What the second attempt of a call runs in: for those who count calls it is none of its own."""

    def enters(self, lane: Lane) -> None:
        """The call itself has entered long ago."""


class Race:
    """Opens one call as ``opening.opened`` does, and hedges it once where its first token is late.

    The second request goes to the next way that is well and has room, for one attempt. While it is
    under way, a first one that fails waits for it; where it fails, the first one goes on as if it
    had never been.
    """

    def __init__(
        self,
        call: Running,
        request: LLMRequest,
        ways: Sequence[Alternative],
        hedging: Hedging,
        paid: Paid,
    ) -> None:
        self._call = call
        self._request = request
        self._ways = ways
        self._hedging = hedging
        self._paid = paid
        self._decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Whether there is a second one; it never comes where no first token is late."""
        self._timer: Timer | None = None
        self._asking: Visit | None = None
        self._first: asyncio.Task[Visit] | None = None
        self._second: asyncio.Task[Visit] | None = None
        self._second_visit: Visit | None = None
        call.asks = self._asks

    async def opened(self, earlier: Earlier | None) -> Visit:
        """The visit that brought output first; the other attempt is over by then."""
        self._hedging.began()
        try:
            winner = await self._run(earlier)
        except BaseException as failure:
            self._count_who_is_late()
            await self._leave_all_but(None, failure)
            raise
        try:
            await self._leave_all_but(winner)
        except BaseException as failure:
            await winner.end(failure)
            raise
        return winner

    async def _run(self, earlier: Earlier | None) -> Visit:
        call = self._call
        first = self._first = asyncio.create_task(
            opened(call, self._request, self._ways, earlier, before_next=self._second_is_over)
        )
        await _any_of(first, self._decided)
        second = self._second
        if second is None:
            await _any_of(first)
            return self._won_by_first(first)
        await _any_of(first, second)
        if first.done():
            if not _another_may_mend(first):
                return self._won_by_first(first)
            await _any_of(second)
        if _failure(second) is None:
            return self._won_by_second(second.result())
        await _any_of(first)
        return self._won_by_first(first)

    def _won_by_first(self, first: asyncio.Task[Visit]) -> Visit:
        """Raises what the first one failed with."""
        visit = first.result()
        now, begin = self._call.clock.monotonic(), visit.began
        if begin is not None and not self._call.latest.came_whole:
            self._hedging.took(now - begin)
        return visit

    def _won_by_second(self, visit: Visit) -> Visit:
        call = self._call
        assert call.hedge is not None
        call.hedge = call.marks.hedge = evolve(call.hedge, outcome="won")
        self._count_who_is_late()
        return visit

    def _count_who_is_late(self) -> None:
        """An attempt that is left, and late, would have taken longer than this."""
        asking, after_s = self._asking, self._hedging.after_s()
        since = None if asking is None else asking.asking_since
        if since is None or after_s is None:
            return
        so_far_s = self._call.clock.monotonic() - since
        if so_far_s >= after_s:
            self._hedging.took(so_far_s)

    def _asks(self, visit: Visit) -> None:
        """An attempt of the first one begins."""
        self._asking = visit
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        after_s = self._hedging.after_s()
        if after_s is None or self._decided.done():
            return
        since = visit.asking_since

        def ring() -> None:
            if since is not None and visit.asking_since == since:
                self._hedge(visit, self._call.clock.monotonic() - since)
                self._decided.set_result(None)

        self._timer = self._call.clock.call_later(after_s, ring)

    def _hedge(self, asking: Visit, after_s: float) -> None:
        """Ask a second time, or note why not."""
        call = self._call
        way, twice = self._next_way(asking), why_not_twice(self._request)
        if twice is not None:
            reason = twice
        elif call.patience.left_s("total_s") <= self._hedging.usual_s():
            reason = "its time is nearly over"
        elif way is None:
            reason = "no other backend is well and has room"
        elif not self._hedging.spend():
            reason = "the budget is spent"
        else:
            hedge = Hedge(outcome="lost", after_s=after_s, backend=way.lane.name)
            call.hedge = call.marks.hedge = hedge
            self._second = asyncio.create_task(self._open_second(way))
            return
        hedge = Hedge(outcome="not_allowed", after_s=after_s, reason=reason)
        call.hedge = call.marks.hedge = hedge

    def _next_way(self, asking: Visit) -> Alternative | None:
        """Who else may be asked now."""
        place = next(n for n, way in enumerate(self._ways) if way.lane is asking.lane)
        others = self._ways[place + 1 :]
        if not others and self._hedging.policy.same_backend:
            others = self._ways[place:]
        return next((way for way in others if way.lane.has_room(self._asked(way))), None)

    def _asked(self, way: Alternative) -> LLMRequest:
        return asked_there(way, self._request, self._ways[0])

    async def _open_second(self, way: Alternative) -> Visit:
        call = self._call
        beside = _Beside(
            # Two requests of one key at one provider would be one request to it.
            call_id=f"{call.call_id}-hedge",
            clock=call.clock,
            random=call.random,
            patience=call.patience.beside(),
            live=call.live,
            marks=Marks(attempts=call.marks.attempts),
            total_s=call.total_s,
            whole=call.whole,
            admitted=call.admitted,
            attempts=call.attempts,
            asks=_unheard,
        )
        visit = self._second_visit = Visit(
            way.lane, self._asked(way), beside, patient=False, hedged=True
        )
        try:
            await visit.open()
        except BaseException as failure:
            await visit.end(failure)
            raise
        finally:
            beside.patience.close()
        beside.marks.dropped += way.dropped
        return visit

    async def _second_is_over(self) -> None:
        if self._second is not None:
            await _any_of(self._second)

    async def _leave_all_but(
        self, winner: Visit | None, failure: BaseException | None = None
    ) -> None:
        """End what is still open, whoever is cancelled meanwhile; the call itself has ended in
        ``failure``."""
        self._call.asks = None
        self._decided.cancel()
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._first, self._second) if task is not None]
        left_by = await _ended(tasks)
        for task in tasks:
            left_by = await _closed(task, winner, failure) or left_by
        for visit in (self._asking, self._second_visit):
            if visit is not None and visit is not winner:
                self._tell_cost(visit)
        if winner is not None and winner is self._second_visit:
            winner.goes_on_in(self._call)
        if left_by is not None:
            raise left_by

    def _tell_cost(self, visit: Visit) -> None:
        """What an attempt that was left is known to have used goes into the record."""
        attempt = visit.attempt
        told = [delta for delta in visit.held if delta.usage_delta is not None]
        if attempt is None or not told or self._second_visit is None:
            return
        usage = told[-1].usage_delta
        assert usage is not None
        names = (told[-1].model, visit.request.model)
        price = self._paid(visit.provider, names, usage)
        for attempts in (self._call.attempts, self._call.marks.attempts):
            attempts[attempts.index(attempt)] = evolve(attempt, usage=usage, price_usd=price)


def _unheard(_: Visit) -> None:
    """Nobody hedges a hedge."""


async def _any_of(*awaited: asyncio.Future[Visit] | asyncio.Future[None]) -> None:
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


async def _ended(tasks: Sequence[asyncio.Task[Visit]]) -> asyncio.CancelledError | None:
    """Cancel ``tasks`` and wait until they are over; returns our own cancellation meanwhile."""
    left_by = None
    for task in tasks:
        task.cancel()
    while waiting := [task for task in tasks if not task.done()]:
        try:
            await _any_of(*waiting)
        except asyncio.CancelledError as error:
            left_by = error
            for task in waiting:  # it may be in a clean-up that waits
                task.cancel()
    return left_by


async def _closed(
    task: asyncio.Task[Visit], winner: Visit | None, told: BaseException | None
) -> asyncio.CancelledError | None:
    """End what ``task`` has opened, unless it is the ``winner``; returns as ``_ended``.

    What went wrong in it goes into the log, unless it is ``told`` the caller.
    """
    failure = _failure(task)
    if failure is None and task.result() is not winner:
        try:
            await task.result().end(asyncio.CancelledError())
        except asyncio.CancelledError as error:
            return error
    elif failure is not told and not isinstance(failure, LLMError | asyncio.CancelledError | None):
        log.error("an attempt that was not needed failed", exc_info=failure)
    return None


def _another_may_mend(task: asyncio.Task[Visit]) -> bool:
    """Whether ``task``, which is done, failed with what another backend may do better."""
    failure = _failure(task)
    return isinstance(failure, LLMError) and another_may_mend(failure)


def _failure(task: asyncio.Task[Visit]) -> BaseException | None:
    """What ``task``, which is done, failed with."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()
