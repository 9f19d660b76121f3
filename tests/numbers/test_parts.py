"""Counts of several processes, added up, are the counts of all the calls."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from headrace.contracts.record import CallRecord, Hedge, HedgeOutcome, Timeline
from headrace.contracts.responses import Usage
from headrace.numbers.history import RECENT_CALLS, History
from headrace.numbers.live import MAX_NAMES, MAX_SERIES, Tally
from headrace.numbers.parts import (
    CallsPart,
    HistoryPart,
    add_calls,
    add_history,
    take_calls,
    take_history,
)
from headrace.numbers.prometheus import write_metrics

NOW = 700.0
OUTCOMES = get_args(HedgeOutcome)


@st.composite
def records(draw):
    """A finished call; its times are such that their sums are exact in any order."""
    part = st.integers(0, 4096).map(lambda n: n / 64)
    done = draw(st.integers(0, int(NOW) * 64)) / 64
    took, to_first = draw(part), draw(part)
    known = draw(st.booleans())
    error = draw(st.sampled_from([None, None, "LLMTimeoutError", "LLMCancelledError"]))
    return CallRecord(
        call_id="c",
        operation=draw(st.sampled_from(["chat", "embeddings"])),
        timeline=Timeline(
            anchor=done,
            wall_anchor=1_700_000_000.0 + done,
            queued=done - took,
            admitted=done - took if known else None,
            sent=done - took,
            first_token=done - took + to_first if known else None,
            last_token=done,
            done=done,
        ),
        requested_model=draw(st.sampled_from(["box", "big", None])),
        model=draw(st.sampled_from(["smol", None])),
        backend=draw(st.sampled_from(["local", "cloud"])),
        provider=draw(st.sampled_from(["llamacpp", None])),
        usage=None
        if error
        else Usage(prompt_tokens=7, completion_tokens=draw(st.sampled_from([2, 5, 9, None]))),
        price_usd=draw(st.sampled_from([None, Decimal("0.001"), Decimal("12.5")])),
        batch_occupancy=draw(st.sampled_from([None, 0.25, 1.0])),
        hedge=draw(st.sampled_from([None, *(Hedge(outcome=o, after_s=1.0) for o in OUTCOMES)])),
        finish_reason=None if error else draw(st.sampled_from(["stop", "length", "odd"])),
        error_kind=error,
        status=503 if error else 200,
    )


# Each call with the process that it was made in, and each process' parts cut anywhere.
made = st.lists(st.tuples(records(), st.integers(0, 3), st.booleans()), max_size=40)


def sent(part):
    """``part`` as it is at the other end."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=type(part))


def shown(tally):
    families = text_string_to_metric_families(write_metrics(tally, NOW).decode())
    return {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}


@given(made)
def test_what_processes_counted_adds_up_to_what_one_would_have_counted(calls):
    alone, together = Tally(0.0, ["box"]), Tally(0.0, ["box"])
    workers = [Tally(float(i), ["box"]) for i in range(3)]
    for record, place, cut in calls:
        alone.add(record)
        # The fourth is the one who gathers, and has calls of its own.
        (workers[place] if place < 3 else together).add(record)
        if cut and place < 3:
            add_calls(together, sent(take_calls(workers[place])))
    for worker in workers:
        add_calls(together, sent(take_calls(worker)))
        assert take_calls(worker) == CallsPart([], [])
    assert shown(together) == shown(alone)
    one, other = alone.snapshot(NOW), together.snapshot(NOW)
    assert other == one


@given(made)
def test_the_last_minutes_of_processes_add_up_to_those_of_one(calls):
    alone, together = History(), History()
    workers = [History() for _ in range(3)]
    for record, place, cut in calls:
        alone.add(record)
        (workers[place] if place < 3 else together).add(record)
        if cut and place < 3:
            add_history(together, sent(take_history(workers[place])))
    for worker in workers:
        add_history(together, sent(take_history(worker)))
        assert take_history(worker) == HistoryPart(0, [], [])
    one, other = alone.snapshot(NOW), together.snapshot(NOW)
    assert other.revision == one.revision
    assert other.intervals == one.intervals
    assert sorted(other.recent, key=repr) == sorted(one.recent, key=repr)


@given(made, st.integers(0, 60))
def test_who_has_seen_a_revision_is_told_what_other_processes_did_since(calls, more):
    together, worker = History(), History()
    for record, _, _ in calls:
        together.add(record)
    seen = together.snapshot(NOW).revision
    for record, _, _ in calls:
        for _ in range(more):
            worker.add(record)
    add_history(together, sent(take_history(worker)))
    since = together.snapshot(NOW, since=seen)
    assert len(since.recent) == min(len(calls) * more, RECENT_CALLS)
    places = {i.begin for i in since.intervals}
    assert places == ({i.begin for i in together.snapshot(NOW).intervals} if more else set())


def test_what_waits_and_runs_elsewhere_is_counted_while_it_does():
    here, there = Tally(0.0, ["box"]), Tally(0.0, ["box"])
    here.began("box").admitted("local")
    before = there.gauges()
    calls = [there.began("box") for _ in range(3)]
    calls[0].admitted("cloud")
    here.change_gauges(before, there.gauges())
    snapshot = here.snapshot(1.0)
    assert (snapshot.running, snapshot.queued) == (2, 2)
    assert {b.name: b.running for b in snapshot.backends} == {"local": 1, "cloud": 1}
    take_calls(there)
    assert there.gauges() == ({"box": 2}, {"box": 1}, {"cloud": 1})
    here.change_gauges(there.gauges(), ({}, {}, {}))
    snapshot = here.snapshot(1.0)
    assert (snapshot.running, snapshot.queued) == (1, 0)


def test_names_of_other_processes_are_bounded_too():
    together = Tally(0.0, ["box"])
    for process in range(5):
        worker = Tally(0.0, ["box"])
        for i in range(MAX_NAMES):
            name = f"m{process}-{i}"
            t = Timeline(anchor=1.0, wall_anchor=1.0, queued=0.0, done=1.0)
            worker.add(
                CallRecord(
                    call_id="c", operation="chat", timeline=t, requested_model=name, backend=name
                )
            )
        add_calls(together, sent(take_calls(worker)))
    assert len(together.model_names()) <= MAX_NAMES + 1
    assert len(together.series) <= MAX_SERIES + 1
    counted = sum(m.requests.get("ok", 0) for m in together.snapshot(2.0).models)
    assert counted == 5 * MAX_NAMES
