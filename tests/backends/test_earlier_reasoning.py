"""Reasoning of earlier turns: every row sends it, or says by name that it does not."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from formats import stream_headers, streamed
from headrace.backends.providers import PROVIDERS, Provider
from headrace.backends.remote import Remote
from headrace.contracts.messages import LLMMessage, ReasoningPart
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.net.clock import World
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport

# What each form of it says, in words that nothing else in a request has.
FORMS: dict[str, tuple[LLMMessage, tuple[str, ...]]] = {
    "text": (LLMMessage(role="assistant", content="Well.", reasoning="PONDERED"), ("PONDERED",)),
    "signed": (
        LLMMessage(
            role="assistant",
            content="Well.",
            reasoning="PONDERED",
            reasoning_parts=(ReasoningPart(text="PONDERED", signature="SIGNED"),),
        ),
        ("PONDERED", "SIGNED"),
    ),
    "hidden": (
        LLMMessage(
            role="assistant",
            content="Well.",
            reasoning_parts=(ReasoningPart(encrypted="HIDDEN"),),
        ),
        ("HIDDEN",),
    ),
    "named": (
        LLMMessage(
            role="assistant",
            content="Well.",
            reasoning="PONDERED",
            reasoning_parts=(ReasoningPart(text="PONDERED", encrypted="HIDDEN", part_id="rs_1"),),
        ),
        ("PONDERED", "HIDDEN"),
    ),
}


def sent(row: Provider, turn: LLMMessage) -> tuple[str, list[str]]:
    """The body that goes out with ``turn`` in the conversation, and what is told as dropped."""
    hello = LLMMessage(role="user", content="hello")
    request = LLMRequest(messages=(hello, turn, hello), model="some-model", max_tokens=5)

    async def main() -> tuple[str, list[str]]:
        body = b"".join(streamed(row.format, "Hi"))
        script = ScriptedAnswer(body=body, headers=stream_headers(row.format))
        transport = ScriptedTransport([script])
        remote = Remote(
            name="there",
            provider=row,
            base_url=row.base_url or "https://nowhere.example",
            world=World(transport=transport, clock=transport.clock),
            key="a-key-of-nobody-0123456789",  # type: ignore[arg-type]
        )
        marks = Marks()
        async for _ in remote.stream(request, marks):
            pass
        body = transport.requests[0].body
        assert isinstance(body, bytes)
        return body.decode(), list(marks.dropped)

    return asyncio.run(main())


CHATS = [name for name, row in PROVIDERS.items() if row.chat_path is not None]


@pytest.mark.parametrize(("name", "form"), list(product(CHATS, FORMS)))
def test_earlier_reasoning_is_sent_or_named_as_dropped(name: str, form: str) -> None:
    turn, words = FORMS[form]
    body, dropped = sent(PROVIDERS[name], turn)
    missing = [word for word in words if word not in body]
    told = [each for each in dropped if each.startswith("messages.reasoning")]
    assert bool(told) is bool(missing), (missing, dropped)
    assert ("messages.reasoning" in told) is ("PONDERED" in missing)


def test_a_row_without_a_field_for_it_says_so() -> None:
    turn, _ = FORMS["text"]
    for name in ("openai", "azure", "groq", "mistral", "xai", "anthropic"):
        assert sent(PROVIDERS[name], turn)[1] == ["messages.reasoning"], name
