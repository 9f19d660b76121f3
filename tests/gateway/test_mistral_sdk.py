"""Mistral's own client, pointed at the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mistralai.client import Mistral, errors

from gateway.far import NO_MODEL
from gateway.kept import Keeper, Says, keeper
from gateway.served import MODEL, Served

ASK = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def sdk(gateway: Served) -> Iterator:
    with Mistral(api_key="unused", server_url=gateway.url) as client:
        yield client


def test_a_conversation_is_answered(sdk):
    answer = sdk.chat.complete(
        model=MODEL, messages=ASK, max_tokens=8, random_seed=1, safe_prompt=False
    )
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 8


def test_the_seed_is_a_seed(sdk):
    settings = {"model": MODEL, "messages": ASK, "max_tokens": 12, "temperature": 1.0}
    said = [
        sdk.chat.complete(**settings, random_seed=seed).choices[0].message.content
        for seed in (7, 7)
    ]
    assert said[0] == said[1]


def test_a_stream_says_the_same(sdk):
    settings = {"model": MODEL, "messages": ASK, "max_tokens": 8, "temperature": 0.0}
    whole = sdk.chat.complete(**settings).choices[0].message.content
    with sdk.chat.stream(**settings) as stream:
        chunks = [event.data for event in stream]
    said = "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks if chunk.choices)
    assert said == whole
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_any_tool_is_called(sdk):
    answer = sdk.chat.complete(
        model=MODEL, messages=ASK, max_tokens=64, tools=[TOOL], tool_choice="any"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert isinstance(json.loads(str(call.function.arguments)), dict)


def test_a_turn_is_gone_on_with(sdk):
    messages = [
        {"role": "user", "content": "Count from one to five."},
        {"role": "assistant", "content": "one, two, three,", "prefix": True},
    ]
    answer = sdk.chat.complete(model=MODEL, messages=messages, max_tokens=4, temperature=0.0)
    assert "four" in answer.choices[0].message.content
    misplaced = [messages[1], messages[0]]
    with pytest.raises(errors.MistralError, match="prefix"):
        sdk.chat.complete(model=MODEL, messages=misplaced)


def test_content_in_chunks_is_read(sdk):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Say"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "user", "content": "Again."},
    ]
    assert sdk.chat.complete(model=MODEL, messages=messages, max_tokens=4).choices
    picture = [{"type": "image_url", "image_url": "https://a.example/cat.png"}]
    with pytest.raises(errors.MistralError, match="image"):
        sdk.chat.complete(model=MODEL, messages=[{"role": "user", "content": picture}])
    page = [{"type": "document_url", "document_url": "https://a.example/a.pdf"}]
    with pytest.raises(errors.MistralError, match=r"messages\[0\].content\[0\].type"):
        sdk.chat.complete(model=MODEL, messages=[{"role": "user", "content": page}])


@pytest.mark.usefixtures("embedding_model")
def test_vectors_are_made(sdk):
    answer = sdk.embeddings.create(model="all-minilm-l6-v2", inputs=["Hello", "World"])
    assert [len(each.embedding) for each in answer.data] == [384, 384]


def test_models_are_listed(sdk):
    listed = sdk.models.list().data
    assert MODEL in [model.id for model in listed]
    assert next(m for m in listed if m.id == MODEL).capabilities.completion_chat
    assert sdk.models.retrieve(model_id=MODEL).id == MODEL


def test_an_error_names_what_is_wrong(sdk):
    with pytest.raises(errors.MistralError, match="there is no model 'nobody'"):
        sdk.chat.complete(model="nobody", messages=ASK)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Keeper]]:
    """A gateway before what is taken for Mistral's own API."""
    with keeper() as kept:
        backend = {**kept.backend(), "provider": "mistral"}
        served = Served(tmp_path_factory.mktemp("mistral"), {**NO_MODEL, "backends": [backend]})
        try:
            yield served, kept
        finally:
            served.stop()


def test_mistrals_own_words_reach_mistral(behind):
    served, kept = behind
    message = {"role": "assistant", "content": "one"}
    answer = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    kept.says["/v1/chat/completions"] = Says(json.dumps(answer).encode())
    with Mistral(api_key="unused", server_url=served.url) as sdk:
        messages = [*ASK, {"role": "assistant", "content": "I", "prefix": True}]
        said = sdk.chat.complete(
            model="m",
            messages=messages,
            random_seed=3,
            safe_prompt=True,
            tools=[TOOL],
            tool_choice="any",
        )
    assert said.choices[0].message.content == "one"
    asked = kept.last.json
    assert asked["random_seed"] == 3
    assert "seed" not in asked
    assert asked["safe_prompt"] is True
    assert asked["tool_choice"] == "required"
    assert asked["messages"][-1] == {"role": "assistant", "content": "I", "prefix": True}


def test_mistrals_client_has_a_recording_transcribed(behind):
    served, kept = behind
    usage = {"prompt_audio_seconds": 3, "prompt_tokens": 4, "completion_tokens": 5}
    heard = {"model": "m", "text": "Hello.", "language": "en", "segments": [], "usage": usage}
    kept.says["/v1/audio/transcriptions"] = Says(json.dumps(heard).encode())
    with Mistral(api_key="unused", server_url=served.url) as sdk:
        answer = sdk.audio.transcriptions.complete(
            model="m", file={"file_name": "a.wav", "content": b"RIFF"}
        )
    assert (answer.text, answer.language) == ("Hello.", "en")
