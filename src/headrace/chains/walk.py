"""One row through a chain: from what it is to what the chain makes of it.

A node's work is looked up in the journal first, by what it depends on: the node with all before it,
and the value that comes. So a run that goes on does only what is not done, and equal rows are asked
for once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping
from decimal import Decimal
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen
from msgspec import json

from headrace.chains.aside import Aside
from headrace.chains.asking import Answering
from headrace.chains.budget import OutOfBudget
from headrace.chains.graph import Part
from headrace.chains.journal import Done, Journal
from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Step
from headrace.chains.sieve import Sieve
from headrace.chains.standing import NodeStanding, Standing
from headrace.chains.turns import NotYet
from headrace.chains.values import Item, as_json, key_of, plain
from headrace.contracts.errors import LLMError, LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.batching import Batching

T = TypeVar("T")


@frozen
class Failed:
    """A value that a node could make nothing of, and why."""

    node: str
    error: str
    message: str
    item: Item


@define
class Used:
    """What the answers of one row used when they were given, whoever else they were for; ``usd`` is
    None where the price of one of them is not known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: Decimal | None = Decimal(0)

    def take(self, done: Done) -> None:
        """One more answer."""
        self.prompt_tokens += done.prompt_tokens
        self.completion_tokens += done.completion_tokens
        if self.usd is not None:
            self.usd = None if done.price_usd is None else self.usd + Decimal(done.price_usd)

    def plain(self) -> dict[str, Any]:
        """For JSON; money as a number, for whoever sums up a column."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": None if self.usd is None else float(self.usd),
        }


class _Told(list[Failed]):
    """What failed of one row, and what it used."""

    def __init__(self) -> None:
        super().__init__()
        self.used = Used()


@frozen
class Came:
    """What became of one row; ``later``: some of it was left for a run that may spend more."""

    items: tuple[Item, ...] = ()
    failed: tuple[Failed, ...] = ()
    used: Used = field(factory=Used)
    later: bool = False


class Walk:
    """Walks rows through ``chain``, or a part of one; what is under way is shared by those who wait for the same.

    ``segments`` are the numbers of the nodes' turns, and nodes of those behind ``until`` are left
    for later. ``batching`` is asked for those steps that are asked in batches.
    """

    batching: Batching

    def __init__(
        self, chain: Part, journal: Journal, askers: Answering, standing: Standing
    ) -> None:
        self._chain, self._journal, self._askers = chain, journal, askers
        self.standing = standing
        self._under_way: dict[bytes, asyncio.Future[Done]] = {}
        self.segments: Mapping[str, int] = {}
        self.until = 0
        # A row comes by again in each turn; who failed in his own is not asked in another's.
        self._passing = Aside()
        # To look into the journal for what is not there is a tenth of what a row costs. Where it was
        # empty, what is in it now is what was put there since.
        self._sieve = Sieve() if journal.is_empty() else None

    def close(self) -> None:
        """No row will come any more."""
        self._passing.close()

    async def row(self, item: Item) -> Came:
        """What the chain makes of ``item``; nothing, where some of it is left for later."""
        failed = _Told()
        try:
            items = await self._path(self._chain.path, item, failed)
        except NotYet:
            return Came()
        except OutOfBudget:
            return Came(later=True)
        return Came(tuple(items), tuple(failed), failed.used)

    async def _path(self, path: Path, item: Item, failed: _Told) -> list[Item]:
        items, places = [item], path.places
        at = 0
        while at < len(places) and items:
            place = places[at]
            at += 1
            joined = at < len(places) and isinstance(places[at], Join)
            if isinstance(place, Group):
                many = await _all(partial(self._beside, place.ways, failed), items)
            elif isinstance(place, Branch):
                many = await _all(partial(self._branch, place, failed), items)
            elif len(items) == 1 and isinstance(place, Step | Apply):
                items = await self._node(place, failed, items[0])
                continue
            else:
                assert not isinstance(place, Join)
                several = await _all(partial(self._node, place, failed), items)
                items = [each for group in several for each in group]
                continue
            if joined:
                join = places[at]
                assert isinstance(join, Join)
                at += 1
                pairs = zip(items, many, strict=True)
                items = [made for each, ends in pairs for made in _joined(join, each, ends)]
            else:
                items = [each for ends in many for end in ends.values() for each in end]
        return items

    async def _beside(
        self, paths: Mapping[str, Path], failed: _Told, item: Item
    ) -> dict[str, list[Item]]:
        ends = await _each([self._path(p, item, failed) for p in paths.values()])
        return dict(zip(paths, ends, strict=True))

    async def _branch(self, branch: Branch, failed: _Told, item: Item) -> dict[str, list[Item]]:
        try:
            value = item.value
            name = branch.choose(value if branch.reader is None else branch.reader(value))
            if name is None:
                return {}
            if name not in branch.paths:
                raise LLMInvalidRequestError(
                    f"it chose {name!r}; its paths: {', '.join(branch.paths)}", param=branch.id
                )
        except Exception as error:  # noqa: BLE001 - the row's fault, and told
            failed.append(Failed(branch.id, type(error).__name__, str(error), item))
            return {}
        chosen = item.then(branch.id, item.value)
        return {name: await self._path(Path.of(branch.paths[name]), chosen, failed)}

    async def _node(self, node: Node, failed: _Told, item: Item) -> list[Item]:
        if self.segments.get(node.id, 0) > self.until:
            raise NotYet
        standing = self.standing.of(node.id)
        work: Callable[[], Awaitable[Done]]
        if isinstance(node, Step):
            try:
                asked = self._askers.written(node, item)
            except LLMError as error:
                failed.append(Failed(node.id, type(error).__name__, error.message, item))
                standing.done += 1
                standing.failed += 1
                return []
            key = asked.key(self._chain.mark(node))
            work = (
                partial(self._askers.ask, asked)
                if node.mode == "live"
                else partial(self.batching.ask, key, asked)
            )
        else:
            assert isinstance(node, Apply)
            key = key_of(self._chain.mark(node), as_json(item.value))
            work = partial(_applied, node, item.value)
        done = await self.once(key, work, standing)
        standing.done += 1
        if isinstance(node, Step):
            failed.used.take(done)
        if done.failed:
            standing.failed += 1
            kind, message = json.decode(done.value)
            failed.append(Failed(node.id, kind, message, item))
            return []
        value = json.decode(done.value)
        if isinstance(node, Apply) and node.how == "many":
            return [item.then(node.id, each, part) for part, each in enumerate(value)]
        if isinstance(node, Apply) and node.how == "filter":
            return [item.then(node.id, item.value)] if value else []
        return [item.then(node.id, value)]

    def _found(self, key: bytes) -> Done | None:
        if self._sieve is None or self._sieve.may_have(key):
            return self._journal.find(key) or self._passing.get(key)
        return self._passing.get(key)

    async def once(
        self, key: bytes, work: Callable[[], Awaitable[Done]], node: NodeStanding
    ) -> Done:
        """What was made of it: before, by somebody who is at it, or now."""
        done = self._found(key)
        if done is not None:
            self.standing.reused += 1
            node.reused += 1
            return done
        under_way = self._under_way.get(key)
        if under_way is not None:
            return await asyncio.shield(under_way)
        mine = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            await self._journal.room()  # what has none would be asked for in vain
            done = await work()
            if not done.passing:
                self._journal.keep(key, done)
                if self._sieve is not None:
                    self._sieve.add(key)
            elif max(self.segments.values(), default=0) > 0:
                self._passing.put(key, done)
            standing = self.standing
            if done.cached:
                standing.cached += 1
            else:
                standing.made += 1
            standing.prompt_tokens += done.prompt_tokens
            standing.completion_tokens += done.completion_tokens
            mine.set_result(done)
            return done
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                mine.cancel()
            else:
                mine.set_exception(error)
                mine.exception()  # seen: nobody else may wait for it
            raise
        finally:
            del self._under_way[key]


async def _applied(node: Apply, value: Any) -> Done:
    try:
        made = node.function(value if node.reader is None else node.reader(value))
        if isawaitable(made):
            made = await made
        elif isinstance(made, AsyncIterable):
            made = [each async for each in made]
        if node.how == "filter":
            return Done(as_json(bool(made)))
        return Done(as_json(plain(list(made) if node.how == "many" else made)))
    except Exception as error:  # noqa: BLE001 - the row's fault, and told
        return Done(as_json([type(error).__name__, str(error)]), failed=True)


async def _all(work: Callable[[Item], Coroutine[Any, Any, T]], items: list[Item]) -> list[T]:
    if len(items) == 1:
        return [await work(items[0])]
    return await _each([work(item) for item in items])


async def _each(works: list[Coroutine[Any, Any, T]]) -> list[T]:
    """What each gives; all of them are over before an error of one is raised."""
    results = await asyncio.gather(*works, return_exceptions=True)
    came = []
    for each in results:
        if isinstance(each, BaseException):
            raise each
        came.append(each)
    return came


def _joined(join: Join, item: Item, ends: Mapping[str, list[Item]]) -> list[Item]:
    """What came out of the paths for ``item``; one value each, or a list where a path made several."""
    gave = [bool(each) for each in ends.values()]
    if not any(gave) or not (join.partial or all(gave)):
        return []
    value = {
        name: end[0].value if len(end) == 1 and end[0].path == item.path else [e.value for e in end]
        for name, end in ends.items()
        if end
    }
    given = {**item.given}
    for end in ends.values():
        for each in end:
            given.update({k: v for k, v in each.given.items() if k not in given})
    return [Item(item.number, item.row, item.path, value, {**given, join.id: value})]
