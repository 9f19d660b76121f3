"""Steps whose model may call functions: what it is told, and what becomes of the row."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from headrace.chains import Chain, Result, RunSettings, Step, arun
from headrace.client.async_client import AsyncClient
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport

Model = Any
"""From a request's body to the answer's message."""


class City(Struct):
    name: str
    country: str = "DE"


def weather(city: City, days: int = 1) -> dict[str, Any]:
    """The weather that is coming.

    Not for the model.
    """
    if city.name == "Atlantis":
        raise LookupError("no such city")
    return {"city": city.name, "celsius": [20] * days}


async def clock() -> str:
    """What time it is."""
    await asyncio.sleep(0)
    return "noon"


def sleepy() -> str:
    """Takes its time."""
    time.sleep(1)
    return "late"


def calls(*wanted: tuple[str, object]) -> dict[str, Any]:
    made = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": said if isinstance(said, str) else json.dumps(said),
            },
        }
        for place, (name, said) in enumerate(wanted)
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def results_in(body: dict[str, Any]) -> list[str]:
    return [each["content"] for each in body["messages"] if each["role"] == "tool"]


class Asked:
    """A client whose model is a function, and what it was asked."""

    def __init__(self, model: Model) -> None:
        self.bodies: list[dict[str, Any]] = []

        def answer(request: Any) -> ScriptedAnswer:
            body = json.loads(request.body)
            self.bodies.append(body)
            message = model(body)
            ended = "tool_calls" if message.get("tool_calls") else "stop"
            usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
            frame = {"id": "c", "created": 1, "model": "m", "usage": usage}
            if body.get("stream"):
                delta = {
                    **message,
                    "tool_calls": [
                        {**each, "index": i}
                        for i, each in enumerate(message.get("tool_calls") or ())
                    ],
                }
                choice = {"index": 0, "delta": delta, "finish_reason": ended}
                said = {**frame, "object": "chat.completion.chunk", "choices": [choice]}
                data = f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n".encode()
                return ScriptedAnswer(headers=(("content-type", "text/event-stream"),), body=data)
            choice = {"index": 0, "message": message, "finish_reason": ended}
            said = {**frame, "object": "chat.completion", "choices": [choice]}
            return ScriptedAnswer(
                headers=(("content-type", "application/json"),), body=json.dumps(said).encode()
            )

        self.client = AsyncClient(
            "m", base_url="http://there/v1", transport=ScriptedTransport(answer)
        )

    def run(self, what: Any, folder: Path, rows: int | list[dict[str, Any]] = 1) -> list[Result]:
        async def all_of_them() -> list[Result]:
            settings = RunSettings(run_dir=folder, clients={"e": self.client}, concurrency=2)
            given = [{"number": i} for i in range(rows)] if isinstance(rows, int) else rows
            return [each async for each in arun(Chain(what), given, settings=settings)]

        return asyncio.run(all_of_them())


def step(*tools: Any, **more: Any) -> Step:
    return Step(id="s", engine="e", user="Row {{ number }}", tools=list(tools), **more)


def test_a_models_calls_are_made_and_told_until_it_answers(tmp_path):
    def model(body: dict[str, Any]) -> dict[str, Any]:
        told = results_in(body)
        if not told:
            return calls(("weather", {"city": {"name": "Ulm"}, "days": 2}), ("clock", {}))
        return says(" and ".join(told))

    asked = Asked(model)
    (result,) = asked.run(step(weather, clock), tmp_path)
    assert result.values == ('{"celsius":[20,20],"city":"Ulm"} and noon',)
    (tool, _) = (each["function"] for each in asked.bodies[0]["tools"])
    assert (tool["name"], tool["description"]) == ("weather", "The weather that is coming.")
    assert tool["parameters"]["required"] == ["city"]


def test_the_answer_is_kept_as_one_and_a_second_run_calls_nothing(tmp_path):
    made: list[int] = []

    def note(number: int) -> str:
        made.append(number)
        return "noted"

    def model(body: dict[str, Any]) -> dict[str, Any]:
        return says("done") if results_in(body) else calls(("note", {"number": 7}))

    asked = Asked(model)
    first = asked.run(step(note), tmp_path, rows=3)
    assert made == [7, 7, 7]
    again = Asked(model)
    assert again.run(step(note), tmp_path, rows=3) == first
    assert (made, again.bodies) == ([7, 7, 7], [])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("wether", {}), "there is no tool 'wether'; there are: weather, sleepy"),
        (("weather", {"city": {"name": "Atlantis"}}), "LookupError: no such city"),
        (("weather", {"days": 2}), '"city" is a required property'),
        (("weather", {"city": {"name": "Ulm"}, "days": "two"}), '$.days: "two" is not of type'),
        (("weather", {"city": {"name": "Ulm"}, "day": 2}), "'day' was unexpected"),
        (("weather", "{not json"), "the arguments are not JSON"),
        (("sleepy", {}), "sleepy took longer than 0.05 s"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_to_the_model(tmp_path, call, told):
    def model(body: dict[str, Any]) -> dict[str, Any]:
        return says(results_in(body)[0]) if results_in(body) else calls(call)

    (result,) = Asked(model).run(step(weather, sleepy, tool_timeout_s=0.05), tmp_path)
    assert told in result.values[0]


def test_a_model_that_never_answers_fails_its_row_alone(tmp_path):
    def model(body: dict[str, Any]) -> dict[str, Any]:
        endless = "Row 1" in json.dumps(body)
        return calls(("clock", {})) if endless else says("at once")

    asked = Asked(model)
    results = asked.run(step(clock, max_tool_rounds=2), tmp_path, rows=3)
    assert [each.values for each in results] == [("at once",), (), ("at once",)]
    (failed,) = results[1].errors
    assert "max_tool_rounds=2" in failed.message
    assert len([b for b in asked.bodies if "Row 1" in json.dumps(b)]) == 3


def test_an_object_is_asked_for_in_words_beside_tools_and_judged(tmp_path):
    def model(body: dict[str, Any]) -> dict[str, Any]:
        if not results_in(body):
            return calls(("clock", {}))
        wrong = not body["messages"][-1]["content"].startswith("That is not what")
        return says('{"time": 12}' if wrong else '{"time": "noon"}')

    output = {
        "type": "object",
        "properties": {"time": {"type": "string"}},
        "required": ["time"],
    }
    asked = Asked(model)
    (result,) = asked.run(step(clock, output=output), tmp_path)
    assert result.values == ({"time": "noon"},)
    assert "JSON Schema" in asked.bodies[0]["messages"][0]["content"]
    assert len(asked.bodies) == 3


def test_format_words_of_a_step_stand_where_ours_would_and_can_be_left_out(tmp_path):
    output = {"type": "object", "properties": {"a": {"type": "integer"}}}

    def told(said: Any, folder: str) -> list[str]:
        asked = Asked(lambda body: says('{"a": 1}'))
        one = Step(id="s", engine="e", user="u", output=output, format_instruction=said)
        (result,) = asked.run(one, tmp_path / folder)
        assert result.values == ({"a": 1},)
        return [m["content"] for m in asked.bodies[0]["messages"] if m["role"] == "system"]

    (ours,) = told(None, "ours")
    assert "JSON Schema" in ours
    (own,) = told("Only this: {{ schema }}", "own")
    assert own.startswith('Only this: {"properties":{"a":')
    assert told(False, "none") == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: step(weather, weather), "tools has 'weather' twice"),
        (lambda: step("weather"), "a tool is 'weather', must be a function"),
        (lambda: step(lambda x: x), "has no name of its own"),
        (lambda: step(max), "the tool max"),
        (lambda: step(format_instruction="x"), "s.format_instruction is given, and there is no"),
        (lambda: step(output=City, format_instruction="{{ row }}"), "'row' is undefined"),
    ],
)
def test_tools_and_words_that_could_not_be_used_are_refused(make, said):
    with pytest.raises((LLMInvalidRequestError, ValueError, TypeError)) as refused:
        make()
    assert said in str(refused.value)


def test_steps_without_tools_are_known_by_the_journal_as_before():
    assert Step(id="s", engine="e", user="u").signature() == [
        "step", "e", "u", None, None, Step(id="s", engine="e", user="u").signature()[5], 2, True,
    ]  # fmt: skip
