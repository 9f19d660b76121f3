"""``headrace inspect``: the graph in four forms, and what of its settings an engine can carry out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headrace.chains import Apply, Branch, Chain, Reduce, Step
from headrace.chains.abilities import abilities_of, ability_of, left_out
from headrace.chains.drawing.outline import outline_of, plain_outline
from headrace.chains.drawing.svg import svg_of
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.requests import LLMChatParams

CHAIN = """
name: tickets
engines:
  - {name: small, backend: vllm, model: Qwen/Qwen3-8B}
  - {name: gpt, backend: openai, model: gpt-4.1-mini, api_key: "very secret"}
models:
  Ticket: {type: object, properties: {product: {type: string}}, required: [product]}
steps:
  - {id: ticket, engine: small, user: "{{ text }}", output: Ticket}
  - parallel:
      - {id: short, engine: gpt, user: "{{ product }}", sampling: {top_k: 3, reasoning_effort: low}}
      - {id: mood, engine: corp-model/x, user: "<b> & {{ product }}", output: Ticket}
  - join: end
  - {id: total, reduce: "builtins:len", by: row.customer}
"""


def step(engine: str, **more: object) -> Step:
    return Step(id="s", engine=engine, user="u", **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    said = CHAIN.replace("corp-model/x", "deepseek/deepseek-chat")
    (tmp_path / "chain.yaml").write_text(said)
    return tmp_path


def inspect(folder: Path, *more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "inspect", "chain.yaml", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "very secret" not in done.stdout
    return done.stdout


def test_the_terminal_shows_each_node_with_types_engine_and_abilities(folder):
    said = inspect(folder)
    for line in (
        "engine small: vllm/Qwen/Qwen3-8B, started for its turn",
        "● ticket  (step: small)",
        "gives: {product}",
        "schema: guided by the engine",
        "beside one another",
        "left out: top_k: openai has no such setting; reasoning_effort: gpt-4.1-mini has no reasoning",
        "schema: JSON mode, instructed and judged",
        "● end  (join: what came on all paths)",
        "groups by: row.customer",
    ):
        assert line in said, said


def test_mermaid_has_every_node_and_arrow_and_no_reserved_name(folder):
    said = inspect(folder, "--format", "mermaid")
    assert said.startswith("flowchart TD\n")
    assert "n_short --> n_end" in said
    assert "  input --> n_ticket" in said
    assert "<b>end</b>" in said


def test_json_has_the_types_whole(folder):
    said = json.loads(inspect(folder, "--format", "json"))
    assert {"from": "end", "to": "total"} in said["arrows"]
    ticket = next(each for each in said["nodes"] if each["id"] == "ticket")
    assert ticket["gives"]["required"] == ["product"]
    assert ticket["ability"]["mode"] == "schema"


def test_svg_goes_into_a_file_with_a_box_for_each_node(folder):
    assert inspect(folder, "--format", "svg", "-o", "graph.svg") == ""
    root = ElementTree.fromstring((folder / "graph.svg").read_text())
    ids = [each.text for each in root.iter() if each.get("class") == "id"]
    assert sorted(ids) == ["end", "input", "mood", "output", "short", "ticket", "total"]


def test_in_the_svg_no_box_lies_on_another():
    def apply(id: str) -> Apply:
        return Apply(id=id, function=lambda value: value)

    branch = Branch(
        id="b", choose=lambda _: "x", paths={"x": apply("x"), "y": apply("y1") >> apply("y2")}
    )
    path = apply("a") >> ((apply("c") >> branch) | apply("d")) >> Reduce(id="r", by="n")
    outline = outline_of(Chain(path), ())
    assert len(plain_outline(outline)["arrows"]) == 11
    root = ElementTree.fromstring(svg_of(outline))
    boxes = [
        tuple(float(each.get(name) or 0) for name in ("x", "y", "width", "height"))
        for each in root.iter()
        if each.tag.endswith("rect")
    ]
    assert len(boxes) == 10
    for one, (x, y, width, height) in enumerate(boxes):
        for u, v, w, h in boxes[one + 1 :]:
            assert x + width < u or u + w < x or y + height < v or v + h < y


@pytest.mark.parametrize(
    ("engine", "more", "mode"),
    [
        ("vllm/some-model", {}, "schema"),
        ("openai/gpt-4.1-mini", {}, "schema"),
        ("openai/gpt-4.1-mini", {"tools": True}, "prompt"),
        ("anthropic/claude-3-haiku-20240307", {}, "tool"),
        ("deepseek/deepseek-chat", {}, "json"),
        ("openai-compatible/who-knows", {}, "prompt"),
    ],
)
def test_the_way_in_which_an_object_is_asked_for_is_known_before(engine, more, mode):
    if more:

        def today() -> str:
            """The date."""
            return "2026-01-01"

        more = {"tools": [today]}
    assert ability_of(step(engine, output={"type": "object"}, **more), {}).mode == mode


def test_what_an_engine_cannot_carry_out_is_left_out_and_told():
    sampling = LLMChatParams(reasoning_effort="low", top_k=3, temperature=0.5)
    ability = ability_of(step("openai/gpt-4.1-mini", sampling=sampling), {})
    assert ability.sampling == LLMChatParams(temperature=0.5)
    assert left_out({"s": ability}) == [
        "s: top_k is left out: openai has no such setting",
        "s: reasoning_effort is left out: gpt-4.1-mini has no reasoning",
    ]
    able = ability_of(step("openai/gpt-5-mini", sampling=LLMChatParams(reasoning_effort="low")), {})
    assert (able.left_out, able.sampling.reasoning_effort) == ({}, "low")


def test_tools_that_an_engine_does_not_know_are_refused_before_anything_runs():
    def today() -> str:
        """The date."""
        return "2026-01-01"

    with pytest.raises(LLMCapabilityError, match=r"s\.tools cannot be used: .*tool calling"):
        ability_of(step("openai/o1-mini", tools=[today]), {})


def test_an_engine_of_the_file_is_known_by_its_row():
    engine = EngineConfig(name="e", backend="ollama", model="qwen3:8b")
    (ability,) = abilities_of([step("e", output={"type": "object"})], [engine]).values()
    assert (ability.provider, ability.model) == ("ollama", "qwen3:8b")
