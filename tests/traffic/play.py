"""A stage for calls: scripted answers, a clock that moves by itself, and the records they leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from random import Random
from typing import Any

from attrs import evolve

from headrace.backends.providers import Provider
from headrace.backends.remote import Remote
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import CallRecord, Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, Piece, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import TimeLimits
from headrace.numbers.live import Tally
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.endpoint import EndpointSettings, open_lane
from headrace.traffic.fallback import Alternative
from headrace.traffic.hedge import Hedging
from headrace.traffic.lane import Lane

ASK = LLMRequest(messages=(LLMMessage(role="user", content="hello"),), model="m")
PATIENT = TimeLimits(first_byte_s=None, idle_s=None)
EVENTS = (("content-type", "text/event-stream"),)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(**fields: object) -> bytes:
    return f"data: {json.dumps({'id': 'r', 'model': 'm', **fields})}\n\n".encode()


def said(text: str, reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


OPENING = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
ENDING = (said("", "stop"), event(choices=[], usage=USAGE), b"data: [DONE]\n\n")


def answer(*texts: str, gap_s: float = 0.0, after_s: float = 0.0) -> ScriptedAnswer:
    """A streamed answer of these pieces, each so many seconds after the one before it."""
    pieces = tuple(Piece(data=said(text), after_s=gap_s) for text in texts or ("hi",))
    return ScriptedAnswer(headers=EVENTS, body=(OPENING, *pieces, *ENDING), after_s=after_s)


def refusal(status: int, *headers: tuple[str, str], code: str | None = None) -> ScriptedAnswer:
    """An answer with an error in it."""
    error = {"message": f"says {status}", "type": "error", "code": code}
    body = json.dumps({"error": error}).encode()
    return ScriptedAnswer(
        status=status, headers=(("content-type", "application/json"), *headers), body=body
    )


def broken(*before: bytes) -> ScriptedAnswer:
    """A stream that is reset after these pieces."""
    return ScriptedAnswer(headers=EVENTS, body=before, fault="reset")


Answers = list[ScriptedAnswer] | Callable[..., ScriptedAnswer]


class Stage:
    """Everything a call touches; ``records`` are those of all calls that have ended."""

    def __init__(self, *, auto: bool = True, seed: int = 0) -> None:
        self.clock = ManualClock(monotonic=0.0, auto=auto)
        self.records: list[CallRecord] = []
        self.tally = Tally(0.0, models=["m"])
        self.traffic = Traffic(self.clock, self.tally, [self.records.append], Random(seed))
        self.transports: dict[str, ScriptedTransport] = {}
        self._calls = 0

    def lane(
        self,
        answers: Answers,
        name: str = "first",
        *,
        limits: TimeLimits | None = None,
        row: Provider | None = None,
        **settings: Any,
    ) -> Lane:
        """An endpoint that answers from a script; ``settings`` are those of EndpointSettings."""
        transport = self.transports[name] = ScriptedTransport(answers, self.clock)
        remote = Remote(
            name=name,
            provider=row or Provider(name="scripted"),
            base_url="http://scripted/v1",
            world=World(transport=transport, clock=self.clock),
            limits=limits or TimeLimits(),
        )
        return open_lane(remote, self.clock, EndpointSettings(**settings))

    def sent(self, name: str = "first") -> int:
        """How many requests that endpoint has seen."""
        return len(self.transports[name].requests)

    async def deltas(
        self,
        lane: Lane,
        *others: Lane | Alternative,
        request: LLMRequest = ASK,
        stream: bool = True,
        marks: Marks | None = None,
        total_s: float | None = None,
        hedging: Hedging | None = None,
        **changes: Any,
    ) -> list[LLMDelta]:
        """One call to its end."""
        self._calls += 1
        sheet = CallSheet(
            call_id=f"call-{self._calls}",
            operation="chat",
            queued=self.clock.monotonic(),
            stream=stream,
            total_s=total_s,
        )
        ways = [
            each if isinstance(each, Alternative) else Alternative(lane=each) for each in others
        ]
        call = (evolve(request, **changes), lane, sheet, marks or Marks())
        if not stream:  # as the client does; the gateway's tests have whole answers by ``run``
            return await self.traffic.answer(*call, fallbacks=ways, hedging=hedging)
        run = self.traffic.run(*call, fallbacks=ways, hedging=hedging)
        async with aclosing(run):
            return [delta async for delta in run]

    async def text(self, lane: Lane, *others: Lane | Alternative, **how: Any) -> str:
        """What one call is answered."""
        return "".join(each.text_delta or "" for each in await self.deltas(lane, *others, **how))


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it on a loop of its own; fail on tasks and unheard exceptions that it leaves behind."""
    complaints: list[dict[str, Any]] = []

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(20):
            await main()
        for _ in range(20):  # cancelled tasks end in the next turns of the loop
            if asyncio.all_tasks() == {asyncio.current_task()}:
                break
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(guarded())
    assert complaints == []


def is_idle(lane: Lane) -> bool:
    """Whether nobody holds or waits for anything there."""
    door = lane.admission
    return (door.running, door.waiting, door.tokens) == (0, 0, 0)
