"""Limits a minute that an engine's entry has, kept by the client that asks it."""

from __future__ import annotations

import asyncio

import pytest

from headrace import AsyncClient
from headrace.contracts.engines import EngineConfig
from headrace.contracts.record import CallRecord
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.wire.json import encode

ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def test_an_engines_requests_a_minute_are_kept_by_its_client():
    records: list[CallRecord] = []

    async def main() -> None:
        clock = ManualClock(monotonic=0.0, auto=True)
        reply = ScriptedAnswer(
            status=200, headers=(("content-type", "application/json"),), body=encode(ANSWER)
        )
        engine = EngineConfig(
            name="mine",
            backend="openai-compatible",
            model="m",
            endpoint="http://127.0.0.1:1/v1",
            requests_per_minute=2,
        )
        client = AsyncClient(
            engine=engine,
            transport=ScriptedTransport([reply] * 4, clock),
            clock=clock,
            sinks=[records.append],
        )
        await asyncio.gather(*(client.chat(f"{i}") for i in range(4)))

    asyncio.run(main())
    admitted = sorted(record.timeline.admitted or 0.0 for record in records)
    assert admitted == pytest.approx([0, 0, 30, 60])


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_lets_nothing_through_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        EngineConfig(name="mine", model="m", **{field: 0})
