"""A chain as boxes and arrows, each box with what there is to know of its node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from headrace.chains.abilities import Ability, abilities_of
from headrace.chains.engines import is_started
from headrace.chains.fitting import shown
from headrace.chains.flow import Passage, Ways, wanted_by
from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Reduce, Step
from headrace.contracts.engines import EngineConfig

Kind: TypeAlias = Literal["step", "apply", "branch", "join", "reduce"]
INPUT, OUTPUT = "", " "
"""The ids of both ends; no node has such."""


@frozen(kw_only=True)
class Box:
    """One node: what it is, what it does it with, what it takes and gives (JSON Schemas; None: not
    known), and further facts by name."""

    id: str
    kind: Kind
    by: str
    takes: Mapping[str, Any] | None
    gives: Mapping[str, Any] | None
    facts: Mapping[str, str]
    ability: Ability | None = None


@frozen
class Arrow:
    """From one box to another, by their ids; ``label`` is the path's name behind a branch."""

    start: str
    end: str
    label: str = ""


@frozen
class EngineLine:
    """An engine that the chain names."""

    name: str
    provider: str
    model: str
    life: str


@frozen
class Outline:
    """All that there is to draw."""

    name: str
    path: Path
    boxes: Mapping[str, Box]
    engines: tuple[EngineLine, ...]
    arrows: tuple[Arrow, ...] = field(init=False)

    @arrows.default
    def _arrows(self) -> tuple[Arrow, ...]:
        found: list[Arrow] = []
        for end, label in _through(self.path, [(INPUT, "")], found):
            found.append(Arrow(end, OUTPUT, label))
        return tuple(found)


def outline_of(chain: Chain, engines: Iterable[EngineConfig]) -> Outline:
    """That of ``chain``; no engine has to run for it."""
    known = tuple(engines)
    abilities = abilities_of((each for each in chain.nodes if isinstance(each, Step)), known)
    boxes = {
        node.id: _box(node, chain.passages[node.id], abilities.get(node.id)) for node in chain.nodes
    }
    return Outline(chain.name, chain.path, boxes, _lines(chain, known, abilities))


def plain_outline(outline: Outline) -> dict[str, Any]:
    """``outline`` ready for JSON."""
    return {
        "name": outline.name,
        "engines": [
            {"name": e.name, "provider": e.provider, "model": e.model, "life": e.life}
            for e in outline.engines
        ],
        "nodes": [_plain_box(box) for box in outline.boxes.values()],
        "arrows": [
            {
                "from": arrow.start if arrow.start != INPUT else None,
                "to": arrow.end if arrow.end != OUTPUT else None,
                **({"path": arrow.label} if arrow.label else {}),
            }
            for arrow in outline.arrows
        ],
    }


def _plain_box(box: Box) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "id": box.id,
        "kind": box.kind,
        "by": box.by,
        "takes": box.takes,
        "gives": box.gives,
        "facts": dict(box.facts),
    }
    ability = box.ability
    if ability is not None:
        from attrs import asdict

        plain["ability"] = {
            "provider": ability.provider,
            "model": ability.model,
            "mode": ability.mode,
            "left_out": dict(ability.left_out),
            "ignored": list(ability.ignored),
            "model_can": asdict(ability.capabilities),
        }
    return plain


def _box(node: Node, passage: Passage, ability: Ability | None) -> Box:
    facts = {}
    takes = wanted_by(node)
    if takes is not None:
        facts["takes"] = shown(takes)
    gives = _one(passage.after)
    if gives is not None:
        facts["gives"] = shown(gives)
    kind, by, more = _said(node)
    facts.update(more)
    if ability is not None:
        facts.update(_of_ability(ability))
    return Box(id=node.id, kind=kind, by=by, takes=takes, gives=gives, facts=facts, ability=ability)


def _said(node: Node) -> tuple[Kind, str, dict[str, str]]:
    if isinstance(node, Step):
        tools = ", ".join(each.name for each in node.tools)
        more = {"tools": f"{tools} (at most {node.max_tool_rounds} rounds)"} if tools else {}
        return "step", node.engine, more
    if isinstance(node, Apply):
        how = {"one": {}, "many": {"makes": "several of one"}, "filter": {"makes": "a choice"}}
        return "apply", _name_of(node.function), how[node.how]
    if isinstance(node, Branch):
        return "branch", _name_of(node.choose), {}
    if isinstance(node, Reduce):
        by = node.by if not callable(node.by) else _name_of(node.by)
        grouped = {"groups by": by if isinstance(by, str) else ", ".join(by)}
        name = "a list of the group" if node.function is None else _name_of(node.function)
        return "reduce", name, grouped
    assert isinstance(node, Join)
    return "join", "whatever came" if node.partial else "what came on all paths", {}


def _of_ability(ability: Ability) -> dict[str, str]:
    facts = {}
    if ability.schema is not None:
        facts["schema"] = ability.schema
    can = ability.capabilities
    if not can.known:
        facts["model"] = f"{ability.model}, of which we know nothing"
    else:
        has = {
            "reasoning": can.reasoning,
            "vision": can.vision,
            "tools": can.tool_calling != "none",
        }
        able = ", ".join(name for name, there in has.items() if there)
        facts["model"] = f"{ability.model} ({able})" if able else ability.model
    if ability.left_out:
        facts["left out"] = "; ".join(f"{n}: {why}" for n, why in ability.left_out.items())
    if ability.ignored:
        facts["ignored"] = f"{', '.join(ability.ignored)}, by {ability.provider}"
    return facts


def _one(ways: Ways) -> Mapping[str, Any] | None:
    """The type of what comes on ``ways``, where it is known."""
    schemas = [way.schema for way in ways]
    known = [each for each in schemas if each is not None]
    if not known or len(known) < len(schemas):
        return None
    return known[0] if len(known) == 1 else {"anyOf": known}


def _lines(
    chain: Chain, engines: tuple[EngineConfig, ...], abilities: Mapping[str, Ability]
) -> tuple[EngineLine, ...]:
    known = {each.name: each for each in engines}
    found: dict[str, EngineLine] = {}
    for node in chain.nodes:
        if isinstance(node, Step) and node.engine not in found:
            ability, config = abilities[node.id], known.get(node.engine)
            found[node.engine] = EngineLine(
                node.engine, ability.provider, ability.model, _life_of(config)
            )
    return tuple(found.values())


def _life_of(config: EngineConfig | None) -> str:
    if config is None or not is_started(config):
        return "runs already"
    return "started for its turn" if config.lazy else "started for the whole run"


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return str(name).rpartition("<locals>.")[2]


def _through(path: Path, ends: list[tuple[str, str]], found: list[Arrow]) -> list[tuple[str, str]]:
    for place in path.places:
        if isinstance(place, Group):
            ends = [out for each in place.paths for out in _through(each, ends, found)]
            continue
        found += [Arrow(start, place.id, label) for start, label in ends]
        ends = [(place.id, "")]
        if isinstance(place, Branch):
            ends = [
                out
                for name, way in place.paths.items()
                for out in _through(Path.of(way), [(place.id, name)], found)
            ]
    return ends
