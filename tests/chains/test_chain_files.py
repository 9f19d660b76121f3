"""Chains in YAML: what they may say, and where an error says that it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace.chains import Apply, Reduce, Step
from headrace.chains.load import load_chain
from headrace.contracts.errors import LLMInvalidRequestError

CODE = '''
from dataclasses import dataclass

NUMBER = 3

@dataclass
class Ticket:
    product: str
    happy: bool

def total(tickets: list[Ticket]) -> int:
    return len(tickets)

def stock(product: str) -> int:
    """How many there are."""
    return 3

def kind(value):
    return "sad"
'''
GOOD = """
engines:
  - name: small
    backend: openai
    model: gpt-4.1-mini
    endpoint: https://api.openai.com/v1
    api_key_env: OPENAI_API_KEY
models:
  Ticket: "shop_code:Ticket"
  Mood:
    type: object
    properties:
      mood: {enum: [good, bad]}
    required: [mood]
steps:
  - id: ticket
    engine: small
    user: "{{ text }}"
    output: Ticket
    format_instruction: "Only JSON by {{ schema }}"
  - id: reply
    engine: small
    user_file: reply.txt
    input: Ticket
    output: Mood
    tools: ["shop_code:stock"]
    max_tool_rounds: 3
    tool_timeout_s: 5
  - {id: moods, reduce: , by: [mood, "ticket.product"]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop_code.py").write_text(CODE)
    (tmp_path / "reply.txt").write_text("About {{ product }}")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop_code", None)
    return tmp_path


def loaded(folder: Path, text: str):
    path = folder / "chain.yaml"
    path.write_text(text)
    return load_chain(str(path))


def test_a_whole_chain_may_be_said_in_yaml(folder):
    chain, engines = loaded(folder, GOOD)
    ticket, reply, moods = chain.nodes
    assert isinstance(ticket, Step)
    assert ticket.format_instruction == "Only JSON by {{ schema }}"
    assert isinstance(reply, Step)
    assert [each.name for each in reply.tools] == ["stock"]
    assert (reply.max_tool_rounds, reply.tool_timeout_s) == (3, 5.0)
    assert isinstance(moods, Reduce)
    assert (moods.by, moods.function) == (("mood", "ticket.product"), None)
    assert engines[0].api_key_env == "OPENAI_API_KEY"


def test_engines_may_stand_in_a_mapping_too(folder):
    listed = GOOD[: GOOD.index("models:")]
    named = """
engines:
  small: {backend: openai, model: gpt-4.1-mini, endpoint: "https://api.openai.com/v1"}
"""
    chain, engines = loaded(
        folder, GOOD.replace(listed, named) + "  - {id: f, apply: 'shop_code:kind'}"
    )
    assert engines[0].name == "small"
    assert isinstance(chain.nodes[-1], Apply)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("    backend: openai\n", "    backend: opnai\n", 4, "did you mean 'openai'"),
        ("    api_key_env:", "    api_key_enf:", 7, "unknown field 'api_key_enf'"),
        ("steps:\n", "setps:\n", 15, "the file has no field 'setps'; did you mean 'steps'"),
        ("    output: Ticket\n", "    outptu: Ticket\n", 19, "steps[0] has no field 'outptu'; did you mean 'output'"),
        ("    output: Ticket\n", "    output: Tikcet\n", 19, "did you mean 'Ticket'"),
        ("    engine: small\n    user:", "    engine: smal\n    user:", 17, "ticket.engine is 'smal'; did you mean 'small'"),
        ('"shop_code:Ticket"', '"shop_code:Tickets"', 9, "has no attribute 'Tickets'"),
        ('"shop_code:Ticket"', '"shop_code:NUMBER"', 9, "models.Ticket"),
        ("    type: object\n", "    type: objekt\n", 10, "models.Mood"),
        ('    user: "{{ text }}"', '    user: "{{ text }"', 18, "ticket.user, line 1"),
        ("    user_file: reply.txt", "    user_file: replies.txt", 23, "steps[1].user_file"),
        ("    user_file: reply.txt", "    user: 3", 23, "steps[1].user is 3, must be a text"),
        ("    user_file: reply.txt", '    user: "{{ prodct }}"', 23, "names 'prodct', which nothing before it gives"),
        ("    input: Ticket", "    input: Mood", 24, "reply.input cannot be what ticket gives"),
        ("    max_tool_rounds: 3", "    max_tool_rounds: 0", 27, "must be >= 1"),
        ('["shop_code:stock"]', '["shop_code:NUMBER"]', 26, "tools[0] is a int, must be a function"),
        ('["shop_code:stock"]', '["shop_code:stock", "shop_code:stock"]', 21, "tools has 'stock' twice"),
        ("{id: moods, reduce: ", "{id: ticket, reduce: ", 29, "two nodes have the id 'ticket'"),
        ("{id: moods, reduce: ", "{id: moods, redcue: ", 29, "has no field 'redcue'; did you mean 'reduce'"),
        ('by: [mood, "ticket.product"]', "by: [mod]", 29, "moods.by is 'mod', which nothing before it gives"),
        ('by: [mood, "ticket.product"]', "by: 3", 29, "by is 3; a field's name"),
        ("    tool_timeout_s: 5\n", "    tool_timeout_s: 5\n    sampling: {temprature: 1}\n", 29, "unknown field 'temprature'"),
        ("    tool_timeout_s: 5\n", "    tool_timeout_s: 5\n    sampling: {max_tokens: many}\n", 29, "steps[1].sampling.max_tokens"),
        ('    tools: ["shop_code:stock"]', '    tools: "shop_code:stock"', 26, "must be a list"),
        ('by: [mood, "ticket.product"]}', 'by: [mood]}\n  - {id: sum, reduce: "shop_code:total", by: "shop_code:kind"}', 30, "sum.input cannot be what moods gives: it is array, where object"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_field(folder, old, new, line, said):
    with pytest.raises(LLMInvalidRequestError) as error:
        loaded(folder, GOOD.replace(old, new, 1))
    assert error.value.message.startswith(f"{folder / 'chain.yaml'}:{line}: "), error.value
    assert said in error.value.message
