"""The Messages face over backends that do what a test needs, in memory and by a clock of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from attrs import evolve

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMUnavailableError
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Usage
from headrace.gateway.app import Gateway
from headrace.gateway.config import Config
from headrace.gateway.guard import Guard
from headrace.gateway.routes import Defaults, Route, Routes, Way
from headrace.gateway.standing import Standing
from headrace.net.clock import Clock
from headrace.net.manual_clock import ManualClock
from headrace.numbers.live import Tally
from headrace.traffic.admission import Admission
from headrace.traffic.call import Traffic
from headrace.traffic.lane import Lane
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice
from headrace.traffic.routing.policies import Ordered

HELLO = {
    "model": "slow",
    "max_tokens": 8,
    "stream": True,
    "messages": [{"role": "user", "content": "Hi"}],
}
TOLD = Usage(prompt_tokens=7, completion_tokens=2, total_tokens=9)


class Slow:
    """A backend that says one word after each of some pauses, in seconds."""

    name = "slow"

    def __init__(self, clock: Clock, pauses: Sequence[float]) -> None:
        self.clock, self.pauses = clock, pauses

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        for place, pause in enumerate(self.pauses):
            await self.clock.sleep(pause)
            yield LLMDelta(text_delta=f"{place} ")
        yield LLMDelta(finish_reason="stop", usage_delta=TOLD)

    async def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def status(self) -> BackendStatus:
        return BackendStatus(ok=True)

    async def aclose(self) -> None:
        return None


class Counting(Slow):
    """One that counts prompts too, in so many seconds or not at all; ``ended`` is how that went."""

    def __init__(
        self, clock: Clock, pauses: Sequence[float], takes_s: float, failure: Exception | None
    ) -> None:
        super().__init__(clock, pauses)
        self.takes_s, self.failure = takes_s, failure
        self.asked: list[LLMRequest] = []
        self.ended: list[str] = []

    async def count_tokens(self, request: LLMRequest) -> int:
        self.asked.append(request)
        try:
            await self.clock.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        if self.failure is not None:
            raise self.failure
        return 7


def play(
    backend_of: Callable[[Clock], Slow],
    body: dict[str, Any] = HELLO,
    *,
    path: str = "/v1/messages",
    draining: bool = False,
    leave_after_s: float | None = None,
    route_of: Callable[[Lane, Clock], Route] = lambda lane, _: Route(model="slow", lane=lane),
) -> tuple[int, list[dict[str, Any]], Slow, float]:
    """The status, the events (or the one body), the backend, and how long it took."""

    async def run() -> tuple[int, list[dict[str, Any]], Slow, float]:
        clock = ManualClock(auto=True)
        backend = backend_of(clock)
        tally = Tally(clock.monotonic(), models=["slow"])
        door = Admission(max_running=1, max_waiting=1, timeout_s=600)
        gateway = Gateway(
            standing=Standing(
                config=Config(),
                routes=Routes([route_of(Lane(backend=backend, admission=door), clock)]),
                guard=Guard(()),
            ),
            traffic=Traffic(clock, tally),
            tally=tally,
            clock=clock,
        )
        gateway.draining = draining
        sent: list[dict[str, Any]] = []
        inbox = [{"type": "http.request", "body": json.dumps(body).encode()}]

        async def receive() -> dict[str, Any]:
            if inbox:
                return inbox.pop()
            if leave_after_s is None:
                await asyncio.Event().wait()
            await clock.sleep(leave_after_s or 0)
            return {"type": "http.disconnect"}

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
        begin = clock.monotonic()
        await gateway.application()(scope, receive, send)
        assert door.running == 0
        said = b"".join(each.get("body", b"") for each in sent).decode()
        lines = [line for line in said.splitlines() if line.startswith(("data: {", "{"))]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        took = clock.monotonic() - begin
        return (sent[0]["status"] if sent else 0), events, backend, took

    return asyncio.run(run())


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_a_slow_answer_is_kept_alive_by_pings() -> None:
    _, events, _, _ = play(lambda clock: Slow(clock, [1, 35, 1]))
    first_word = kinds(events).index("content_block_delta")
    second_word = kinds(events).index("content_block_delta", first_word + 1)
    assert kinds(events)[first_word + 1 : second_word].count("ping") == 3
    assert kinds(events).count("ping") == 3
    assert kinds(events)[-2:] == ["message_delta", "message_stop"]


def test_nothing_comes_before_the_answer_has_begun() -> None:
    status, events, _, _ = play(lambda clock: Slow(clock, [100]))
    assert status == 200
    assert kinds(events)[0] == "message_start"
    assert "ping" not in kinds(events)


def test_a_steady_answer_has_no_pings() -> None:
    _, events, _, _ = play(lambda clock: Slow(clock, [1] * 40))
    assert "ping" not in kinds(events)


def test_openais_streams_have_no_pings() -> None:
    _, events, _, _ = play(
        lambda clock: Slow(clock, [1, 100]), path="/v1/chat/completions", body=HELLO
    )
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_request_to_a_draining_server_is_told_in_this_form(path: str) -> None:
    status, (answer,), _, _ = play(lambda clock: Slow(clock, [1]), path=path, draining=True)
    assert status == 503
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "api_error"
    assert "being stopped" in answer["error"]["message"]


def counting(
    pauses: Sequence[float], takes_s: float = 0.01, failure: Exception | None = None
) -> Callable[[Clock], Counting]:
    return lambda clock: Counting(clock, pauses, takes_s, failure)


def start_and_end(events: list[dict[str, Any]]) -> tuple[int, int]:
    start = events[0]["message"]["usage"]
    end = next(event for event in events if event["type"] == "message_delta")["usage"]
    assert start["output_tokens"] == 0
    return start["input_tokens"], end["input_tokens"]


def test_a_stream_begins_with_the_prompts_length() -> None:
    _, events, backend, took = play(counting([1, 1]))
    assert start_and_end(events) == (7, 7)
    assert took == pytest.approx(2)
    assert [request.model for request in backend.asked] == ["slow"]


def test_a_backend_that_does_not_count_tells_it_at_the_end() -> None:
    _, events, _, _ = play(lambda clock: Slow(clock, [1, 1]))
    assert start_and_end(events) == (0, 7)


@pytest.mark.parametrize(
    "backend",
    [counting([1, 1], 1e6), counting([1, 1], failure=LLMUnavailableError("it is gone"))],
    ids=["stuck", "failed"],
)
def test_a_count_that_does_not_come_costs_the_answer_nothing(
    backend: Callable[[Clock], Counting],
) -> None:
    status, events, _, took = play(backend)
    assert status == 200
    assert start_and_end(events) == (0, 7)
    assert took < 3


def test_a_count_ends_with_its_request() -> None:
    status, events, backend, _ = play(counting([1e6], 1e5), leave_after_s=3)
    assert (status, events) == (0, [])
    assert backend.ended == ["cancelled"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
def test_only_streamed_messages_are_counted(path: str) -> None:
    body = {**HELLO, "stream": path != "/v1/messages"}
    if path == "/v1/responses":
        body = {"model": "slow", "input": "Hi", "stream": True}
    _, _, backend, _ = play(counting([1]), body, path=path)
    assert backend.asked == []


def test_the_backend_that_answers_counts_and_not_one_that_the_request_does_not_fit() -> None:
    def route_of(lane: Lane, clock: Clock) -> Route:
        small = evolve(lane, backend=counting([])(clock))
        ways = [Way(lane=small, defaults=Defaults(context_tokens=4)), Way(lane=lane)]
        choice = Choice("slow", [Candidate(way=way) for way in ways], Ordered(), clock)
        return Route(model="slow", lane=small, choice=choice)

    status, events, backend, _ = play(counting([1, 1]), route_of=route_of)
    assert status == 200
    assert start_and_end(events) == (7, 7)
    assert [request.model for request in backend.asked] == ["slow"]
