"""The Open Responses specification as a judge of what we write (PyPI ``openresponses-types``)."""

from __future__ import annotations

import json
from typing import Any

import openresponses_types as spec

EVENTS = {
    next(iter(model.model_fields["type"].annotation)).value: model  # type: ignore[arg-type,union-attr]
    for name, model in vars(spec).items()
    if name.endswith("StreamingEvent")
}
"""Every event of the specification by its type."""


def check_response(wire: dict[str, Any]) -> None:
    """Fails where ``wire`` is no response object of the specification, in all its fields."""
    spec.ResponseResource.model_validate(_as_generated(wire))
    missing = spec.ResponseResource.model_fields.keys() - wire.keys()
    assert not missing


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream; its last line is ``[DONE]`` unless it broke off."""
    found = []
    for block in stream.decode().replace("\r\n", "\n").strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        if lines["data"] == "[DONE]":
            continue
        found.append(json.loads(lines["data"]))
        assert lines["event"] == found[-1]["type"]
    return found


def check_events(stream: bytes) -> list[dict[str, Any]]:
    """The events of ``stream``, each valid, in the order that the specification asks for."""
    found = events(stream)
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    assert [each["type"] for each in found[:2]] == ["response.created", "response.in_progress"]
    opened: dict[int, list[str]] = {}
    for each in found:
        model = EVENTS[each["type"]]
        fitting = dict(each)
        if "response" in each:
            check_response(each["response"])
            fitting["response"] = _as_generated(each["response"])
        model.model_validate(fitting)
        _follow(each, opened)
    assert all(steps[-1] == "output_item.done" for steps in opened.values())
    last = found[-1]
    assert last["type"] in ("response.completed", "response.incomplete")
    assert last["type"].endswith(last["response"]["status"])
    items = [each["item"] for each in found if each["type"] == "response.output_item.done"]
    assert sorted(map(json.dumps, items)) == sorted(map(json.dumps, last["response"]["output"]))
    return found


def _follow(event: dict[str, Any], opened: dict[int, list[str]]) -> None:
    """An item's events come between its beginning and its end, and a part's between its own."""
    if "output_index" not in event:
        return
    kind = event["type"].removeprefix("response.")
    steps = opened.setdefault(event["output_index"], [])
    if kind == "output_item.added":
        assert steps == []
        assert event["output_index"] == len(opened) - 1
    else:
        assert steps
        assert steps[-1] != "output_item.done"
    if kind.endswith("part.done"):
        assert steps[-1].endswith(("text.done", "refusal.done"))
    steps.append(kind)


def _as_generated(response: dict[str, Any]) -> dict[str, Any]:
    """The package's generator took ``schema`` (an object or null) for null alone."""
    form = response["text"]["format"]
    if form.get("schema") is None:
        return response
    return {**response, "text": {**response["text"], "format": {**form, "schema": None}}}
