"""A gateway that asks another one in Anthropic's format: every face in front of that backend."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import pytest

from gateway.served import MODEL, Served

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def front(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    backend = {
        "name": "claude",
        "provider": "anthropic",
        "base_url": gateway.url,
        "api_key": "unused",
        "model": MODEL,
    }
    served = Served(
        tmp_path_factory.mktemp("front"), {"engine": {"enabled": False}, "backends": [backend]}
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def claude(front: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=front.url, api_key="unused", max_retries=0) as client:
        yield client


def test_a_chat_is_answered_by_a_backend_of_the_other_format(front, gateway):
    settings = {"max_tokens": 24, "temperature": 0}
    far = front.chat(FRANCE[0]["content"], model="claude", **settings).json
    near = gateway.chat(FRANCE[0]["content"], model=MODEL, **settings).json
    assert "Paris" in far["choices"][0]["message"]["content"]
    assert far["choices"][0]["message"] == near["choices"][0]["message"]
    assert far["choices"][0]["finish_reason"] == near["choices"][0]["finish_reason"]
    assert far["usage"]["total_tokens"] == near["usage"]["total_tokens"]


def test_a_streamed_chat_is_too(front):
    body = {"model": "claude", "messages": FRANCE, "max_tokens": 24, "temperature": 0}
    with front.streaming(**body) as response:
        events = [line for line in response if line.startswith(b"data: {")]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in events]
    said = "".join(c["delta"].get("content") or "" for k in chunks for c in k["choices"])
    assert "Paris" in said
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_message_goes_through_two_gateways(claude):
    answer = claude.messages.create(
        model="claude",
        max_tokens=24,
        messages=FRANCE,
        stop_sequences=["Paris"],
        extra_body={"temperature": 0},
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")


def test_a_forced_call_goes_through_two_gateways(claude):
    with claude.messages.stream(
        model="claude",
        max_tokens=64,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as events:
        answer = events.get_final_message()
    (block,) = answer.content
    assert (block.name, set(block.input)) == ("get_weather", {"city"})
    assert answer.stop_reason == "tool_use"


def test_a_count_is_asked_of_the_backend_that_answers(claude):
    fields = {"messages": FRANCE, "system": "Be brief.", "tools": [TOOL]}
    counted = claude.messages.count_tokens(model="claude", **fields)
    usage = claude.messages.create(model="claude", max_tokens=1, **fields).usage
    assert counted.input_tokens == usage.input_tokens


def test_what_the_format_has_not_is_refused_by_its_name(front):
    reply = front.chat(model="claude", seed=1)
    assert reply.status == 400
    assert reply.error["param"] == "seed"
    reply = front.post("/v1/completions", {"model": "claude", "prompt": "Once"})
    assert reply.status == 400
    assert "no text completions" in reply.error["message"]


def test_fields_for_openais_own_services_are_left_out_and_named(front):
    reply = front.chat(model="claude", store=True, metadata={"a": "b"})
    assert reply.status == 200
    assert reply.headers["x-headrace-dropped"] == "metadata, store"


def test_a_backend_that_does_not_count_says_so(gateway, tmp_path):
    backend = {"name": "far", "base_url": f"{gateway.url}/v1", "model": MODEL}
    served = Served(tmp_path, {"engine": {"enabled": False}, "backends": [backend]})
    try:
        reply = served.post("/v1/messages/count_tokens", {"model": "far", "messages": FRANCE})
    finally:
        served.stop()
    assert reply.status == 400
    assert "does not count tokens" in reply.json["error"]["message"]
