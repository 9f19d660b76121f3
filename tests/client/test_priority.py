"""Calls that wait for one place go by their priority, which the parameters of a chat may say."""

from __future__ import annotations

import asyncio
import json

from attrs import evolve

from headrace import AsyncClient, Credentials, EndpointSettings, LLMChatParams
from headrace.net.scripted import ManualClock, ScriptedTransport
from traffic.play import answer

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)


def test_the_priority_of_chat_params_orders_those_that_wait() -> None:
    clock = ManualClock(monotonic=0.0, auto=True)
    answers = [evolve(answer("hi"), after_s=1.0) for _ in range(4)]
    transport = ScriptedTransport(answers, clock)

    async def run() -> None:
        async with AsyncClient(
            "m",
            base_url="https://far.example/v1",
            credentials=NOTHING,
            transport=transport,
            clock=clock,
            endpoint=EndpointSettings(max_running=1),
        ) as client:
            # The first is let in at once; the others wait for it.
            asked = [("first", "normal"), ("last", "low"), ("third", "normal"), ("second", "high")]
            await asyncio.gather(
                *(client.chat(text, params=LLMChatParams(priority=p)) for text, p in asked)
            )

    asyncio.run(run())
    said = [json.loads(request.body)["messages"][0]["content"] for request in transport.requests]
    assert said == ["first", "second", "third", "last"]
