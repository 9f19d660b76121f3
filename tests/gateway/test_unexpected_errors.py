"""A mistake of ours: the caller hears that it happened, and only the log hears what it was."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.gateway.app import Gateway
from headrace.gateway.config import Config
from headrace.gateway.guard import Guard
from headrace.gateway.routes import Route, Routes
from headrace.gateway.standing import Standing
from headrace.net.clock import SystemClock
from headrace.numbers.live import Tally
from headrace.traffic.admission import Admission
from headrace.traffic.call import Traffic
from headrace.traffic.lane import Lane

DETAIL = "the detail that only we may see"


class Broken:
    """A backend with a mistake in it."""

    name = "broken"

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        if request.model is not None:
            raise RuntimeError(DETAIL)
        yield LLMDelta()

    async def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def status(self) -> BackendStatus:
        return BackendStatus(ok=True)

    async def aclose(self) -> None:
        return None


def ask(path: str, body: dict[str, Any]) -> tuple[int, dict[bytes, bytes], Any, float]:
    """One request to a gateway over Broken, in memory; with the requests it counts as failed."""

    async def run() -> tuple[int, dict[bytes, bytes], Any, float]:
        clock = SystemClock()
        tally = Tally(clock.monotonic(), models=["broken"])
        door = Admission(max_running=1, max_waiting=1, timeout_s=5)
        gateway = Gateway(
            standing=Standing(
                config=Config(),
                routes=Routes([Route(model="broken", lane=Lane(backend=Broken(), admission=door))]),
                guard=Guard(()),
            ),
            traffic=Traffic(clock, tally),
            tally=tally,
            clock=clock,
        )
        sent: list[dict[str, Any]] = []
        inbox = [{"type": "http.request", "body": json.dumps(body).encode()}]

        async def receive() -> dict[str, Any]:
            if inbox:
                return inbox.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        await gateway.application()(scope, receive, send)
        assert door.running == 0
        answer = json.loads(b"".join(each.get("body", b"") for each in sent))
        failed = tally.snapshot(clock.monotonic()).requests.get("error", 0)
        return sent[0]["status"], dict(sent[0]["headers"]), answer, failed

    return asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        (
            "/v1/messages",
            {"max_tokens": 4, "model": "broken", "messages": [{"role": "user", "content": "Hi"}]},
        ),
    ],
)
def test_a_mistake_of_ours_is_a_plain_500_and_its_detail_is_in_the_log(
    path: str, body: dict[str, Any], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="headrace"):
        logging.getLogger("headrace").propagate = True
        status, headers, answer, failed = ask(path, {**body, "stream": stream})
    assert status == 500
    if path == "/v1/messages":
        assert answer["type"] == "error"
        assert answer["error"]["type"] == "api_error"
        assert answer["request_id"].encode() == headers[b"request-id"]
    else:
        assert answer["error"]["type"] == "server_error"
        assert answer["error"]["code"] == "internal_error"
    assert DETAIL not in json.dumps(answer)
    (told,) = [record for record in caplog.records if record.getMessage() == "unexpected error"]
    assert told.exc_info is not None
    assert DETAIL in str(told.exc_info[1])
    assert told.request_id.encode() == headers[b"x-request-id"]  # type: ignore[attr-defined]
    assert failed == 1
