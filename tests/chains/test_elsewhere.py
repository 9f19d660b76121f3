"""A chain that goes to another process is the same there."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from headrace.chains import Apply, Branch, Chain, Reduce, Step


class Place(msgspec.Struct):
    name: str


def look_up(name: str) -> str:
    """What is known of a place."""
    return name


def words(value: Any) -> list[str]:
    return str(value).split()


def kind(value: Place) -> str:
    return "far" if value.name else "near"


def all_kinds() -> Chain:
    place = Step(
        id="place",
        engine="openai/m",
        user="where is {{ text }}",
        system="short",
        output=Place,
        tools=[look_up],
        format_instruction="as {{ schema }}",
    )
    ways = Branch(
        id="kind",
        choose=kind,
        paths={"far": Step(id="far", engine="openai/m", user="{{ name }}")},
    )
    beside = (
        Step(id="one", engine="openai/m", user="one") | Apply(id="two", function=words, how="many")
    ).join("both")
    return Chain(place >> ways >> beside >> Reduce(id="all", by="one"), name="places")


def test_a_chain_is_the_same_behind_pickle():
    chain = all_kinds()
    there = pickle.loads(pickle.dumps(chain))
    assert there.name == "places"
    assert there.whole_mark == chain.whole_mark
    assert [node.id for node in there.nodes] == [node.id for node in chain.nodes]
    assert [there.mark(node) for node in there.nodes] == [chain.mark(n) for n in chain.nodes]
