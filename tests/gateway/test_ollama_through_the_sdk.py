"""Ollama's face with the real model through Ollama's own client, and us as an Ollama's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import ollama
import pytest
from attrs import frozen

from gateway.served import MODEL, Served
from headrace import Client, LLMCapabilityError
from headrace.backends.managed.probe import probe
from headrace.net.pool import PooledTransport

EMBEDDER = "all-minilm-l6-v2"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
EXACT = {"temperature": 0, "num_predict": 24}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


def in_celsius(fahrenheit: float) -> float:
    """Turn one scale into the other.

    Args:
        fahrenheit: A temperature.

    Returns:
        float: The same in Celsius.
    """
    return (fahrenheit - 32) / 1.8


@frozen
class Place:
    """Where something is."""

    city: str


@pytest.fixture(scope="module")
def front(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that asks another one in Ollama's format."""
    backend = {
        "name": "far",
        "provider": "ollama",
        "base_url": gateway.url,
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


@pytest.fixture(scope="module", params=["near", "far"])
def there(request, gateway: Served) -> Iterator[tuple[ollama.Client, str]]:
    """Ollama's client, and the name of a model: of this gateway, or of one that asks it."""
    served = gateway if request.param == "near" else request.getfixturevalue("front")
    with ollama.Client(host=served.url) as client:
        yield client, MODEL if served is gateway else "far"


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[ollama.Client]:
    with ollama.Client(host=gateway.url) as client:
        yield client


def test_a_chat_is_answered_whole_and_in_pieces_alike(there):
    client, model = there
    whole = client.chat(model=model, messages=FRANCE, options=EXACT)
    pieces = list(client.chat(model=model, messages=FRANCE, options=EXACT, stream=True))
    assert "Paris" in whole.message.content
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    *_, last = pieces
    for end in (whole, last):
        assert (end.done, end.done_reason) == (True, "stop")
        assert end.prompt_eval_count > 5
        assert end.eval_count > 1
        assert 0 < end.eval_duration < end.total_duration
        assert 0 < end.prompt_eval_duration < end.total_duration
        assert end.load_duration is None
    assert whole.eval_count == last.eval_count
    assert len(pieces) > 3
    assert len({piece.created_at for piece in pieces}) > 3
    assert not any(piece.done for piece in pieces[:-1])


def test_a_limit_ends_an_answer_by_its_length(there):
    client, model = there
    answer = client.chat(model=model, messages=FRANCE, options={"num_predict": 2})
    assert (answer.done_reason, answer.eval_count) == ("length", 2)


def test_a_stop_string_ends_it_too(there):
    client, model = there
    options = {**EXACT, "stop": ["Paris"]}
    answer = client.chat(model=model, messages=FRANCE, options=options)
    assert "Paris" not in answer.message.content
    assert answer.done_reason == "stop"


def test_an_answer_meets_the_schema_that_it_is_asked_for(there):
    client, model = there
    answer = client.chat(model=model, messages=FRANCE, format=CITY, options=EXACT)
    assert set(json.loads(answer.message.content)) == {"city"}
    loose = client.chat(model=model, messages=FRANCE, format="json", options=EXACT)
    assert isinstance(json.loads(loose.message.content), dict)


def test_log_probabilities_come_with_their_tokens(there):
    client, model = there
    answer = client.chat(model=model, messages=FRANCE, options=EXACT, logprobs=True, top_logprobs=2)
    # The token that ends the answer is counted and not said.
    assert answer.eval_count - len(answer.logprobs) in (0, 1)
    assert "".join(each.token for each in answer.logprobs).strip() == answer.message.content.strip()
    assert all(each.logprob <= 0 for each in answer.logprobs)
    assert all(len(each.top_logprobs) == 2 for each in answer.logprobs)


def test_a_conversation_with_calls_goes_on(there):
    client, model = there
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
    ]
    offered = [WEATHER, in_celsius]
    answer = client.chat(model=model, messages=turns, tools=offered, options=EXACT, think=False)
    assert answer.done
    assert answer.message.role == "assistant"


def test_a_prompt_is_answered_or_gone_on_with(there):
    client, model = there
    answer = client.generate(model=model, prompt=FRANCE[0]["content"], options=EXACT)
    chat = client.chat(model=model, messages=FRANCE, options=EXACT)
    assert answer.response == chat.message.content
    assert answer.eval_count == chat.eval_count
    short = {**EXACT, "num_predict": 8}
    raw = {"model": model, "prompt": "The capital of France is", "raw": True, "options": short}
    pieces = list(client.generate(**raw, stream=True))
    assert "".join(piece.response for piece in pieces) == client.generate(**raw).response
    assert pieces[-1].done


def test_a_model_is_asked_for_without_anything_to_answer(there):
    client, model = there
    assert client.generate(model=model).done_reason == "load"
    assert client.chat(model=model).done_reason == "load"


def test_vectors_are_made(client, embedding_model):
    texts = ["The weather is lovely today.", "He drove to the stadium."]
    answer = client.embed(model=EMBEDDER, input=texts)
    first, second = answer.embeddings
    assert len(first) == len(second) == 384
    assert sum(a * b for a, b in zip(first, first, strict=True)) == pytest.approx(1.0, abs=1e-4)
    assert answer.prompt_eval_count > 4
    assert answer.total_duration > 0
    old = client.embeddings(model=EMBEDDER, prompt=texts[0])
    assert list(old.embedding) == pytest.approx(list(first), abs=1e-6)


def test_the_models_are_listed_shown_and_seen_in_memory(client):
    listed = {model.model: model for model in client.list().models}
    box = listed[MODEL]
    assert (box.details.format, box.details.family) == ("gguf", "llama")
    assert box.details.parameter_size.endswith("M")
    assert box.size > 50_000_000
    assert len(box.digest) == 64
    shown = client.show(MODEL)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["general.parameter_count"] > 100_000_000
    assert shown.modelinfo["llama.context_length"] >= 2048
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert "num_ctx" in shown.parameters
    running = {model.model: model for model in client.ps().models}
    assert running[MODEL].size == box.size
    assert running[MODEL].digest == box.digest
    assert running[MODEL].expires_at.year > 2200


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.pull("m"),
        lambda client: client.push("m"),
        lambda client: client.delete("m"),
        lambda client: client.copy("m", "n"),
        lambda client: client.create("m", from_="n"),
    ],
)
def test_models_are_not_the_callers_to_bring(client, ask):
    with pytest.raises(ollama.ResponseError) as caught:
        ask(client)
    assert caught.value.status_code == 501
    assert "operator" in caught.value.error


def test_an_error_is_the_clients_own(there):
    client, model = there
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(model="no-such-model", messages=FRANCE)
    assert caught.value.status_code == 404
    assert "no-such-model" in caught.value.error
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(model=model, messages=FRANCE, options={"temperature": 3})
    assert caught.value.status_code == 400
    assert "options.temperature" in caught.value.error


def test_we_are_an_ollamas_client_too(gateway, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"{gateway.host}:{gateway.port}")
    with Client(f"ollama/{MODEL}") as client:
        whole = client.chat(FRANCE[0]["content"], temperature=0, max_tokens=24)
        assert "Paris" in whole.text
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        assert whole.provider_fields["total_duration"] > whole.provider_fields["eval_duration"]
        pieces = client.stream_chat(FRANCE[0]["content"], temperature=0, max_tokens=24)
        assert [event.response.text for event in pieces if event.response] == [whole.text]
        told = client.chat(
            "hi", max_tokens=2, provider_options={"num_ctx": 4096, "keep_alive": "5m"}
        )
        assert told.finish_reason == "length"
        assert MODEL in client.healthcheck().details["models"]
        found = client.chat(FRANCE[0]["content"], output=Place, max_tokens=64)
        assert isinstance(found.output, Place)
        with pytest.raises(LLMCapabilityError, match="tool_choice"):
            client.chat("hi", tool_choice="none")


def test_a_probe_for_engines_takes_us_for_none(gateway):
    async def main():
        transport = PooledTransport()
        try:
            return [await probe(base, transport) for base in (gateway.url, f"{gateway.url}/v1")]
        finally:
            await transport.aclose()

    assert all(found.is_gateway for found in asyncio.run(main()))
