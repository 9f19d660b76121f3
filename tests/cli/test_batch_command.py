"""``headrace batch``: a file of requests at each vendor's batch API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from chains.batch_vendors import Vendors, vendors
from headrace.cli.main import app_of

VENDORS = ("openai", "anthropic", "mistral")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendors]:
    for name in VENDORS:
        monkeypatch.setenv(f"{name.upper()}_API_KEY", "k")
    with vendors(lambda prompt, before: 400 if prompt == "bad" else f"<{prompt}>") as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(line(f"row-{n}", f"text {n}") for n in range(5)))
    return path


def line(custom_id: str, text: str, **more: Any) -> str:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    whole = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps({**whole, **more}) + "\n"


def batch(server: Vendors, vendor: str, *words: str) -> Result:
    words = ("batch", *words, "--provider", vendor, "--base-url", server.url(vendor))
    return CliRunner().invoke(app_of(("run", "batch")), words)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_file_is_handed_in_looked_at_and_fetched(server, file, vendor, tmp_path):
    made = batch(server, vendor, "submit", str(file))
    assert made.exit_code == 0, made.exception
    name = json.loads(made.stdout)["batch_id"]
    waited = batch(server, vendor, "fetch", name, "--wait", "-o", str(tmp_path / "out.jsonl"))
    assert waited.exit_code == 0, waited.exception
    lines = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert sorted(each["custom_id"] for each in lines) == [f"row-{n}" for n in range(5)]
    told = json.loads(batch(server, vendor, "status", name).stdout)
    assert (told["phase"], told["counts"]["succeeded"]) == ("completed", 5)


def test_some_without_an_answer_end_it_with_status_3(server, file):
    file.write_text(line("a", "good") + line("b", "bad"))
    name = json.loads(batch(server, "openai", "submit", str(file)).stdout)["batch_id"]
    fetched = batch(server, "openai", "fetch", name, "--wait")
    assert fetched.exit_code == 3
    assert len(fetched.stdout.splitlines()) == 2


def test_a_batch_that_has_not_ended_is_not_fetched_and_can_be_cancelled(server, file, tmp_path):
    server.ready.clear()
    name = json.loads(batch(server, "openai", "submit", str(file)).stdout)["batch_id"]
    early = batch(server, "openai", "fetch", name, "-o", str(tmp_path / "out.jsonl"))
    assert "in_progress" in str(early.exception)
    assert not list(tmp_path.glob("out*"))
    assert json.loads(batch(server, "openai", "cancel", name).stdout)["phase"] == "cancelling"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no requests"),
        ("nonsense\n", "line 1"),
        (line("a", "x") + "{}\n", "line 2"),
        (line("a", "x") + line("a", "y"), "twice"),
        (line("a", "x", body={}), "body.model"),
    ],
)
def test_a_file_that_is_wrong_is_refused_before_anything_is_sent(server, file, text, told):
    file.write_text(text)
    done = batch(server, "openai", "submit", str(file))
    assert done.exit_code == 1
    assert told in str(done.exception)
    assert server.seen == []
