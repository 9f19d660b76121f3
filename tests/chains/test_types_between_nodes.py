"""Types of neighbouring nodes: what can never fit is told of before anything runs, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import attrs
import msgspec
import pydantic
import pytest

from headrace.chains import Apply, Branch, Chain, Reduce, Step
from headrace.chains.fitting import misfit, shown
from headrace.contracts.errors import LLMInvalidRequestError

from .test_graphs import run
from .test_tools_in_steps import Asked, says


class PydanticTicket(pydantic.BaseModel):
    product: str
    urgent: bool = False


class MsgspecTicket(msgspec.Struct):
    product: str
    urgent: bool = False


@attrs.frozen
class AttrsTicket:
    product: str
    urgent: bool = False


@dataclass
class DataTicket:
    product: str
    urgent: bool = False


TICKETS = (PydanticTicket, MsgspecTicket, AttrsTicket, DataTicket)
every_kind = pytest.mark.parametrize("ticket", TICKETS)
OTHER = {
    "type": "object",
    "properties": {"product": {"type": "string"}, "city": {"type": "string"}},
    "required": ["product", "city"],
}


def step(id: str, **more: Any) -> Step:
    return Step(id=id, engine="e", user="u", **more)


def refused(what: Any) -> LLMInvalidRequestError:
    with pytest.raises(LLMInvalidRequestError) as error:
        Chain(what)
    return error.value


@every_kind
def test_a_required_field_that_nothing_gives_is_named_with_both_nodes(ticket):
    error = refused(step("ticket", output=ticket) >> step("reply", input=OTHER))
    assert error.message == (
        "reply.input cannot be what ticket gives: the field 'city' is required, and there is none; "
        "there: product, urgent"
    )
    assert error.param == "reply.input"


@every_kind
def test_a_class_is_what_a_function_is_handed_and_may_give(tmp_path, ticket):
    def made(row: dict[str, Any]) -> Any:
        return ticket(product=row["name"])

    def hurry(one: Any) -> Any:
        assert type(one) is ticket
        return ticket(product=one.product, urgent=True)

    hurry.__annotations__ = {"one": ticket, "return": ticket}
    made.__annotations__ = {"return": ticket}
    chain = Chain(Apply(id="made", function=made) >> Apply(id="hurry", function=hurry))
    (result,) = run(chain, [{"name": "lamp"}], tmp_path)
    assert result.values == ({"product": "lamp", "urgent": True},)
    assert "'city' is required" in refused(chain.path >> step("s", input=OTHER)).message


@every_kind
def test_each_of_many_is_of_the_annotations_item_type(tmp_path, ticket):
    def split(row: dict[str, Any]) -> Any:
        return [ticket(product=each) for each in row["names"]]

    def total(tickets: Any) -> int:
        assert all(type(each) is ticket for each in tickets)
        return len(tickets)

    split.__annotations__ = {"return": Iterable[ticket]}
    total.__annotations__ = {"tickets": list[ticket], "return": int}
    split_up = Apply(id="split", function=split, how="many")
    reduce = Reduce(id="total", by="urgent", function=total)
    (result,) = run(Chain(split_up >> reduce), [{"names": ["a", "b"]}], tmp_path)
    assert result.values == (2,)
    assert "'city'" in refused(split_up >> step("s", input=OTHER)).message
    assert "object" in refused(split_up >> reduce >> step("s", input=OTHER)).message


def test_text_is_no_object():
    assert (
        "it is string, where object is wanted"
        in refused(step("a") >> step("b", input=OTHER)).message
    )


def test_a_function_that_says_nothing_may_give_anything():
    Chain(step("a") >> Apply(id="f", function=lambda value: value) >> step("b", input=OTHER))


def test_a_filter_lets_the_type_through():
    keep = Apply(id="keep", how="filter", function=lambda value: True)
    assert (
        "ticket gives"
        in refused(step("ticket", output=DataTicket) >> keep >> step("b", input=OTHER)).message
    )


def test_each_path_of_a_branch_is_looked_at():
    branch = Branch(
        id="kind",
        choose=lambda _: "x",
        paths={"x": step("x", output=OTHER), "y": step("y", output=DataTicket)},
    )
    assert "what y gives" in refused(branch >> step("b", input=OTHER)).message
    inner = Branch(id="kind", choose=lambda _: "x", paths={"x": step("x", input=OTHER)})
    assert (
        "x.input cannot be what ticket gives"
        in refused(step("ticket", output=DataTicket) >> inner).message
    )


def test_a_join_gives_what_its_paths_give_by_name():
    both = (step("ticket", output=DataTicket) | step("mood")).join("both")

    def wants(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(properties)}

    Chain(both >> step("b", input=wants(ticket={"type": "object"}, mood={"type": "string"})))
    assert "'moods' is required" in refused(both >> step("b", input=wants(moods={}))).message
    wrong = wants(ticket=wants(product={"type": "integer"}))
    assert "its field 'ticket.product' is string" in refused(both >> step("b", input=wrong)).message


def test_a_join_of_a_path_that_makes_several_may_give_a_list_or_not():
    several = Apply(id="several", how="many", function=lambda value: [1])
    both = (several | step("mood")).join("both")
    for kind in ("array", "integer"):
        Chain(
            both >> step("b", input={"type": "object", "properties": {"several": {"type": kind}}})
        )


def test_names_in_templates_are_known_behind_text_and_behind_joins():
    with pytest.raises(LLMInvalidRequestError) as error:
        Chain(step("a") >> Step(id="b", engine="e", user="{{ txt }}"))
    assert (error.value.param, "names 'txt'" in error.value.message) == ("b.user", True)
    Chain(step("a") >> Step(id="b", engine="e", user="{{ value }} {{ a }} {{ row.txt }}"))


@every_kind
def test_an_answer_is_read_as_a_class_and_handed_on_as_one(tmp_path, ticket):
    def hurry(one: Any) -> Any:
        assert type(one) is ticket
        return one.product

    hurry.__annotations__ = {"one": ticket, "return": str}
    asked = Asked(lambda body: says('{"product": "lamp", "urgent": true}'))
    step = Step(id="s", engine="e", user="u", output=ticket)
    (result,) = asked.run(step >> Apply(id="hurry", function=hurry), tmp_path)
    assert result.values == ("lamp",)


@every_kind
def test_a_value_that_is_not_a_steps_input_fails_alone(tmp_path, ticket):
    asked = Asked(lambda body: says("fine"))
    step = Step(id="s", engine="e", user="{{ product }}", input=ticket)
    rows = [{"product": "lamp"}, {"product": 3}, {"produce": "lamp"}]
    results = asked.run(step, tmp_path, rows)
    assert [each.values for each in results] == [("fine",), (), ()]
    assert "s.input is not what comes: $.product" in results[1].errors[0].message
    assert "product" in results[2].errors[0].message
    assert len(asked.bodies) == 1


@every_kind
def test_a_branch_and_what_groups_are_made_by_are_handed_the_class(tmp_path, ticket):
    def choose(one: Any) -> str | None:
        assert type(one) is ticket
        return "hurry" if one.urgent else None

    def product(one: Any) -> str:
        assert type(one) is ticket
        return str(one.product)

    choose.__annotations__ = product.__annotations__ = {"one": ticket}
    same = Apply(id="same", function=lambda value: value)
    chain = Branch(id="b", choose=choose, paths={"hurry": same}) >> Reduce(
        id="r", by=product, function=len
    )
    rows = [{"product": "a", "urgent": True}, {"product": "a"}, {"product": "b", "urgent": True}]
    assert [each.values for each in run(Chain(chain), rows, tmp_path)] == [(1,), (1,)]


def test_an_async_generator_may_make_several(tmp_path):
    async def split(row: dict[str, Any]) -> AsyncIterator[int]:
        for each in range(row["n"]):
            yield each

    chain = Chain(Apply(id="split", function=split, how="many"))
    (result,) = run(chain, [{"n": 3}], tmp_path)
    assert result.values == (0, 1, 2)


Node = dict[str, Any]
NODE: Node = {
    "$ref": "#/$defs/N",
    "$defs": {
        "N": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/N"}, "n": {"type": "integer"}},
            "required": ["next", "n"],
        }
    },
}


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ({"type": "integer"}, {"type": "number"}, True),
        ({"type": "number"}, {"type": "integer"}, True),
        ({"type": "string"}, {"type": ["integer", "null"]}, False),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, True),
        ({"enum": ["a", "b"]}, {"enum": ["c"]}, False),
        ({"const": 3}, {"type": "integer", "maximum": 2}, False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "array"}, False),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array"}, True),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "integer"}}, False),
        ({"type": "object", "additionalProperties": True, "properties": {}}, OTHER, True),
        ({"type": "object"}, OTHER, True),
        ({}, OTHER, True),
        (NODE, NODE, True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, OTHER, False),
        ({**OTHER}, {"allOf": [OTHER, {"required": ["zip"]}]}, False),
        ({**OTHER}, {"not": OTHER}, True),
        ({**OTHER}, {**OTHER, "properties": {"city": {}}, "required": [], "additionalProperties": False}, False),
    ],
)  # fmt: skip
def test_only_what_is_certain_is_told(given, wanted, fits):
    assert (misfit(given, wanted) is None) is fits


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (PydanticTicket, "PydanticTicket"),
        (DataTicket, "DataTicket"),
        (OTHER, "{product, city}"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        (Literal["a", "b"], "string"),
        ({}, "anything"),
    ],
)
def test_types_are_shown_in_few_words(output, said):
    from headrace.chains.nodes import schema_of

    assert shown(schema_of(output)) == said
