"""A call's span is the child of the caller's, however the call is made and wherever it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest

from headrace import AsyncClient, Client, LLMInvalidRequestError, LLMMessage, LLMRequest
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.stores.credentials import Credentials
from headrace.wire.json import encode
from traffic.play import answer
from traffic.telemetry import Telemetry

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
REQUEST = LLMRequest(messages=(LLMMessage(role="user", content="hello"),))
VECTORS = ScriptedAnswer(
    headers=(("content-type", "application/json"),),
    body=encode(
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    ),
)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def given(telemetry: Telemetry, *answers: ScriptedAnswer) -> dict[str, Any]:
    return {
        "base_url": "https://far.example/v1",
        "credentials": NOTHING,
        "transport": ScriptedTransport(list(answers or (answer("hi ", "there"),))),
        "sinks": [telemetry.sink],
    }


@contextmanager
def span(telemetry: Telemetry, name: str = "callers") -> Iterator[None]:
    with telemetry.tracers.get_tracer("theirs").start_as_current_span(name):
        yield


def parents(telemetry: Telemetry, ours: str = "chat m") -> list[str]:
    """The names of the spans whose children our spans of that name are."""
    by_id = {each.context.span_id: each.name for each in telemetry.spans}
    calls = [each for each in telemetry.spans if each.name == ours]
    return [by_id[each.parent.span_id] if each.parent else "none" for each in calls]


def sync_chat(client: Client) -> None:
    client.chat("hello")


def sync_generate(client: Client) -> None:
    client.generate(REQUEST)


def sync_stream(client: Client) -> None:
    assert list(client.stream(REQUEST))


def sync_stream_chat(client: Client) -> None:
    assert list(client.stream_chat("hello"))


def sync_stream_left_early(client: Client) -> None:
    with client.stream(REQUEST) as deltas:
        next(deltas)


@pytest.mark.parametrize(
    "ask", [sync_chat, sync_generate, sync_stream, sync_stream_chat, sync_stream_left_early]
)
def test_a_call_of_the_synchronous_client_is_the_callers_child(telemetry, ask):
    with Client("m", **given(telemetry)) as client, span(telemetry):
        ask(client)
    assert parents(telemetry) == ["callers"]


async def chat(client: AsyncClient) -> None:
    await client.chat("hello")


async def generate(client: AsyncClient) -> None:
    await client.generate(REQUEST)


async def stream(client: AsyncClient) -> None:
    assert [delta async for delta in client.stream(REQUEST)]


async def stream_chat(client: AsyncClient) -> None:
    assert [event async for event in client.stream_chat("hello")]


async def stream_left_early(client: AsyncClient) -> None:
    async with aclosing(client.stream(REQUEST)) as deltas:
        await anext(deltas)


@pytest.mark.parametrize("ask", [chat, generate, stream, stream_chat, stream_left_early])
def test_a_call_of_the_asynchronous_client_is_the_callers_child(telemetry, ask):
    async def run() -> None:
        async with AsyncClient("m", **given(telemetry)) as client:
            with span(telemetry):
                await ask(client)

    asyncio.run(run())
    assert parents(telemetry) == ["callers"]


def test_a_streams_parent_is_the_span_in_which_it_began(telemetry):
    async def run() -> None:
        async with AsyncClient("m", **given(telemetry)) as client:
            with span(telemetry, "first"):
                deltas = client.stream(REQUEST)
                await anext(deltas)
            with span(telemetry, "second"):
                assert [delta async for delta in deltas]

    asyncio.run(run())
    assert parents(telemetry) == ["first"]


def test_a_stream_that_another_thread_reads_keeps_its_parent(telemetry):
    with Client("m", **given(telemetry)) as client:
        with span(telemetry):
            deltas = client.stream(REQUEST)
        reader = threading.Thread(target=lambda: list(deltas))
        reader.start()
        reader.join()
    assert parents(telemetry) == ["callers"]


def test_calls_side_by_side_keep_their_own_parents(telemetry):
    async def one(client: AsyncClient, name: str) -> None:
        with span(telemetry, name):
            await client.chat(name)

    async def run() -> None:
        answers = [answer("hi") for _ in range(4)]
        async with AsyncClient("m", **given(telemetry, *answers)) as client:
            await asyncio.gather(*(one(client, name) for name in "abcd"))

    asyncio.run(run())
    assert sorted(parents(telemetry)) == ["a", "b", "c", "d"]


def test_threads_of_one_synchronous_client_keep_their_own_parents(telemetry):
    with Client("m", **given(telemetry, *(answer("hi") for _ in range(8)))) as client:

        def one(name: str) -> None:
            with span(telemetry, name):
                client.chat(name)

        threads = [threading.Thread(target=one, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(parents(telemetry)) == list("abcdefgh")


def test_an_embedding_call_is_the_callers_child(telemetry):
    with Client("m", **given(telemetry, VECTORS)) as client, span(telemetry):
        client.embed("hello")
    assert parents(telemetry, "embeddings m") == ["callers"]


def test_a_call_that_fails_is_the_callers_child(telemetry):
    with (
        Client("m", **given(telemetry, ScriptedAnswer(status=400))) as client,
        span(telemetry),
        pytest.raises(LLMInvalidRequestError),
    ):
        client.chat("hello")
    assert parents(telemetry) == ["callers"]


def test_a_call_of_nobody_has_no_parent(telemetry):
    with Client("m", **given(telemetry)) as client:
        client.chat("hello")
    assert parents(telemetry) == ["none"]
