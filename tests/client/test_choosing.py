"""Whom a client asks first, and whom not at all: its policy, and a call's task profile."""

from __future__ import annotations

import json

import pytest

from client.faces import FACES, KEY, Face
from headrace import (
    Client,
    EndpointSettings,
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMProviderError,
    TaskProfile,
)
from headrace.backends.providers import PROVIDERS
from headrace.stores.credentials import Credentials
from traffic.play import answer, refusal

every_face = pytest.mark.parametrize("face", FACES)
KEYS = Credentials(
    environment={"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY}, dotenv=None, config=None, seed=None
)
ONCE = EndpointSettings(retry=None)
BOTH = {
    "model": "gpt-4",
    "fallbacks": ["openai/gpt-4o-mini"],
    "credentials": KEYS,
    "endpoint": ONCE,
}
OPENAI = PROVIDERS["openai"]


def models(client: Face) -> list[str]:
    return [json.loads(request.body)["model"] for request in client.requests]


@every_face
def test_the_cheaper_model_is_asked_first_and_the_dearer_where_it_fails(face: str) -> None:
    answers = [answer("a"), refusal(503), answer("b")]
    with Face(face, OPENAI, answers, policy="lowest_cost", **BOTH) as client:
        client.chat(max_tokens=100)
        client.chat(max_tokens=100)
        record, _ = client.records
        assert models(client) == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4"]
    assert record.decision is not None
    assert record.decision.policy == "lowest_cost"
    assert [each.model for each in record.decision.candidates] == ["gpt-4o-mini", "gpt-4"]


@every_face
def test_a_model_that_may_cost_more_than_the_call_may_is_not_asked(face: str) -> None:
    profile = TaskProfile(max_cost_usd=0.001)
    with Face(face, OPENAI, [answer("a"), refusal(503)], **BOTH) as client:
        client.chat(max_tokens=100, task_profile=profile)
        with pytest.raises(LLMProviderError, match="503"):
            client.chat(max_tokens=100, task_profile=profile)
        assert set(models(client)) == {"gpt-4o-mini"}


@every_face
def test_where_none_is_cheap_enough_none_is_asked_and_the_error_says_so(face: str) -> None:
    with Face(face, OPENAI, [answer("a")], **BOTH) as client:
        with pytest.raises(LLMCapabilityError, match="max_cost_usd is 1e-09") as refused:
            client.chat(max_tokens=100, task_profile=TaskProfile(max_cost_usd=1e-9))
        assert refused.value.param == "task_profile.max_cost_usd"
        assert client.requests == []


@every_face
def test_one_model_alone_is_held_to_the_limits_too(face: str) -> None:
    slow = TaskProfile(max_latency_ms=5000)
    with Face(face, OPENAI, [answer("a")] * 6, model="gpt-4", credentials=KEYS) as client:
        with pytest.raises(LLMCapabilityError, match="measured yet"):
            client.chat(task_profile=slow)
        for _ in range(4):
            client.chat()
        assert client.chat(task_profile=slow).text == "a"
    trusting = {"model": "gpt-4", "credentials": KEYS, "allow_unknown": True}
    with Face(face, OPENAI, [answer("a")], **trusting) as client:
        assert client.chat(task_profile=slow).text == "a"


@every_face
def test_a_call_s_own_key_goes_to_whom_it_names_whatever_the_policy(face: str) -> None:
    settings = {"fallbacks": ["groq/llama-3.3-70b-versatile"], "credentials": KEYS}
    with Face(face, OPENAI, [answer("a")], policy="lowest_cost", **settings) as client:
        client.chat(model="openai/gpt-4", max_tokens=9, metadata={"api_key": "sk-own-1234567890"})
        [request] = client.requests
    assert dict(request.headers)["authorization"] == "Bearer sk-own-1234567890"
    assert request.url.host == "api.openai.com"


def test_an_unknown_policy_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"'cheapest'.*lowest_cost"):
        Client("openai/gpt-4", policy="cheapest")
