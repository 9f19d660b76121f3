"""Endpoints that are made, changed and removed while the client is used."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from client.faces import credentials
from headrace import (
    AsyncClient,
    Client,
    LLMAuthError,
    LLMEndpointNotFoundError,
    LLMInvalidRequestError,
    LLMRateLimitError,
    Secret,
)
from headrace.backends.providers import PROVIDERS
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.stores.credentials import Credentials
from traffic.play import answer, play, refusal

A, B = "key-a-0123456789", "key-b-0123456789"
NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)


class Provider:
    """Answers every request as ``script`` has it; what it was asked, key by key."""

    def __init__(self, script: Any = None) -> None:
        self.clock = ManualClock(monotonic=0.0, auto=True)
        self.script = script or (lambda **_: answer(gap_s=1))
        self.transport = ScriptedTransport(self._answer, self.clock)
        self.keys: list[str | None] = []
        self.models: list[str] = []

    def _answer(self, request: Any) -> ScriptedAnswer:
        headers = dict(request.headers)
        key = headers.get("authorization", "").removeprefix("Bearer ") or None
        self.keys.append(key)
        self.models.append(json.loads(request.body)["model"])
        return self.script(key=key, url=request.url, model=self.models[-1])

    def settings(self, **more: Any) -> dict[str, Any]:
        given = {"credentials": NOTHING, "transport": self.transport, "clock": self.clock}
        return {**given, **more}

    def client(self, model: str | None = None, **settings: Any) -> AsyncClient:
        return AsyncClient(model, **self.settings(**settings))


def made(client: Any, name: str = "mine", **settings: Any) -> Any:
    usual = {"base_url": "http://scripted/v1", "model": "m", "api_key": A}
    return client.endpoints.create(name, **{**usual, **settings})


def test_its_name_is_a_models_name():
    async def main():
        theirs = Provider()
        client = theirs.client()
        config = made(client)
        assert (config.name, config.model, config.provider) == ("mine", "m", "openai-compatible")
        assert (await client.chat("hi", model="mine")).text == "hi"
        assert (await client.chat("hi", model="mine/other/model")).text == "hi"
        assert theirs.models == ["m", "other/model"]
        assert "mine" in client.endpoints
        assert list(client.endpoints) == ["mine"]

    play(main)


def test_the_defaults_are_those_that_were_promised():
    config = made(Provider().client())
    assert (config.max_concurrent_requests, config.queue_size) == (5, 100)
    backoff = (config.initial_retry_delay, config.backoff_factor, config.max_retry_delay)
    assert (config.max_retries, *backoff) == (5, 1, 2, 16)


def test_the_model_may_bring_its_provider():
    async def main():
        theirs = Provider(lambda url, **_: answer(url.host))
        client = theirs.client(credentials=credentials(PROVIDERS["groq"], key=B))
        config = client.endpoints.create("quick", model="groq/llama")
        assert (config.provider, config.model) == ("groq", "llama")
        assert (await client.chat("hi", model="quick")).text == "api.groq.com"
        assert theirs.keys == [B]  # the provider's own

    play(main)


def test_it_can_be_the_default_and_a_fallback():
    async def main():
        theirs = Provider(lambda key, **_: refusal(500) if key == A else answer("from b"))
        client = theirs.client("first", fallbacks=["second"])
        made(client, "first", max_retries=0)
        made(client, "second", api_key=B)
        response = await client.chat("hi")
        assert response.text == "from b"
        assert response.provenance.backend_name == "second"
        assert client.endpoints.stats("first").failures == {"LLMProviderError": 1}

    play(main)


def test_several_keys_have_a_queue_each():
    async def main():
        theirs = Provider()
        client = theirs.client()
        made(client, api_key=None, api_keys=[A, Secret(B)])
        calls = [client.chat("hi", model="mine") for _ in range(10)]
        assert [each.text for each in await asyncio.gather(*calls)] == ["hi"] * 10
        assert theirs.clock.monotonic() == 1
        assert Counter(theirs.keys) == {A: 5, B: 5}

    play(main)


def test_one_key_exhausted_the_others_go_on():
    async def main():
        def script(key: str, **_: Any) -> ScriptedAnswer:
            return refusal(429, ("retry-after", "90")) if key == A else answer()

        theirs = Provider(script)
        client = theirs.client()
        client.endpoints.create(
            "mine", base_url="http://scripted/v1", model="m", api_keys=[A, B], max_retries=0
        )
        for _ in range(8):
            assert (await client.chat("hi", model="mine")).text == "hi"
        assert Counter(theirs.keys) == {A: 1, B: 8}
        stats = client.endpoints.stats("mine")
        assert (stats.requests, stats.successes, stats.retries) == (8, 8, 1)
        assert [key.requests for key in stats.keys] == [1, 8]

    play(main)


def test_who_runs_and_who_waits_finish_by_what_they_began_with():
    async def main():
        theirs = Provider(lambda key, **_: answer("new" if key == B else "old", gap_s=1))
        client = theirs.client()
        made(client, max_concurrent_requests=2)
        before = [asyncio.ensure_future(client.chat("hi", model="mine")) for _ in range(6)]
        await theirs.clock.sleep(0.5)
        config = client.endpoints.change("mine", api_key=B, max_concurrent_requests=1)
        assert config.queue_size == 100  # what is not named stays
        after = [asyncio.ensure_future(client.chat("hi", model="mine")) for _ in range(3)]
        await asyncio.sleep(0)
        stats = client.endpoints.stats("mine")
        assert (stats.running, stats.waiting) == (3, 6)
        assert [each.text for each in await asyncio.gather(*before)] == ["old"] * 6
        assert [each.text for each in await asyncio.gather(*after)] == ["new"] * 3
        stats = client.endpoints.stats("mine")
        assert (stats.requests, stats.successes, stats.running, stats.waiting) == (9, 9, 0, 0)

    play(main)


def test_one_that_is_removed_is_found_no_more_and_its_calls_end_well():
    async def main():
        client = Provider().client()
        made(client)
        call = asyncio.ensure_future(client.chat("hi", model="mine"))
        await asyncio.sleep(0)
        client.endpoints.remove("mine")
        with pytest.raises(LLMInvalidRequestError, match="'mine' has no known provider"):
            await client.chat("hi", model="mine")
        for gone in (client.endpoints.get, client.endpoints.remove, client.endpoints.stats):
            with pytest.raises(LLMEndpointNotFoundError, match="no endpoint 'mine'"):
                gone("mine")
        assert (await call).text == "hi"
        made(client)
        assert client.endpoints.stats("mine").requests == 0

    play(main)


def test_stats_are_exact_to_the_call():
    async def main():
        answers = iter([answer(gap_s=2), refusal(400), refusal(500), answer(), refusal(401)])
        theirs = Provider(lambda **_: next(answers))
        client = theirs.client(credentials=credentials(PROVIDERS["groq"], key=A))
        client.endpoints.create("mine", model="groq/llama-3.1-8b-instant", retry_jitter=0)
        assert client.endpoints.stats("mine").since == theirs.clock.wall()
        for _ in range(4):
            try:
                await client.chat("hi", model="mine")
            except LLMInvalidRequestError:
                theirs.clock.monotonic()
            except LLMAuthError:
                failed_at = theirs.clock.wall()
        stats = client.endpoints.stats("mine")
        assert (stats.requests, stats.successes, stats.retries, stats.cancelled) == (4, 2, 1, 0)
        assert stats.failures == {"LLMInvalidRequestError": 1, "LLMAuthError": 1}
        assert (stats.prompt_tokens, stats.completion_tokens) == (6, 4)
        assert stats.latency.count == 2
        assert stats.latency.max_s == 2
        assert stats.latency.min_s == 1  # the wait before it was asked again
        assert stats.last_error == "LLMAuthError: says 401"
        assert stats.last_error_at == failed_at
        assert (stats.running, stats.waiting) == (0, 0)
        # 3 and 2 tokens at 0.05 and 0.08 dollars a million, twice
        assert stats.priced == 2
        assert stats.price_usd == 2 * (3 * Decimal("0.05") + 2 * Decimal("0.08")) / 1_000_000
        client.endpoints.reset_stats("mine")
        stats = client.endpoints.stats("mine")
        assert (stats.requests, stats.failures, stats.price_usd) == (0, {}, None)
        assert (stats.last_error, stats.latency.count) == (None, 0)
        assert stats.since == theirs.clock.wall()

    play(main)


def test_a_provider_that_is_asked_by_its_own_name_has_stats_too():
    async def main():
        theirs = Provider()
        client = theirs.client(credentials=credentials(PROVIDERS["groq"], key=A))
        await client.chat("hi", model="groq/llama")
        assert client.endpoints.stats("groq").successes == 1
        client.endpoints.reset_stats("groq")
        assert client.endpoints.stats("groq").successes == 0

    play(main)


@pytest.mark.parametrize(
    ("settings", "param", "words"),
    [
        ({"max_concurrent_requests": 0}, "max_concurrent_requests", "from 1"),
        ({"max_concurrent_requests": True}, "max_concurrent_requests", "True"),
        ({"queue_size": 1.5}, "queue_size", "whole number"),
        ({"max_retries": -1}, "max_retries", "from 0"),
        ({"backoff_factor": 0.5}, "backoff_factor", "from 1"),
        ({"initial_retry_delay": "soon"}, "initial_retry_delay", "'soon'"),
        ({"max_retires": 3}, "max_retires", "did you mean 'max_retries'"),
        ({"provider": "grok"}, "provider", "grok"),
        ({"base_url": "ftp://x"}, "base_url", "ftp"),
        ({"base_url": 7}, "base_url", "int"),
        ({"api_keys": [A]}, "api_key", "leave one of them out"),
    ],
)
def test_what_is_wrong_is_named(settings, param, words):
    client = Provider().client()
    with pytest.raises(LLMInvalidRequestError, match=words) as caught:
        made(client, **settings)
    assert caught.value.param in (param, None) or param == "provider"
    assert "mine" not in client.endpoints
    if param not in {"api_key", "base_url", "provider"}:
        made(client)
        with pytest.raises(LLMInvalidRequestError, match=words):
            client.endpoints.change("mine", **settings)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "groq", "-x", 7])
def test_a_name_that_would_mislead_is_refused(name):
    with pytest.raises(LLMInvalidRequestError) as caught:
        made(Provider().client(), name)
    assert caught.value.param == "name"


def test_a_name_is_given_once():
    client = Provider().client()
    made(client)
    with pytest.raises(LLMInvalidRequestError, match="already"):
        made(client)
    with pytest.raises(LLMInvalidRequestError, match="cannot be changed"):
        client.endpoints.change("mine", name="yours")


def test_a_key_goes_only_where_it_was_given_for():
    client = Provider().client(credentials=credentials(PROVIDERS["groq"], key=B))
    made(client)
    with pytest.raises(LLMInvalidRequestError, match="api_key as well"):
        client.endpoints.change("mine", base_url="http://elsewhere/v1")
    client.endpoints.change("mine", base_url="http://elsewhere/v1", api_key=None)
    # The provider's key in the environment is for the provider's own address.
    with pytest.raises(LLMAuthError, match="base_url of its own"):
        client.endpoints.create("q", model="m", provider="groq", base_url="http://elsewhere/v1")


def test_a_missing_key_is_told_before_anything_is_asked():
    client = Provider().client()
    with pytest.raises(LLMAuthError, match="GROQ_API_KEY"):
        client.endpoints.create("quick", model="groq/llama")
    with pytest.raises(LLMAuthError, match="NOBODY_SET_THIS"):
        made(client, api_key=None, api_key_env="NOBODY_SET_THIS")


def test_keys_are_not_shown():
    async def main():
        client = Provider(lambda key, **_: refusal(429, code=key)).client()
        config = made(client, api_key=None, api_keys=[A, B], max_retries=0)
        with pytest.raises(LLMRateLimitError) as caught:
            await client.chat("hi", model="mine")
        stats = client.endpoints.stats("mine")
        told = f"{config!r} {config.shown()} {stats!r} {client.describe()} {caught.value!r}"
        assert A not in told
        assert B not in told
        assert config.shown()["api_keys"] == 2

    play(main)


def test_from_any_thread_and_after_a_fork():
    theirs = Provider(lambda **_: answer())
    with Client(**theirs.settings()) as client:
        made(client)
        assert client.chat("hi", model="mine").text == "hi"
        assert client.endpoints.change("mine", queue_size=7).queue_size == 7
        assert client.endpoints.get("mine").queue_size == 7
        assert client.endpoints.stats("mine").successes == 1
        client.endpoints.reset_stats("mine")
        assert client.endpoints.stats("mine").requests == 0
        assert "mine" in client.endpoints
        assert (len(client.endpoints), list(client.endpoints)) == (1, ["mine"])
        client._pid = -1  # as a forked child finds it
        assert client.chat("hi", model="mine").text == "hi"
        client.endpoints.remove("mine")
        assert len(client.endpoints) == 0
