"""A gateway that asks another one in Gemini's format: every face, and the client, before that backend."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from google import genai
from google.genai import types

from gateway.served import MODEL, Served
from headrace import Client, LLMMessage
from headrace.stores.models import EMBEDDER

FRANCE = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": FRANCE}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "parameters": CITY}


@pytest.fixture(scope="module")
def front(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = {"provider": "gemini", "base_url": f"{gateway.url}/v1beta", "api_key": "unused"}
    backends = [
        {"name": "google", "model": MODEL, **settings},
        {"name": "vectors", "model": EMBEDDER.name, **settings},
    ]
    served = Served(
        tmp_path_factory.mktemp("front"),
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "backends": backends,
        },
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def google(front: Served) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=front.url)
    with genai.Client(api_key="unused", http_options=options) as client:
        yield client


def test_a_chat_is_answered_by_a_backend_of_this_format(front, gateway):
    settings = {"max_tokens": 24, "temperature": 0, "seed": 1}
    far = front.chat(FRANCE, model="google", **settings).json
    near = gateway.chat(FRANCE, model=MODEL, **settings).json
    assert "Paris" in far["choices"][0]["message"]["content"]
    assert far["choices"][0]["message"] == near["choices"][0]["message"]
    assert far["choices"][0]["finish_reason"] == near["choices"][0]["finish_reason"]
    assert far["usage"]["total_tokens"] == near["usage"]["total_tokens"]


def test_a_streamed_chat_is_too(front):
    body = {"model": "google", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    with front.streaming(**body) as response:
        events = [line for line in response if line.startswith(b"data: {")]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in events]
    said = "".join(c["delta"].get("content") or "" for k in chunks for c in k["choices"])
    assert "Paris" in said
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_forced_call_goes_through_and_its_result_back(front):
    tools = [{"type": "function", "function": WEATHER}]
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    body = {"model": "google", "messages": asked, "tools": tools, "max_tokens": 64}
    reply = front.post("/v1/chat/completions", {**body, "tool_choice": "required"}).json
    message = reply["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"city"}
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    result = {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"}
    body["messages"] = [*asked, message, result]
    reply = front.post("/v1/chat/completions", {**body, "tool_choice": "none", "max_tokens": 8})
    assert reply.status == 200, reply.body
    assert reply.json["choices"][0]["message"]["content"]


def test_a_schema_goes_through(front):
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    reply = front.chat(FRANCE, model="google", response_format=schema, max_tokens=48).json
    assert set(json.loads(reply["choices"][0]["message"]["content"])) == {"city"}


def test_a_message_of_anthropics_goes_through(front):
    body = {"model": "google", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    reply = front.post("/v1/messages", body).json
    assert "Paris" in reply["content"][0]["text"]
    assert reply["stop_reason"] == "end_turn"
    counted = front.post("/v1/messages/count_tokens", {"model": "google", "messages": MESSAGES})
    assert counted.json["input_tokens"] == reply["usage"]["input_tokens"]


def test_vectors_come_through(front, gateway):
    far = front.post("/v1/embeddings", {"model": "vectors", "input": ["a dog", "a cat"]}).json
    near = gateway.post("/v1/embeddings", {"model": EMBEDDER.name, "input": ["a dog", "a cat"]})
    for one, other in zip(far["data"], near.json["data"], strict=True):
        assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-6)


def test_googles_client_goes_through_two_gateways(google):
    config = types.GenerateContentConfig(temperature=0, max_output_tokens=24)
    chunks = list(
        google.models.generate_content_stream(model="google", contents=FRANCE, config=config)
    )
    assert "Paris" in "".join(chunk.text or "" for chunk in chunks)
    counted = google.models.count_tokens(model="google", contents=FRANCE)
    assert counted.total_tokens == chunks[-1].usage_metadata.prompt_token_count
    result = google.models.embed_content(model="vectors", contents="a dog")
    assert len(result.embeddings[0].values) > 100


def test_what_the_format_has_not_is_refused_by_its_name(front):
    reply = front.chat(model="google", min_p=0.5)
    assert reply.status == 400
    assert reply.error["param"] == "min_p"
    reply = front.chat(model="google", user="ann", parallel_tool_calls=True)
    assert reply.status == 200
    assert reply.headers["x-headrace-dropped"] == "parallel_tool_calls, user"


def test_our_own_client_asks_in_this_format(gateway):
    asked = [LLMMessage(role="user", content=FRANCE)]
    settings = {"provider": "gemini", "base_url": f"{gateway.url}/v1beta", "api_key": "unused"}
    with Client(MODEL, **settings) as client:
        answer = client.chat(asked, max_tokens=24, temperature=0)
        assert "Paris" in answer.text
        assert answer.provider == "gemini"
        events = list(client.stream_chat(asked, max_tokens=24, temperature=0))
        assert "".join(event.delta_text or "" for event in events) == answer.text
        assert events[-1].response is not None
        assert client.chat(asked, max_tokens=48, response_schema=CITY).text.startswith("{")
