"""Graphs of functions: what belongs together stays together, whatever the graph."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.chains import Apply, Branch, Chain, Join, Result, RunSettings, Step, arun
from headrace.contracts.errors import LLMInvalidRequestError


def run(chain: Chain, rows: list[dict[str, Any]], folder: Path) -> list[Result]:
    async def all_of_them() -> list[Result]:
        settings = RunSettings(run_dir=folder, clients={}, concurrency=2)
        return [each async for each in arun(chain, rows, settings=settings)]

    return asyncio.run(all_of_them())


def tagged(name: str, how: str = "one") -> Apply:
    """Marks what it is given with its name; several times, or lets even rows through only."""

    def one(value: Any) -> Any:
        return {"of": row_of(value), "by": name}

    async def later(value: Any) -> Any:
        await asyncio.sleep(0.001 * (row_of(value) % 3))
        return one(value)

    def many(value: Any) -> Any:
        return [{**one(value), "part": part} for part in range(row_of(value) % 3)]

    def even(value: Any) -> Any:
        return row_of(value) % 2 == 0

    def failing(value: Any) -> Any:
        if row_of(value) % 5 == 4:
            raise ValueError(f"{name} cannot take {row_of(value)}")
        return one(value)

    functions = {"one": one, "later": later, "many": many, "filter": even, "failing": failing}
    kind = how if how in ("many", "filter") else "one"
    return Apply(id=name, function=functions[how], how=kind, version=f"{name} {how}")


def row_of(value: Any) -> int:
    """The row that ``value`` comes from, whatever was made of it; it must be one row alone."""
    if isinstance(value, dict) and "number" in value:
        return int(value["number"])
    if isinstance(value, dict) and "of" in value:
        return int(value["of"])
    found = {row_of(each) for each in (value.values() if isinstance(value, dict) else value)}
    assert len(found) == 1, value
    return found.pop()


HOWS = st.sampled_from(["one", "later", "many", "filter", "failing"])


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """A path of nodes and joined groups of paths."""
    count = 0

    def node() -> Apply:
        nonlocal count
        count += 1
        return tagged(f"n{count}", draw(HOWS))

    path = node() >> node()
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            count += 1
            join = f"n{count}"
            group = (node() >> node()) | node()
            if draw(st.booleans()):
                group = group | node()
            path = path >> group >> Join(id=join, partial=draw(st.booleans()))
        else:
            path = path >> node()
    return Chain(path)


@settings(max_examples=40)
@given(chain=chains())
def test_what_is_joined_is_of_one_row_and_rows_stay_in_order(chain, tmp_path_factory):
    rows = [{"number": i} for i in range(12)]
    results = run(chain, rows, tmp_path_factory.mktemp("run"))
    assert len(results) == len(rows)
    for row, result in zip(rows, results, strict=True):
        for value in result.values:
            if value != []:
                assert row_of(value) == row["number"]
        for failed in result.errors:
            assert failed.item.row == row


def test_a_branch_sends_each_value_down_one_path(tmp_path):
    branch = Branch(
        id="size",
        choose=lambda value: "big" if value["number"] > 1 else None if value["number"] else "small",
        paths={"big": tagged("big"), "small": tagged("small") >> tagged("smaller")},
    )
    results = run(Chain(branch), [{"number": i} for i in range(4)], tmp_path)
    assert [each.values for each in results] == [
        ({"of": 0, "by": "smaller"},),
        (),
        ({"of": 2, "by": "big"},),
        ({"of": 3, "by": "big"},),
    ]


def test_a_joined_value_has_what_each_path_gave_by_its_last_node(tmp_path):
    chain = Chain((tagged("left") | tagged("right")).join("both"))
    (result,) = run(chain, [{"number": 1}], tmp_path)
    assert result.values == ({"left": {"of": 1, "by": "left"}, "right": {"of": 1, "by": "right"}},)


def test_a_path_may_end_with_a_group_where_nothing_joins_it(tmp_path):
    inner = tagged("b") >> (tagged("c") | tagged("d"))
    (result,) = run(Chain(tagged("a") | inner), [{"number": 1}], tmp_path)
    assert [value["by"] for value in result.values] == ["a", "c", "d"]
    with pytest.raises(LLMInvalidRequestError, match="cannot end with a group"):
        Chain((tagged("a") | inner).join("all"))


def test_behind_a_join_the_nodes_of_its_paths_can_be_named():
    typed = {"type": "object", "properties": {"left": {}}}
    step = Step(id="s", engine="e", input=typed, user="{{ left }} {{ right.by }} {{ row.number }}")
    assert Chain((tagged("left") | tagged("right")).join("both") >> step).engines() == ("e",)


def test_equal_rows_are_done_once_and_each_has_its_result(tmp_path):
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return len(seen)

    chain = Chain(Apply(id="note", function=note))
    results = run(chain, [{"number": 1}] * 5, tmp_path)
    assert [each.values for each in results] == [(1,)] * 5
    assert seen == [{"number": 1}]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Chain(Join(id="j")), "stands behind a group"),
        (lambda: Chain(tagged("a") >> tagged("a")), "two nodes have the id 'a'"),
        (lambda: Chain(tagged("row")), "templates call the input by it"),
        (lambda: tagged("a b"), "must be a plain name"),
        (lambda: Step(id="s", engine="e", user="{% if %}"), "s.user, line 1"),
        (
            lambda: Chain(
                Step(
                    id="s",
                    engine="e",
                    input={"type": "object", "properties": {"a": {}}},
                    user="{{ b }}",
                )
            ),
            "names 'b', which nothing before it gives; known: a, row, value",
        ),
    ],
)
def test_what_could_not_run_is_refused_before_anything_runs(make, said):
    with pytest.raises(LLMInvalidRequestError) as refused:
        make()
    assert said in str(refused.value)
