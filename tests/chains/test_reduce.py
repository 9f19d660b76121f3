"""Reduce: one value for each group, whatever failed before, and the same after any interruption."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace.chains import Apply, Branch, Chain, Reduce, Result, RunSettings, arun
from headrace.contracts.errors import LLMInvalidRequestError

ORDERS = [
    {"id": 1, "customer": "ann", "sum": 3},
    {"id": 2, "customer": "bob", "sum": 5},
    {"id": 3, "customer": "ann", "sum": 4},
    {"id": 4, "customer": "cem", "sum": -1},
    {"id": 5, "customer": "bob", "sum": 6},
]


def run(chain: Chain, rows: list[dict[str, Any]], folder: Path) -> list[Result]:
    async def all_of_them() -> list[Result]:
        settings = RunSettings(run_dir=folder, clients={}, concurrency=2)
        return [each async for each in arun(chain, rows, settings=settings)]

    return asyncio.run(all_of_them())


def paid(order: dict[str, Any]) -> dict[str, Any]:
    if order["sum"] < 0:
        raise ValueError("nothing was paid")
    return order


def total(orders: list[dict[str, Any]]) -> dict[str, Any]:
    return {"total": sum(each["sum"] for each in orders), "orders": [each["id"] for each in orders]}


async def total_later(orders: list[dict[str, Any]]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return total(orders)


@pytest.mark.parametrize("function", [total, total_later])
def test_each_group_gives_one_value_in_the_order_in_which_groups_began(tmp_path, function):
    chain = Chain(
        Apply(id="paid", function=paid) >> Reduce(id="total", by="customer", function=function)
    )
    failed, *results = run(chain, ORDERS, tmp_path)
    assert [(each.id, each.values) for each in results] == [
        ("ann", ({"total": 7, "orders": [1, 3]},)),
        ("bob", ({"total": 11, "orders": [2, 5]},)),
    ]
    assert failed.id == 4
    assert failed.errors[0].message == "nothing was paid"
    assert [each.name for each in tmp_path.iterdir() if "groups" in each.name] == []


def test_what_stands_behind_sees_the_group_as_its_row(tmp_path):
    seen = []

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    chain = Chain(Reduce(id="all", by=["customer", "sum"]) >> Apply(id="note", function=note))
    results = run(chain, ORDERS[:3], tmp_path)
    assert [each.id for each in results] == ['["ann",3]', '["bob",5]', '["ann",4]']
    assert seen == [[each] for each in ORDERS[:3]]


def test_one_reduce_may_stand_behind_another(tmp_path):
    chain = Chain(
        Reduce(id="by_customer", by="customer", function=total)
        >> Reduce(id="by_size", by=lambda each: len(each["orders"]), function=len)
    )
    results = run(chain, ORDERS, tmp_path)
    assert [(each.id, each.values) for each in results] == [(2, (2,)), (1, (1,))]


def test_a_second_run_reduces_nothing_again_and_gives_the_same(tmp_path):
    made: list[Any] = []

    def count(orders: list[Any]) -> int:
        made.append(orders)
        return len(orders)

    chain = Chain(Reduce(id="count", by="customer", function=count))
    first = run(chain, ORDERS, tmp_path)
    assert len(made) == 3
    assert run(chain, ORDERS, tmp_path) == first
    assert len(made) == 3


def test_a_group_that_cannot_be_reduced_is_told_of_and_the_others_go_on(tmp_path):
    def strict(orders: list[Any]) -> int:
        if len(orders) < 2:
            raise ValueError("too few")
        return len(orders)

    chain = Chain(Reduce(id="count", by="customer", function=strict))
    results = run(chain, ORDERS, tmp_path)
    assert [(each.id, each.values) for each in results] == [
        ("ann", (2,)),
        ("bob", (2,)),
        ("cem", ()),
    ]
    assert results[2].errors[0].message == "too few"


def test_a_value_that_has_not_what_it_is_grouped_by_is_told_of_with_its_row(tmp_path):
    rows = [*ORDERS[:1], {"id": 9, "sum": 2}]
    failed, result = run(Chain(Reduce(id="count", by="customer", function=len)), rows, tmp_path)
    assert failed.id == 9
    assert "by is 'customer', and there is no 'customer' here" in failed.errors[0].message
    assert result.values == (1,)


def test_keys_of_other_types_are_other_groups(tmp_path):
    rows = [{"k": 1}, {"k": "1"}, {"k": None}, {"k": True}, {"k": 1}]
    results = run(Chain(Reduce(id="count", by="k", function=len)), rows, tmp_path)
    assert [(each.id, each.values) for each in results] == [
        (1, (2,)), ("1", (1,)), ("null", (1,)), ("true", (1,)),
    ]  # fmt: skip


def test_a_reduce_inside_a_path_is_refused_by_name():
    reduce = Reduce(id="sum", by="a", function=len)
    branch = Branch(id="b", choose=lambda _: "x", paths={"x": reduce})
    other = Apply(id="other", function=len)
    for wrong in (branch, (reduce | other).join("both")):
        with pytest.raises(LLMInvalidRequestError, match="sum: a reduce takes what comes from all"):
            Chain(wrong)
    with pytest.raises(TypeError, match="by is 3; a field's name"):
        Reduce(id="sum", by=3)
