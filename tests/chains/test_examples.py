"""The examples run as their page says, with the model in the box; and one of them among faults."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.served import Served

from .answering import answering

EXAMPLES = Path(__file__).parents[2] / "examples" / "chains"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)]+)\)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to run in."""
    shutil.copytree(EXAMPLES, tmp_path / "chains", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "chains"


def ask_at(folder: Path, url: str) -> None:
    for path in (*folder.glob("*.yaml"), *folder.glob("*.py")):
        path.write_text(path.read_text().replace("http://127.0.0.1:8000/v1", url))


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": path},
    )


def block(chain: str) -> str:
    (text,) = [
        each for each in BLOCK.findall((EXAMPLES / "README.md").read_text()) if chain in each
    ]
    return text


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_example_is_on_the_page_and_every_link_leads_somewhere() -> None:
    page = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".yaml", ".py"):
            assert f"({path.name})" in page
    for target in LINK.findall(page):
        assert (EXAMPLES / target).exists(), target


@pytest.fixture
def ran(folder: Path, gateway: Served, request: pytest.FixtureRequest) -> Path:
    """The folder in which what the page says of a chain was run."""
    ask_at(folder, f"{gateway.url}/v1")
    done = run(folder, block(request.param))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return folder


@pytest.mark.parametrize("ran", ["extract.yaml"], indirect=True)
def test_messages_become_a_table_of_orders(ran: Path) -> None:
    with (ran / "orders.csv").open() as file:
        orders = list(csv.DictReader(file))
    assert [order["id"] for order in orders] == ["1", "2"]
    assert all(1 <= int(order["count"]) <= 99 for order in orders)
    assert {order["urgent"] for order in orders} <= {"true", "false"}


@pytest.mark.parametrize("ran", ["extract:chain"], indirect=True)
def test_messages_become_lines_by_a_chain_in_python(ran: Path) -> None:
    assert all(re.match(r"\d+ x .", each["line"]) for each in lines(ran / "lines.jsonl"))


@pytest.mark.parametrize("ran", ["questions.yaml"], indirect=True)
def test_questions_are_answered_and_the_same_ones_from_the_cache(ran: Path) -> None:
    answers = lines(ran / "again.jsonl")
    assert [each["id"] for each in answers] == ["opened", "closed"]
    assert all(set(each["output"]) == {"found", "answer"} for each in answers)


@pytest.mark.parametrize("ran", ["branch_and_join.yaml"], indirect=True)
def test_letters_are_answered_by_one_of_the_two(ran: Path) -> None:
    for reply in lines(ran / "replies.jsonl"):
        (who,) = reply["output"]
        assert who in ("clerk", "head")


@pytest.mark.parametrize("ran", ["judge_and_improve"], indirect=True)
def test_texts_are_judged_and_written_anew_so_often_at_most(ran: Path) -> None:
    texts = lines(ran / "texts.jsonl")
    assert len(texts) == 2
    for each in texts:
        assert each["text"]
        assert each["round"] == 3 or each["verdict"]["points"] >= 4


def test_questions_are_answered_however_often_the_server_fails(folder: Path) -> None:
    """Busy at first, then gone in the middle, then an answer that is no such object."""

    def faulty(prompt: str, before: int) -> object:
        good = json.dumps({"found": True, "answer": "in 1824"})
        return [429, "reset", "I think that it was in 1824.", good][min(before, 3)]

    with answering(faulty) as server:
        ask_at(folder, server.url)
        done = run(folder, "headrace run questions.yaml questions.jsonl -o a.jsonl --shape value")
    assert done.returncode == 0, done.stderr
    assert lines(folder / "a.jsonl") == [{"found": True, "answer": "in 1824"}] * 2


def test_a_text_that_is_good_goes_down_no_further_round(folder: Path) -> None:
    def judge(prompt: str, before: int) -> str:
        if not prompt.startswith("From 1 to 5"):
            return f"<{prompt}>"
        good = "Better than" in prompt or "lamp" in prompt
        return json.dumps({"points": 5 if good else 2, "advice": "be brief"})

    with answering(judge) as server:
        ask_at(folder, server.url)
        done = run(folder, block("judge_and_improve"))
    assert done.returncode == 0, done.stderr
    lamp, tea = lines(folder / "texts.jsonl")
    assert (lamp["round"], tea["round"]) == (1, 2)
    assert "Mind this: be brief" in tea["text"]
