"""What a call cost is in its answer and in its record."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from decimal import Decimal

from headrace import AsyncClient, CallRecord
from headrace.contracts.engines import EngineConfig
from headrace.net.clock import SystemClock
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.numbers.price import rates_of
from headrace.wire.json import encode

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": USAGE,
}


def test_a_priced_model_costs_what_its_rates_say_in_answer_and_record() -> None:
    records: list[CallRecord] = []

    async def run():
        reply = ScriptedAnswer(
            status=200, headers=(("content-type", "application/json"),), body=encode(ANSWER)
        )
        client = AsyncClient(
            "openai/gpt-4o-mini",
            api_key="sk-not-real",
            transport=ScriptedTransport([reply]),
            sinks=[records.append],
        )
        return await client.chat("Hello")

    response = asyncio.run(run())
    today = datetime.fromtimestamp(SystemClock().wall(), timezone.utc).date()
    rates = rates_of("openai", "gpt-4o-mini", today)
    assert rates is not None
    # The published rates: 0.15 and 0.60 dollars per million tokens.
    expected = (Decimal(1000) * Decimal("0.15") + Decimal(500) * Decimal("0.60")) / 1_000_000
    assert response.price_usd == expected
    assert [record.price_usd for record in records] == [expected]
    assert "sk-not-real" not in repr((response, records))


def test_an_engine_with_prices_of_its_own_costs_those_in_answer_and_record() -> None:
    records: list[CallRecord] = []

    async def run():
        reply = ScriptedAnswer(
            status=200, headers=(("content-type", "application/json"),), body=encode(ANSWER)
        )
        engine = EngineConfig(
            name="mine",
            backend="openai",
            model="gpt-4o-mini",
            endpoint="http://127.0.0.1:1/v1",
            api_key="sk-not-real",
            input_price_usd=2,
            output_price_usd=4,
        )
        client = AsyncClient(
            engine=engine, transport=ScriptedTransport([reply]), sinks=[records.append]
        )
        return await client.chat("Hello")

    response = asyncio.run(run())
    expected = (Decimal(1000) * 2 + Decimal(500) * 4) / 1_000_000
    assert response.price_usd == expected
    assert [record.price_usd for record in records] == [expected]
