"""How several processes, or machines, drive one plan: who does what, and how it is put together."""

from __future__ import annotations

from typing import Any

from attrs import asdict, evolve, frozen
from msgspec import msgpack

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Closed, LoadPlan
from headrace.contracts.load_report import Ended
from headrace.numbers.load_tally import LoadTally
from headrace.numbers.trust_facts import SenderFacts, together


@frozen
class Share:
    """Which part of a plan a process drives: the ``part``-th of ``parts``."""

    part: int = 0
    parts: int = 1

    def of(self, whole: int) -> int:
        """This part of ``whole``: the first ones have one more where it does not divide."""
        return whole // self.parts + (self.part < whole % self.parts)


@frozen
class Driven:
    """What one process has to tell of its share. ``started`` is the time of day it began."""

    tally: LoadTally
    facts: SenderFacts
    ended: Ended
    started: float
    notes: tuple[str, ...] = ()


def split(plan: LoadPlan, share: Share, *, by: str = "workers", each: int = 1) -> LoadPlan:
    """The plan of one share: fewer callers, requests and places; the seed and the rate stay.

    An open loop's schedule is made whole by everybody, who takes every so manieth of it. Where there
    is too little of something, LLMInvalidRequestError says how many ``by`` of ``each`` there may be.
    """
    if share.parts == 1:
        return plan
    counts: dict[str, Any] = {
        name: share.of(value)
        for name in ("requests", "at_most", "warmup_requests", "most_errors")
        if (value := getattr(plan, name)) is not None
    }
    for name in ("requests", "at_most", "most_errors"):
        if counts.get(name) == 0:
            raise _too_few(name, getattr(plan, name), share, by, each)
    arrivals = plan.arrivals
    if isinstance(arrivals, Closed):
        mine = share.of(arrivals.concurrency)
        if not mine:
            raise _too_few("concurrency", arrivals.concurrency, share, by, each)
        arrivals = evolve(arrivals, concurrency=mine)
    return evolve(plan, arrivals=arrivals, **counts)


def _too_few(name: str, value: int, share: Share, by: str, each: int) -> LLMInvalidRequestError:
    whom = by if each == 1 else f"{by} of {each} workers"
    most = f"to {value // each}" if value >= each else "and --workers"
    return LLMInvalidRequestError(
        f"{name} is {value}, too few for {share.parts // each} {whom}; lower --{by} {most}",
        param=by,
    )


def write_driven(driven: Driven) -> bytes:
    """``driven`` for another process."""
    return msgpack.encode(
        {
            "tally": driven.tally.to_plain(),
            "facts": asdict(driven.facts),
            "ended": driven.ended,
            "started": driven.started,
            "notes": driven.notes,
        }
    )


def read_driven(plan: LoadPlan, data: bytes) -> Driven:
    """What ``write_driven`` wrote."""
    said: dict[str, Any] = msgpack.decode(data)
    return Driven(
        tally=LoadTally.from_plain(plan, said["tally"]),
        facts=SenderFacts(**said["facts"]),
        ended=said["ended"],
        started=said["started"],
        notes=tuple(said["notes"]),
    )


_GRAVITY: tuple[Ended, ...] = ("complete", "interrupted", "too many errors", "target lost")


def all_together(plan: LoadPlan, parts: list[Driven], *, lost: int = 0) -> Driven:
    """The shares of one run as one; ``lost`` processes died and took theirs with them."""
    tally = LoadTally(plan)
    for each in parts:
        tally.merge(each.tally)
    facts = together(each.facts for each in parts)
    notes = dict.fromkeys(note for each in parts for note in each.notes)
    if lost:
        facts = evolve(facts, workers=facts.workers + lost, workers_lost=lost)
        notes[f"{lost} of {len(parts) + lost} workers died; what they measured is lost"] = None
    return Driven(
        tally=tally,
        facts=facts,
        ended=max((each.ended for each in parts), key=_GRAVITY.index),
        started=min(each.started for each in parts),
        notes=tuple(notes),
    )
