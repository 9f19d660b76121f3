"""A step is asked for a whole answer where its engine can be, and types say what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import frozen
from pydantic import BaseModel

from headrace.chains import Chain, RunSettings, Step, run
from headrace.contracts.engines import EngineConfig


class Told(BaseModel):
    topic: str
    urgent: bool


class Noted(msgspec.Struct):
    topic: str
    urgent: bool


@frozen
class Kept:
    topic: str
    urgent: bool


SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "urgent": {"type": "boolean"}},
    "required": ["topic", "urgent"],
}
ROWS = [{"id": n, "text": f"message {n}"} for n in range(5)]


def ran(url: str, backend: str, output: Any, folder: Path) -> list[Any]:
    engine = EngineConfig(
        name="mock", backend=backend, model="gpt-4o-mini", endpoint=f"{url}/v1", api_key="any"
    )
    sort = Step(id="sort", engine="mock", user="About what is {{ text }}?", output=output)
    answer = Step(id="answer", engine="mock", user="{{ topic }}: {{ row.text }}", output=output)
    settings = RunSettings(run_dir=folder, engines=(engine,), concurrency=3)
    made = run(Chain(sort >> answer), ROWS, settings=settings)
    assert all(not each.errors for each in made)
    return [each.value for each in made]


@pytest.mark.parametrize("output", [Told, Noted, Kept, SCHEMA], ids=lambda each: str(each)[:20])
@pytest.mark.parametrize(("backend", "streams"), [("openai", False), ("openai-compatible", True)])
def test_whoever_is_asked_and_however_the_type_is_what_comes(
    headrace_mock, tmp_path, output, backend, streams
):
    mock = headrace_mock()
    assert ran(mock.url, backend, output, tmp_path) == [
        {"topic": "the water", "urgent": True} for _ in ROWS
    ]
    asked = [request.json for request in mock.requests]
    assert len(asked) == 2 * len(ROWS)
    assert {bool(each.get("stream")) for each in asked} == {streams}
    said = {each["messages"][-1]["content"] for each in asked}
    assert len(said) == 2 * len(ROWS)
    assert "the water: message 3" in said


def test_a_type_in_a_schemas_place_is_judged_as_that_schema_is(headrace_mock, tmp_path):
    mock = headrace_mock()
    by_type = ran(mock.url, "openai", Noted, tmp_path / "a")
    by_schema = ran(mock.url, "openai", json.loads(json.dumps(SCHEMA)), tmp_path / "b")
    assert by_type == by_schema
