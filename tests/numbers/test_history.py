"""The last minutes in bounded memory: records in, what a page shows of them out."""

import math

from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.convert import from_json, to_json
from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.responses import Usage
from headrace.contracts.snapshot import HistorySnapshot
from headrace.numbers.history import BOUNDS, INTERVAL_S, INTERVALS, RECENT_CALLS, History

KEPT_S = INTERVAL_S * INTERVALS


def record(done, *, took=1.0, error=None, name="box", tokens=11):
    return CallRecord(
        call_id="c",
        operation="chat",
        timeline=Timeline(
            anchor=done,
            wall_anchor=1_700_000_000.0 + done,
            queued=done - took,
            admitted=done - took,
            sent=done - took,
            first_token=done - took / 2,
            last_token=done,
            done=done,
        ),
        requested_model=name,
        backend="local",
        usage=None if error else Usage(prompt_tokens=7, completion_tokens=tokens),
        error_kind=error,
        status=503 if error else 200,
    )


@st.composite
def calls(draw):
    """Calls in nearly the order of their ends, over far more time than is kept."""
    now, made = 0.0, []
    for _ in range(draw(st.integers(0, 60))):
        now += draw(st.one_of(st.floats(0, 2), st.floats(0, KEPT_S)))
        made.append(
            record(
                max(0.0, now - draw(st.floats(0, 1))),
                took=draw(st.floats(0, 5000)),
                error=draw(st.sampled_from([None, None, "LLMTimeoutError", "LLMCancelledError"])),
            )
        )
    return made


def whole(history, now):
    return history.snapshot(now)


@given(calls(), st.floats(0, 2 * KEPT_S))
def test_it_tells_of_the_calls_of_the_last_minutes_and_of_no_others(made, later):
    history = History()
    for each in made:
        history.add(each)
    now = max([0.0, *(r.timeline.done for r in made)]) + later
    told = whole(history, now)
    first = math.floor(now / INTERVAL_S) - INTERVALS + 1
    kept = [r for r in made if math.floor(r.timeline.done / INTERVAL_S) >= first]
    for outcome, errors in (
        ("ok", {None}),
        ("error", {"LLMTimeoutError"}),
        ("cancelled", {"LLMCancelledError"}),
    ):
        assert sum(i.requests.get(outcome, 0) for i in told.intervals) == sum(
            r.error_kind in errors for r in kept
        )
    good = [r for r in kept if r.error_kind is None]
    assert sum(i.completion_tokens for i in told.intervals) == 11 * len(good)
    for name in ("ttft", "tpot", "e2e"):
        assert sum(sum(getattr(i, name)) for i in told.intervals) == len(good)


@given(calls())
def test_its_memory_does_not_grow_with_the_calls(made):
    history = History()
    for each in made * 3:
        history.add(each)
    now = max([0.0, *(r.timeline.done for r in made)])
    told = whole(history, now)
    assert len(told.intervals) <= INTERVALS
    assert len(told.recent) == min(RECENT_CALLS, 3 * len(made))
    assert all(
        len(counts) == len(BOUNDS) + 1 for i in told.intervals for counts in (i.ttft, i.tpot, i.e2e)
    )


@given(calls(), st.lists(st.integers(0, 60), max_size=6))
def test_who_puts_the_changes_together_has_the_whole(made, looks):
    """As a page does: intervals by their begin, recent calls one after another."""
    history, seen, intervals, recent = History(), 0, {}, []

    def look(now):
        told = history.snapshot(now, since=seen)
        intervals.update({i.begin: i for i in told.intervals})
        recent.extend(told.recent)
        return told.revision

    now = 0.0
    for place, each in enumerate(made):
        history.add(each)
        now = max(now, each.timeline.done)
        if place in looks:
            seen = look(now)
    look(now)
    told = whole(history, now)
    first = told.intervals[0].begin if told.intervals else 0.0
    mine = [intervals[begin] for begin in sorted(intervals) if begin >= first]
    assert [i for i in mine if i in told.intervals] == list(told.intervals)
    assert recent[-RECENT_CALLS:] == list(told.recent)


def test_nothing_is_told_twice():
    history = History()
    history.add(record(10.0))
    seen = history.snapshot(11.0).revision
    again = history.snapshot(12.0, since=seen)
    assert again.intervals == ()
    assert again.recent == ()
    history.add(record(200.0))
    later = history.snapshot(200.0, since=seen)
    assert [i.begin for i in later.intervals] == [200.0]
    assert len(later.recent) == 1


def test_each_time_is_counted_where_the_bounds_put_it():
    history = History()
    history.add(record(100.0, took=0.02))  # 10 ms to the first token, 1 ms each after it
    (interval,) = history.snapshot(100.0).intervals
    assert interval.begin == 100.0
    for counts, seconds in ((interval.ttft, 0.01), (interval.tpot, 0.001), (interval.e2e, 0.02)):
        (row,) = [place for place, n in enumerate(counts) if n]
        assert row == 0 or BOUNDS[row - 1] * 0.999 <= seconds
        assert seconds <= BOUNDS[row] * 1.001


def test_a_recent_call_is_a_line_of_figures_and_no_text():
    history = History()
    history.add(record(10.0, name="m" * 5000 + "\ud800"))
    (call,) = history.snapshot(10.0).recent
    assert call.ended == 1_700_000_010.0
    assert call.outcome == "ok"
    assert len(call.model) == 200
    assert (call.prompt_tokens, call.completion_tokens) == (7, 11)
    assert (call.ttft_s, call.e2e_s) == (0.5, 1.0)


@given(calls())
def test_it_survives_json(made):
    history = History()
    for each in made:
        history.add(each)
    told = history.snapshot(max([0.0, *(r.timeline.done for r in made)]))
    assert from_json(to_json(told), HistorySnapshot) == told


def test_a_call_that_ended_after_the_instant_of_the_snapshot_is_not_lost():
    """Whoever looks may hold an instant from a moment ago; they will not be told again."""
    history = History()
    history.add(record(105.1))
    told = history.snapshot(104.9)
    assert [i.begin for i in told.intervals] == [105.0]
    assert len(told.recent) == 1
