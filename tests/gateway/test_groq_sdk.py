"""Groq's own client, pointed at the gateway: its paths begin with /openai/v1."""

from __future__ import annotations

import json
from collections.abc import Iterator

import groq
import pytest

from gateway.far import NO_MODEL, Far, far
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
    with groq.Groq(base_url=gateway.url, api_key="unused", max_retries=0) as client:
        yield client


def test_a_conversation_is_answered(sdk):
    answer = sdk.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8, seed=1)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 8
    assert answer.model == MODEL


def test_a_stream_says_the_same(sdk):
    settings = {"model": MODEL, "messages": ASK, "max_tokens": 8, "temperature": 0}
    whole = sdk.chat.completions.create(**settings).choices[0].message.content
    chunks = list(sdk.chat.completions.create(**settings, stream=True))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_a_tool_is_called(sdk):
    answer = sdk.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=64, tools=[TOOL], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments), dict)


def test_groqs_own_fields_are_told_of_where_the_engine_has_none(sdk):
    reply = sdk.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=ASK,
        max_tokens=2,
        service_tier="auto",
        include_domains=["a.example"],
        disable_tool_validation=True,
    )
    dropped = reply.headers["x-headrace-dropped"].split(", ")
    assert {"disable_tool_validation", "include_domains", "service_tier"} <= set(dropped)
    for word, is_dropped in (("parsed", False), ("raw", False), ("hidden", True)):
        reply = sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=ASK, max_tokens=2, reasoning_format=word
        )
        assert ("reasoning_format" in reply.headers.get("x-headrace-dropped", "")) is is_dropped
    with pytest.raises(groq.BadRequestError, match="documents"):
        sdk.chat.completions.create(model=MODEL, messages=ASK, documents=[{"text": "a"}])


def test_models_are_listed(sdk):
    assert MODEL in [model.id for model in sdk.models.list().data]
    assert sdk.models.retrieve(MODEL).id == MODEL


@pytest.mark.usefixtures("embedding_model")
def test_vectors_are_made(sdk):
    answer = sdk.embeddings.create(model="all-minilm-l6-v2", input="Hello")
    assert len(answer.data[0].embedding) == 384


def test_an_error_has_a_form_that_the_client_knows(sdk):
    with pytest.raises(groq.NotFoundError, match="there is no model 'nobody'"):
        sdk.chat.completions.create(model="nobody", messages=ASK)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Far, Keeper]]:
    """A gateway with a key, before a provider of chats and one of speech."""
    with far("one") as (one,), keeper() as kept:
        config = {
            **NO_MODEL,
            "server": {"api_keys": ["right"]},
            "backends": [one.backend(api_key="theirs"), kept.backend(models=["whisper-*"])],
        }
        served = Served(tmp_path_factory.mktemp("groq"), config)
        try:
            yield served, one, kept
        finally:
            served.stop()


def test_the_key_is_checked_and_another_goes_on(remote):
    served, _, _ = remote
    for key, model in (("right", "m"), ("wrong", "m")):
        with groq.Groq(base_url=served.url, api_key=key, max_retries=0) as sdk:
            if key == "wrong":
                with pytest.raises(groq.AuthenticationError):
                    sdk.chat.completions.create(model=model, messages=ASK)
                continue
            answer = sdk.chat.completions.create(model=model, messages=ASK)
            assert answer.choices[0].message.content == "one m theirs"
            chunks = sdk.chat.completions.create(model=model, messages=ASK, stream=True)
            said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert said == "one m theirs"


def test_recordings_and_sound_go_by_the_prefix_too(remote):
    served, _, kept = remote
    kept.says["/v1/audio/transcriptions"] = Says(b'{"text": "Hello."}')
    kept.says["/v1/audio/speech"] = Says(b"sound", "audio/wav")
    with groq.Groq(base_url=served.url, api_key="right", max_retries=0) as sdk:
        heard = sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
        assert heard.text == "Hello."
        spoken = sdk.audio.speech.create(model="whisper-1", input="Hi", voice="a")
        assert spoken.read() == b"sound"
