"""Any graph of functions, against one that is walked as naively as can be: value by value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.chains import Apply, Branch, Chain, Join, Reduce, RunSettings, arun
from headrace.chains.nodes import Group
from headrace.chains.nodes import Path as ChainPath

ROWS = 9
Value = dict[str, Any]


@frozen
class Work:
    """What a node does, as data: the chain and the naive walk are both made of it."""

    id: str
    how: str
    """one, later, many, filter, failing"""


@frozen
class Fork:
    id: str
    ways: dict[str, tuple[Any, ...]]


@frozen
class Beside:
    paths: tuple[tuple[Any, ...], ...]


@frozen
class Put:
    id: str
    partial: bool


@frozen
class Gather:
    id: str


Plan = tuple[Any, ...]


def number_of(value: Value) -> int:
    """Something that stays of the row, whatever was made of it, and differs by the way it took."""
    return sum(value["rows"]) + len(value["by"])


def flat(value: Any) -> Value:
    """What came, as a value that a node works on: a row, or a join's or a group's."""
    if isinstance(value, dict) and "rows" in value:
        return value
    if isinstance(value, dict) and "number" in value:
        return {"rows": [value["number"]], "by": ""}
    inner = list(value.values()) if isinstance(value, dict) else value
    flats = [flat(each) for each in inner]
    rows = sorted({row for each in flats for row in each["rows"]})
    return {"rows": rows, "by": "(" + "|".join(each["by"] for each in flats) + ")"}


def worked(work: Work, value: Any) -> list[Any]:
    """What ``work`` makes of ``value``; raises ValueError where it fails."""
    known = flat(value)
    number = number_of(known)
    made = {"rows": known["rows"], "by": known["by"] + work.id}
    if work.how == "failing" and number % 4 == 0:
        raise ValueError(f"{work.id} takes no {number}")
    if work.how == "many":
        return [{**made, "by": f"{made['by']}.{part}"} for part in range(number % 3)]
    if work.how == "filter":
        return [value] if number % 3 else []
    return [made]


def chosen(fork: Fork, value: Any) -> str | None:
    names = [*fork.ways, None]
    return names[number_of(flat(value)) % len(names)]


def grouped(value: Any) -> int:
    return number_of(flat(value)) % 4


@frozen
class Came:
    """One value on its way, as the naive walk sees it: by ``part`` it knows how often it was split."""

    value: Any
    part: tuple[int, ...] = ()


def naive(plan: Plan, came: list[Came], failed: list[tuple[str, frozenset[int]]]) -> list[Came]:
    """``plan`` walked depth first, one value after the other."""
    out: list[Came] = []
    for each in came:
        out += _naive_one(plan, each, failed)
    return out


def _naive_one(plan: Plan, came: Came, failed: list[tuple[str, frozenset[int]]]) -> list[Came]:
    if not plan:
        return [came]
    first, *rest = plan
    if isinstance(first, Work):
        try:
            made = worked(first, came.value)
        except ValueError:
            failed.append((first.id, frozenset(rows_in(came.value))))
            return []
        if first.how == "many":
            split = [Came(value, (*came.part, i)) for i, value in enumerate(made)]
        else:
            split = [Came(value, came.part) for value in made]
        return naive(tuple(rest), split, failed)
    join = rest[0] if rest and isinstance(rest[0], Put) else None
    behind = tuple(rest[1:] if join else rest)
    if isinstance(first, Fork):
        way = chosen(first, came.value)
        paths = {} if way is None else {way: first.ways[way]}
    else:
        assert isinstance(first, Beside)
        paths = {_last(path): path for path in first.paths}
    ends = {name: naive(path, [came], failed) for name, path in paths.items()}
    if join is None:
        return naive(behind, [each for end in ends.values() for each in end], failed)
    there = [bool(end) for end in ends.values()]
    if not any(there) or not (join.partial or all(there)):
        return []
    value = {
        name: end[0].value
        if len(end) == 1 and end[0].part == came.part
        else [each.value for each in end]
        for name, end in ends.items()
        if end
    }
    return naive(behind, [Came(value, came.part)], failed)


def rows_in(value: Any) -> list[int]:
    return flat(value)["rows"]


def _last(path: Plan) -> str:
    return str(path[-1].id)


def expected(plan: Plan) -> tuple[list[Any], list[tuple[str, frozenset[int]]]]:
    """All values that come out, in their order; and what fails where."""
    failed: list[tuple[str, frozenset[int]]] = []
    values: list[list[Came]] = [[Came({"number": row})] for row in range(ROWS)]
    begun: list[Any] = []
    for place in (*plan, None):
        if place is not None and not isinstance(place, Gather):
            begun.append(place)
            continue
        values = [naive(tuple(begun), came, failed) for came in values]
        begun = []
        if place is not None:
            groups: dict[int, list[Any]] = {}
            for came in values:
                for each in came:
                    groups.setdefault(grouped(each.value), []).append(each.value)
            values = [[Came(flat(group))] for group in groups.values()]
    return [each.value for came in values for each in came], failed


def chain_of(plan: Plan) -> Chain:
    return Chain(_path_of(plan))


def _path_of(plan: Plan) -> ChainPath:
    return ChainPath(tuple(_place_of(place) for place in plan))


def _place_of(place: Any) -> Any:
    if isinstance(place, Work):
        return Apply(
            id=place.id, function=_function(place), how=_how(place.how), version=repr(place)
        )
    if isinstance(place, Fork):
        ways = {name: _path_of(way) for name, way in place.ways.items()}
        return Branch(
            id=place.id, choose=lambda value: chosen(place, value), paths=ways, version=repr(place)
        )
    if isinstance(place, Put):
        return Join(id=place.id, partial=place.partial)
    if isinstance(place, Gather):
        return Reduce(id=place.id, by=grouped, function=flat)
    return Group(tuple(_path_of(path) for path in place.paths))


def _how(how: str) -> Any:
    return how if how in ("many", "filter") else "one"


def _function(work: Work) -> Callable[[Any], Any]:
    def made(value: Any) -> Any:
        found = worked(work, value)
        if work.how == "filter":
            return bool(found)
        return found if work.how == "many" else found[0]

    async def later(value: Any) -> Any:
        for _ in range(number_of(flat(value)) % 5):
            await asyncio.sleep(0)
        return made(value)

    return later if work.how == "later" else made


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Graphs of any nesting, some with a Reduce or two at their top."""
    count = 0

    def name() -> str:
        nonlocal count
        count += 1
        return f"n{count}"

    def work() -> Work:
        how = draw(st.sampled_from(["one", "later", "many", "filter", "failing"]))
        return Work(name(), how)

    def path(depth: int) -> Plan:
        places: list[Any] = [work()]
        for _ in range(draw(st.integers(0, 3 if depth == 0 else 1))):
            kind = draw(st.sampled_from(["work", "beside", "fork", "gather"]))
            if kind == "gather" and depth == 0:
                places.append(Gather(name()))
            elif kind == "beside" and depth < 2:
                count_of = draw(st.integers(2, 3))
                places.append(Beside(tuple(path(depth + 1) for _ in range(count_of))))
                places += joined()
            elif kind == "fork" and depth < 2:
                ways = {each: path(depth + 1) for each in ("left", "right")}
                places.append(Fork(name(), ways))
                places += joined()
            places.append(work())
        return tuple(places)

    def joined() -> list[Any]:
        return [Put(name(), draw(st.booleans()))] if draw(st.booleans()) else []

    return path(0)


async def values_of(
    plan: Plan, folder: Path, stop_after: int | None = None
) -> tuple[list[Any], list[tuple[str, frozenset[int]]]]:
    chain = chain_of(plan)
    run = RunSettings(run_dir=folder, clients={}, concurrency=2)
    values: list[Any] = []
    failed = []
    results = arun(chain, [{"number": row} for row in range(ROWS)], settings=run)
    seen = 0
    async for result in results:
        values += result.values
        failed += [(each.node, frozenset(rows_in(each.item.value))) for each in result.errors]
        seen += 1
        if seen == stop_after:
            break
    await results.aclose()
    return values, failed


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(), stop_after=st.integers(1, ROWS))
def test_any_graph_gives_what_a_walk_value_by_value_gives_and_again_after_a_break(
    plan, stop_after, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("run")
    wanted, failing = expected(plan)
    asyncio.run(values_of(plan, folder, stop_after))
    values, failed = asyncio.run(values_of(plan, folder))
    assert values == wanted
    assert sorted(failed, key=repr) == sorted(failing, key=repr)
    assert asyncio.run(values_of(plan, folder)) == (values, failed)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_without_a_reduce_every_value_is_made_of_one_row_alone(plan, tmp_path_factory):
    plan = tuple(place for place in plan if not isinstance(place, Gather))
    values, failed = asyncio.run(values_of(plan, tmp_path_factory.mktemp("run")))
    for value in values:
        assert len(flat(value)["rows"]) == 1
    for _, rows in failed:
        assert len(rows) == 1


def test_a_value_that_goes_down_no_path_of_a_branch_is_not_joined(tmp_path):
    fork = Branch(id="b", choose=lambda value: None, paths={"x": Apply(id="x", function=flat)})
    chain = Chain(fork >> Join(id="j"))

    async def values() -> list[Any]:
        settings = RunSettings(run_dir=tmp_path, clients={})
        return [each.values async for each in arun(chain, [{"number": 1}], settings=settings)]

    assert asyncio.run(values()) == [()]
