"""Backends to choose among: lanes that are as busy, as quick and as dear as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from attrs import evolve

from headrace.contracts.errors import LLMRateLimitError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.requests import LLMRequest, TaskProfile
from headrace.net.scripted import ManualClock
from headrace.numbers.pace import Pace
from headrace.traffic.endpoint import open_lane
from headrace.traffic.fallback import Alternative
from headrace.traffic.health import Health
from headrace.traffic.routing.asking import AsRequest
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice, Chosen
from headrace.traffic.routing.policies import (
    ByTask,
    LeastBusy,
    LowestCost,
    LowestLatency,
    Ordered,
    Policy,
    Weighted,
)


class Named:
    """A backend of which nothing is asked here but its name."""

    def __init__(self, name: str) -> None:
        self.name = name


def backend(
    clock: ManualClock,
    name: str,
    *,
    usd_per_token: float | None = None,
    took_s: float | None = None,
    busy: int = 0,
    **told: Any,
) -> Candidate[Alternative]:
    """One of a route: what it costs, how long each of its answers took, how many it has now."""
    lane = open_lane(Named(name), clock)  # type: ignore[arg-type]
    lane = evolve(lane, health=Health(clock))
    lane.admission.running = busy
    candidate = Candidate(
        way=Alternative(lane=lane),
        price=lambda _, prompt, answer: (
            None if usd_per_token is None else usd_per_token * (prompt + answer)
        ),
        pace=Pace(),
        **told,
    )
    if took_s is not None:
        for _ in range(5):
            answered(candidate, clock, took_s)
    return candidate


def answered(candidate: Candidate[Alternative], clock: ManualClock, took_s: float) -> None:
    """It has answered one more call, in so many seconds."""
    now = clock.monotonic()
    timeline = Timeline(anchor=now, wall_anchor=0.0, queued=now - took_s, done=now)
    candidate.pace.add(CallRecord(call_id="c", operation="chat", timeline=timeline))


def choice(
    clock: ManualClock,
    candidates: Sequence[Candidate[Alternative]],
    policy: str | Policy = "ordered",
    *,
    seed: int = 0,
    **settings: Any,
) -> Choice[Alternative]:
    """A route over ``candidates``."""
    random = Random(seed)
    made: dict[str, Policy] = {
        "ordered": Ordered(),
        "weighted": Weighted(candidates, random),
        "least_busy": LeastBusy(random),
        "lowest_latency": LowestLatency(),
        "lowest_cost": LowestCost(),
        "task_profile": ByTask(),
    }
    by = made[policy] if isinstance(policy, str) else policy
    return Choice("m", candidates, by, clock, **settings)


POLICIES = (
    *("ordered", "weighted", "least_busy", "lowest_latency", "lowest_cost", "task_profile"),
)


def asking(
    text: str = "hello", *, system: str | None = None, max_tokens: int | None = 100, **fields: Any
) -> AsRequest:
    """A request with a prompt of that text."""
    profile = fields.pop("profile", None)
    turns = [LLMMessage(role="user", content=text)]
    if system is not None:
        turns.insert(0, LLMMessage(role="system", content=system))
    return AsRequest(
        request=LLMRequest(
            messages=tuple(turns),
            max_tokens=max_tokens,
            task_profile=None if profile is None else TaskProfile(**profile),
            **fields,
        ),
        model="m",
    )


def names(chosen: Chosen[Alternative]) -> list[str]:
    """Whom a call asks, in turn."""
    return [way.lane.name for way in chosen.ways]


def falls_ill(candidate: Candidate[Alternative], for_s: float = 60.0) -> None:
    """It asks to be left alone."""
    health = candidate.way.lane.health
    assert health is not None
    health.failed(health.era, LLMRateLimitError("leave me alone", retry_after_s=for_s))
