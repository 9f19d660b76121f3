"""Runs a chain over rows: a bounded number on their way, results in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path

from attrs import evolve, field, frozen

from headrace.chains.abilities import abilities_of, may_lack
from headrace.chains.asking import Answering, Askers
from headrace.chains.batching import Batching
from headrace.chains.budget import Budget
from headrace.chains.cache import AnswerCache, AskedOnce, CacheSettings
from headrace.chains.engines import is_started, open_clients, open_paces
from headrace.chains.graph import Chain, Part
from headrace.chains.groups import Gathered, Groups
from headrace.chains.journal import Journal
from headrace.chains.nodes import Step
from headrace.chains.pace import EngineGoneError, Pace, PaceSettings
from headrace.chains.prices import Prices
from headrace.chains.reading import Row
from headrace.chains.runs import Earlier, Notes, Why
from headrace.chains.spending import Spending
from headrace.chains.standing import Standing
from headrace.chains.turns import turns_of
from headrace.chains.values import Item
from headrace.chains.walk import Came, Failed, Walk
from headrace.client.async_client import AsyncClient
from headrace.contracts.engines import EngineConfig

_ROWS_A_PLACE = 4
_HELD_A_PLACE = 64


@frozen(kw_only=True)
class RunSettings:
    """How a chain is run. ``run_dir`` keeps what was done: run again there, only the rest is done.

    ``concurrency`` requests are under way at each engine at most. Lazy engines that we start run one
    at a time, each for ``window`` rows before the next one starts; for all of them, if it is None.
    One that failed for a reason that may pass is made again ``retries`` times at most. Limits a
    minute hold for each provider and key whose engines have none of their own. ``pace`` has what
    else may be said of how engines are asked. The run stops before ``max_cost`` US dollars are
    passed, those of earlier attempts in ``run_dir`` counted. ``cache`` keeps answers for other runs.
    ``input`` and ``output`` are what the run's note says of where its rows come from and go.
    """

    run_dir: Path
    concurrency: int = 64
    retries: int = 5
    window: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    pace: PaceSettings = field(factory=PaceSettings)
    engines: tuple[EngineConfig, ...] = ()
    clients: Mapping[str, AsyncClient] | None = None
    cache: CacheSettings | None = None
    max_cost: Decimal | None = None
    input: str | None = None
    output: str | None = None


class Run:
    """One run of ``chain`` over ``rows``. ``stop`` asks it to take up no more rows."""

    def __init__(self, chain: Chain, settings: RunSettings) -> None:
        self.chain, self.settings = chain, settings
        self.standing = Standing()
        self.paces: Mapping[str, Pace] = {}
        """How each engine is asked, while it runs."""
        self.spending = Spending()
        self.rows_known: int | None = None
        """How many rows there are, where somebody has counted them."""
        self.why_stopped: Why | None = None
        self.earlier = Earlier()
        """What earlier attempts in the same folder spent."""
        lacking = [node for node in chain.nodes if isinstance(node, Step) and may_lack(node)]
        own = settings.clients is None
        self.abilities = abilities_of(lacking, settings.engines) if own else {}
        """What those steps have of their engines that may have to go without something."""
        self._stopped = False
        self._budget: Budget | None = None
        self.clients: Mapping[str, AsyncClient] = {}
        """Who is asked, by the names of engines, while it runs."""
        self._prices = Prices({each.name: each for each in settings.engines})
        if settings.max_cost is not None:
            self._prices.check([each for each in chain.nodes if isinstance(each, Step)])

    def stop(self, why: Why = "interrupt") -> None:
        """Finish what is under way, and take up no more; the run's note tells ``why``."""
        self._stopped = True
        self.why_stopped = self.why_stopped or why

    @property
    def usd_at_most(self) -> Decimal:
        """What this attempt may have cost; more than is known where nobody told of some calls."""
        known = self.spending.all.usd
        if self._budget is None:
            return known
        return max(known, self._budget.spent - self.earlier.usd_at_most)

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopped

    @property
    def takes_turns(self) -> bool:
        """Whether the rows go through the chain more than once, for engines that take turns or
        for batches."""
        return len(turns_of(self.chain.parts()[0], self._lazy())[1]) > 1

    def _lazy(self) -> frozenset[str]:
        return frozenset(e.name for e in self.settings.engines if e.lazy and is_started(e))

    async def over(
        self, rows: Callable[[], Iterable[Row]]
    ) -> AsyncGenerator[tuple[Row, Came], None]:
        """Each row with what became of it, in their order.

        ``rows`` gives them from the first on, each time it is called: where engines take turns, the
        rows of a window go through the chain once for each.
        """
        settings = self.settings
        async with AsyncExitStack() as stack:
            journal = stack.enter_context(Journal(settings.run_dir))
            clients = settings.clients
            if clients is None:
                opened = open_clients(
                    self.chain.engines(),
                    settings.engines,
                    concurrency=settings.concurrency,
                    sinks=(self.spending,),
                )
                clients = opened
                for client in opened.values():
                    stack.push_async_callback(client.aclose)
            self.clients = clients
            self.paces = open_paces(
                clients,
                settings.engines,
                evolve(settings.pace, concurrency=settings.concurrency, retries=settings.retries),
                requests_per_minute=settings.requests_per_minute,
                tokens_per_minute=settings.tokens_per_minute,
            )
            notes = Notes(self)
            self.earlier = notes.earlier
            if settings.max_cost is not None:
                spent = self.earlier.usd_at_most
                self._budget = Budget(settings.max_cost, spent, lambda: self.stop("max_cost"))
            await stack.enter_async_context(notes)
            budget = None if self._budget is None else (self._budget, self._prices)
            askers = Askers(self.paces, self.spending, budget, self.abilities)
            cached = self._cached(stack, askers)
            for engine in settings.engines:
                if is_started(engine) and not engine.lazy and engine.name in clients:
                    await clients[engine.name].start_engine()
            batching = stack.enter_context(
                Batching(self.chain, settings.run_dir, askers, clients, self)
            )
            await batching.resume()
            parts = self.chain.parts()
            for part, behind in zip(parts, (*parts[1:], None), strict=True):
                walk = Walk(part, journal, cached, self.standing)
                walk.batching = batching
                stack.callback(walk.close)
                if behind is None:
                    async with aclosing(self._part(walk, part, rows, None)) as through:
                        async for row, came in through:
                            yield row, came
                    return
                groups = stack.enter_context(Groups(settings.run_dir, behind))
                async with aclosing(self._part(walk, part, rows, behind)) as through:
                    async for row, came in through:
                        failed = groups.add(row, came)
                        self.standing.failed += len(failed) - len(came.failed)
                        if failed:
                            yield row, Came((), failed, came.used)
                if self._stopped:  # the groups are not whole
                    return
                rows = groups.rows

    async def _part(
        self,
        walk: Walk,
        part: Part,
        rows: Callable[[], Iterable[Row]],
        behind: Part | None,
    ) -> AsyncGenerator[tuple[Row, Came], None]:
        """Each row with what became of it in ``part``, engines taking turns, and batches."""
        walk.segments, turns = turns_of(part, self._lazy())
        batching = walk.batching
        for window in self._windows(rows, many=len(turns) > 1):
            for walk.until, turn in enumerate(turns[:-1]):
                batching.collects = turn.collects
                async with aclosing(self._through(walk, window())) as through:
                    async for _ in through:
                        pass
                if turn.engine is not None:
                    await self.clients[turn.engine].stop_engine()
                await batching.run()
            walk.until, batching.collects = len(turns) - 1, False
            # Who listens may leave: what is under way ends before the clients are closed.
            async with aclosing(self._through(walk, window())) as through:
                async for row, came in through:
                    if came.later:
                        continue
                    self._count(part, came, last=behind is None)
                    yield row, came
            last = turns[-1].engine
            going_on = behind is not None and turns_of(behind, self._lazy())[1][0].engine == last
            if last is not None and (len(turns) > 1 or behind is not None) and not going_on:
                await self.clients[last].stop_engine()

    def _cached(self, stack: AsyncExitStack, askers: Answering) -> Answering:
        settings = self.settings
        if settings.cache is None:
            return askers
        cache = stack.enter_context(AnswerCache(settings.cache, settings.engines))
        return AskedOnce(cache, askers)

    def _windows(
        self, rows: Callable[[], Iterable[Row]], *, many: bool
    ) -> Iterator[Callable[[], Iterable[Row]]]:
        size = self.settings.window
        if size is None or not many:
            yield rows
            return
        all_rows = iter(rows())
        while not self._stopped and (held := tuple(islice(all_rows, size))):
            yield partial(tuple[Row, ...], held)

    async def _through(
        self, walk: Walk, rows: Iterable[Row]
    ) -> AsyncGenerator[tuple[Row, Came], None]:
        """Each row as far as ``walk`` goes now."""
        on_their_way: deque[tuple[Row, asyncio.Task[Came]]] = deque()
        most = _ROWS_A_PLACE * self.settings.concurrency
        most_held = _HELD_A_PLACE * self.settings.concurrency
        ended = asyncio.Event()
        under_way = 0

        def over(_: object) -> None:
            nonlocal under_way
            under_way -= 1
            ended.set()

        try:
            for row in rows:
                if self._stopped:
                    break
                task = asyncio.create_task(_of_row(walk, row))
                task.add_done_callback(over)
                under_way += 1
                on_their_way.append((row, task))
                # One that waits for long keeps those behind it from being written, but not from
                # being asked: what they gave is held until it is their turn.
                while under_way >= most or len(on_their_way) >= most_held:
                    if on_their_way[0][1].done() or len(on_their_way) >= most_held:
                        yield await _first_of(on_their_way)
                        continue
                    ended.clear()
                    await ended.wait()
                while on_their_way and on_their_way[0][1].done():
                    yield await _first_of(on_their_way)
            while on_their_way:
                yield await _first_of(on_their_way)
        except EngineGoneError:
            # What others are asked is finished, as far as it goes without that one.
            await asyncio.gather(*(task for _, task in on_their_way), return_exceptions=True)
            raise
        finally:
            await _end(on_their_way)

    def _count(self, part: Part, came: Came, *, last: bool) -> None:
        standing = self.standing
        if part.reduce is None:
            standing.rows += 1
        else:
            standing.groups += 1
        standing.results += len(came.items) if last else 0
        standing.failed += len(came.failed)


async def _first_of(on_their_way: deque[tuple[Row, asyncio.Task[Came]]]) -> tuple[Row, Came]:
    row, task = on_their_way[0]
    came = await task
    on_their_way.popleft()
    return row, came


async def _of_row(walk: Walk, row: Row) -> Came:
    if isinstance(row, Gathered):
        return await row.through(walk)
    item = Item(row.number, row.value, (), row.value, {})
    if row.wrong is not None:
        return Came((), (Failed("input", "LLMInvalidRequestError", row.wrong, item),))
    return await walk.row(item)


async def _end(tasks: deque[tuple[Row, asyncio.Task[Came]]]) -> None:
    for _, task in tasks:
        task.cancel()
    await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
