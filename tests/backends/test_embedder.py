"""The embedding engine sleeps until it is asked, and a start that fails is not tried by everyone."""

from __future__ import annotations

import asyncio

import pytest

from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.contracts.errors import LLMCapabilityError, LLMUnavailableError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, ScriptedTransport
from headrace.stores.models import ModelFile

ASK = EmbeddingRequest(inputs=("a",))


class Nowhere:
    """A store that has no model; ``held`` makes whoever looks wait."""

    def __init__(self) -> None:
        self.looked = self.given_up = 0
        self.held: asyncio.Event | None = None

    async def __call__(self) -> ModelFile:
        self.looked += 1
        if self.held is not None:
            try:
                await self.held.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        raise LLMUnavailableError("the model could not be fetched: no network")


def sleeping(store: Nowhere) -> tuple[LocalEmbedder, ManualClock]:
    clock = ManualClock()
    world = World(transport=ScriptedTransport([], clock), clock=clock)
    return LocalEmbedder(EmbedderSettings(name="mini"), store, world), clock


def test_a_start_that_failed_is_tried_again_after_half_a_minute() -> None:
    async def main() -> None:
        store = Nowhere()
        embedder, clock = sleeping(store)
        with pytest.raises(LLMUnavailableError, match="no network") as caught:
            await embedder.embed(ASK, Marks())
        assert caught.value.retry_after_s is None
        await clock.advance(10)
        with pytest.raises(LLMUnavailableError, match="no network") as caught:
            await embedder.prepare(ASK, Marks())
        assert caught.value.retry_after_s == pytest.approx(20)
        assert store.looked == 1
        await clock.advance(20)
        with pytest.raises(LLMUnavailableError):
            await embedder.embed(ASK, Marks())
        assert store.looked == 2

    asyncio.run(main())


def test_all_who_come_meanwhile_wait_for_one_start_and_one_who_leaves_does_not_end_it() -> None:
    async def main() -> None:
        store = Nowhere()
        store.held = asyncio.Event()
        embedder, _ = sleeping(store)
        tasks = [asyncio.create_task(embedder.embed(ASK, Marks())) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        store.held.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [
            asyncio.CancelledError,
            LLMUnavailableError,
            LLMUnavailableError,
        ]
        assert (store.looked, store.given_up) == (1, 0)

    asyncio.run(main())


def test_closing_gives_a_start_up() -> None:
    async def main() -> None:
        store = Nowhere()
        store.held = asyncio.Event()
        embedder, _ = sleeping(store)
        task = asyncio.create_task(embedder.embed(ASK, Marks()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await embedder.aclose()
        assert store.given_up == 1
        with pytest.raises(LLMUnavailableError, match="stopped"):
            await task
        await embedder.aclose()

    asyncio.run(main())


def test_it_counts_as_able_to_answer_while_it_sleeps_and_tells_what_went_wrong() -> None:
    async def main() -> None:
        embedder, _ = sleeping(Nowhere())
        status = await embedder.status()
        assert (status.ok, status.message) == (True, "starts with the first request")
        with pytest.raises(LLMUnavailableError):
            await embedder.embed(ASK, Marks())
        status = await embedder.status()
        assert status.ok
        assert status.message is not None
        assert "the last start failed: the model could not be fetched" in status.message
        assert embedder.snapshot() == {}
        (listed,) = await embedder.models()
        assert (listed.model_id, listed.max_context_tokens) == ("mini", 256)

    asyncio.run(main())


def test_it_refuses_to_chat_without_being_woken() -> None:
    store = Nowhere()
    embedder, _ = sleeping(store)
    request = LLMRequest(messages=(LLMMessage(role="user", content="hi"),))
    with pytest.raises(LLMCapabilityError, match="mini makes embeddings, not text"):
        embedder.stream(request, Marks())
    assert store.looked == 0
