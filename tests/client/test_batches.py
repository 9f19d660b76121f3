"""The client's batches at each vendor's API, and at our own gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains.batch_vendors import Vendors, vendors
from gateway.echo import echoing
from gateway.far import NO_MODEL
from gateway.served import Served
from headrace import (
    Client,
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMMessage,
    LLMRequest,
)
from headrace.contracts.batches import Batch
from headrace.stores.credentials import Credentials

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
VENDORS = ("openai", "anthropic", "mistral")


@pytest.fixture
def server() -> Iterator[Vendors]:
    def answer(prompt: str, before: int) -> Any:
        return {"bad": 400, "late": "expired", "busy": 429}.get(prompt, f"<{prompt}>")

    with vendors(answer) as made:
        yield made


def client(vendor: str, url: str, model: str = "m") -> Client:
    return Client(model, provider=vendor, base_url=url, api_key="k", credentials=NOTHING)


def ask(text: str) -> LLMRequest:
    return LLMRequest(messages=[LLMMessage(role="user", content=text)], max_tokens=9)


def answers(client: Client, batch: Batch) -> dict[str, str]:
    """The text of each answer, or the kind of its error."""
    return {
        each.custom_id: type(each.error).__name__ if each.response is None else each.response.text
        for each in client.batches().results(batch)
    }


@pytest.mark.parametrize("vendor", VENDORS)
def test_requests_are_handed_in_together_and_answers_found_by_their_ids(
    server: Vendors, vendor: str
) -> None:
    with client(vendor, server.url(vendor)) as made:
        batches = made.batches()
        texts = {"a": "good", "b": "bad", "c": "late", "d": "busy"}
        batch = batches.submit({name: ask(text) for name, text in texts.items()})
        looks: list[Batch] = []
        ended = batches.wait(batch.batch_id, on_batch=looks.append)
        assert ended.has_ended
        assert looks[-1] == ended
        assert ended.counts.total == 4
        assert ended.counts.succeeded == 1
        assert answers(made, ended) == {
            "a": "<good>",
            "b": "LLMInvalidRequestError",
            "c": "LLMTimeoutError",
            "d": "LLMRateLimitError",
        }


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_batch_is_cancelled_and_what_was_done_is_read(server: Vendors, vendor: str) -> None:
    server.ready.clear()
    with client(vendor, server.url(vendor)) as made:
        batches = made.batches()
        batch = batches.submit({name: ask(name) for name in "abcd"})
        assert batches.cancel(batch.batch_id).phase == "cancelling"
        ended = batches.wait(batch.batch_id)
        assert ended.phase == "cancelled"
        assert sorted(answers(made, ended).values()) == ["<a>", "<b>"] + 2 * ["LLMCancelledError"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_look_that_fails_for_now_is_repeated(server: Vendors, vendor: str) -> None:
    with client(vendor, server.url(vendor)) as made:
        batch = made.batches().submit({"a": ask("x")})
        path = {
            "openai": "batches",
            "anthropic": "messages/batches",
            "mistral": "batch/jobs",
        }[vendor]
        server.refuse = {f"GET {path}/{batch.batch_id}": [500, 429, 503]}
        assert made.batches().wait(batch.batch_id).has_ended


def test_a_key_that_is_refused_is_told_of_at_once(server: Vendors) -> None:
    server.refuse = {"POST files": [401]}
    with client("openai", server.url("openai")) as made, pytest.raises(Exception, match="not now"):
        made.batches().submit({"a": ask("x")})
    assert server.calls("POST files") == 1


def test_ids_that_a_provider_would_not_take_are_refused_before_anything_is_sent(
    server: Vendors,
) -> None:
    with client("openai", server.url("openai")) as made:
        for name in ("", "a b", "é", "x" * 65):
            with pytest.raises(LLMInvalidRequestError, match="must be 1 to 64"):
                made.batches().submit({name: ask("x")})
        with pytest.raises(LLMInvalidRequestError, match="empty"):
            made.batches().submit({})
    assert server.seen == []


def test_a_provider_without_a_batch_api_says_so() -> None:
    made = client("lmstudio", "http://127.0.0.1:1/v1")
    with made, pytest.raises(LLMCapabilityError, match="no batch API"):
        made.batches()


def test_our_own_gateway_has_all_three(tmp_path: Path) -> None:
    with echoing() as echo:
        config = {
            **NO_MODEL,
            "backends": [echo.backend(max_concurrent_requests=16)],
            "batches": {"folder": str(tmp_path / "batches")},
        }
        served = Served(tmp_path, config)
        try:
            urls = {
                "openai-compatible": f"{served.url}/v1",
                "anthropic": served.url,
                "mistral": f"{served.url}/v1",
            }
            for vendor, url in urls.items():
                with client(vendor, url) as made:
                    names = {f"id-{n}": ask(f"text {n}") for n in range(20)}
                    batch = made.batches().submit(names)
                    ended = made.batches().wait(batch.batch_id)
                    assert answers(made, ended) == {f"id-{n}": f"text {n}" for n in range(20)}
        finally:
            served.stop()
