"""An OpenVINO Model Server as an endpoint: a queue, a back-off, a key and counts of its own.

Its models are asked by tensors in KServe's form and by conversations in OpenAI's; both go by the
same endpoint, so that its limits hold for the two together.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.kserve_asking import adder
from headrace import AsyncClient, LLMError, tensor_of
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest
from headrace.stores.credentials import Credentials
from traffic.play import answer, play

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
X, Y = tensor_of("x", [1.0, 2.0]), tensor_of("y", [0.5, 0.25])
KEY = "key-of-this-endpoint"


class ModelServer:
    """Answers in both forms, a second after it was asked; how many it had at once."""

    def __init__(self, failing: int = 0) -> None:
        self.clock = ManualClock(monotonic=0.0, auto=True)
        self.failing = failing
        self.asked: list[tuple[float, str, str | None]] = []
        self.records: list[Any] = []

    def _answer(self, request: HttpRequest) -> ScriptedAnswer:
        path, headers = request.url.target, dict(request.headers)
        self.asked.append((self.clock.monotonic(), path, headers.get("authorization")))
        if self.failing:
            self.failing -= 1
            return ScriptedAnswer(status=503, body=b'{"error": "Loading model"}')
        if path == "/v3/chat/completions":
            assert isinstance(request.body, bytes)
            return answer(json.loads(request.body)["model"], gap_s=1)
        found = adder(request)
        return ScriptedAnswer(
            status=found.status, headers=found.headers, body=found.body, after_s=1.0
        )

    def client(self, **limits: Any) -> AsyncClient:
        client = AsyncClient(
            credentials=NOTHING,
            clock=self.clock,
            transport=ScriptedTransport(self._answer, self.clock),
            sinks=[self.records.append],
        )
        settings = {"provider": "ovms", "base_url": "http://npu:8000/v3", "api_key": KEY, **limits}
        client.endpoints.create("npu", **settings)
        return client


def test_calls_of_both_kinds_share_the_endpoints_places_and_its_queue():
    async def main() -> None:
        server = ModelServer()
        client = server.client(max_concurrent_requests=2, queue_size=2)
        calls = [
            client.infer([X, Y], model="npu/adder"),
            client.chat("hi", model="npu/qwen"),
            client.infer([X, Y], model="npu/adder"),
            client.chat("hi", model="npu/qwen"),
            client.infer([X, Y], model="npu/adder"),
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await server.clock.sleep(0.5)
        stats = client.endpoints.stats("npu")
        assert (stats.running, stats.waiting) == (2, 2)
        *served, refused = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(refused, LLMError)
        assert not any(isinstance(each, BaseException) for each in served)
        assert [round(at) for at, _, _ in server.asked] == [0, 0, 1, 1]
        assert sorted({path for _, path, _ in server.asked}) == [
            "/v2/models/adder/infer",
            "/v3/chat/completions",
        ]
        assert {key for _, _, key in server.asked} == {f"Bearer {KEY}"}
        # Each call has a record with an id of its own, the refused one too.
        assert len({record.call_id for record in server.records}) == 5
        assert sorted({record.operation for record in server.records}) == ["chat", "inference"]
        stats = client.endpoints.stats("npu")
        assert (stats.requests, stats.successes, stats.running, stats.waiting) == (5, 4, 0, 0)

    play(main)


def test_a_server_that_still_loads_is_asked_again_ever_later():
    async def main() -> None:
        server = ModelServer(failing=3)
        client = server.client(initial_retry_delay=1.0, backoff_factor=2.0, retry_jitter=0.0)
        result = await client.infer([X, Y], model="npu/adder")
        assert list(result.tensor("sum").data) == [1.5, 2.25]
        assert [at for at, _, _ in server.asked] == [0.0, 1.0, 3.0, 7.0]
        (record,) = server.records
        assert len(record.attempts) == 4

    play(main)


def test_so_many_a_minute_and_no_more():
    async def main() -> None:
        server = ModelServer()
        client = server.client(requests_per_minute=60.0, max_concurrent_requests=100)
        asked = [client.infer([X, Y], model="npu/adder") for _ in range(90)]
        await asyncio.gather(*asked)
        within = [at for at, _, _ in server.asked if at < 60.0]
        assert len(within) <= 120
        assert server.asked[-1][0] > 20.0

    play(main)
