"""A client whose late requests are asked a second time."""

from __future__ import annotations

import asyncio

import pytest

from headrace import AsyncClient, CallRecord, Client, HedgePolicy, LLMInvalidRequestError
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest
from headrace.stores.credentials import Credentials
from traffic.play import answer

PLACES = {"VLLM_BASE_URL": "http://slow/v1", "SGLANG_BASE_URL": "http://quick/v1"}
FOUND = Credentials(environment=PLACES, dotenv=None, config=None, seed=None)
SOON = HedgePolicy(after_s=0.5, max_extra=1.0)


def answered(request: HttpRequest) -> ScriptedAnswer:
    slow = request.url.host == "slow"
    return answer("late" if slow else "quick", after_s=20 if slow else 0.1)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_first_of_its_fallbacks_answers_where_it_is_quicker(streamed: bool) -> None:
    async def main() -> None:
        clock, records = ManualClock(auto=True), list[CallRecord]()
        async with AsyncClient(
            "vllm/m",
            fallbacks=["sglang/n"],
            hedge=SOON,
            credentials=FOUND,
            clock=clock,
            transport=ScriptedTransport(answered, clock),
            sinks=[records.append],
        ) as client:
            if streamed:
                events = [event async for event in client.stream_chat("hi")]
                text = "".join(event.delta_text or "" for event in events)
            else:
                response = await client.chat("hi")
                text = response.text
                assert response.provider == "sglang"
            assert text == "quick"
        (record,) = records
        assert record.hedge is not None
        assert (record.hedge.outcome, record.backend) == ("won", "sglang")
        assert clock.monotonic() == pytest.approx(1000.6)

    asyncio.run(main())


def test_without_anybody_to_ask_it_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="fallbacks"):
        Client("vllm/m", hedge=SOON, credentials=FOUND)
    client = Client("vllm/m", hedge=HedgePolicy(same_backend=True), credentials=FOUND)
    assert client.config_snapshot()["hedge"] == {
        "after_p": 0.95,
        "after_s": None,
        "max_extra": 0.05,
        "min_samples": 100,
        "same_backend": True,
    }
