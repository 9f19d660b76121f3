"""How long answers took lately: of whom, by which share, and until when that is believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.record import Attempt, CallRecord, Timeline
from headrace.numbers.pace import FRESH_S, HALF_LIFE_S, KEPT, LEAST, Pace, Paces


def call(done: float, took_s: float, **changes: object) -> CallRecord:
    timeline = Timeline(
        anchor=done,
        wall_anchor=0.0,
        queued=done - took_s,
        sent=done - took_s,
        first_token=done - took_s / 2,
        done=done,
    )
    told = {"call_id": "c", "operation": "chat", "backend": "a", "route": "m", **changes}
    return CallRecord(timeline=timeline, **told)  # type: ignore[arg-type]


@given(
    times=st.lists(st.floats(0.001, 100), min_size=LEAST, max_size=2 * KEPT),
    q=st.floats(0, 1),
)
def test_a_quantile_is_a_time_that_was_seen_lately(times, q):
    pace = Pace()
    for took_s in times:
        pace.add(call(1000.0, took_s))
    found = pace.quantile("answer", q, 1000.0)
    assert found is not None
    assert any(abs(found - took_s) < 1e-9 for took_s in times[-KEPT:])
    assert pace.quantile("answer", 1.0, 1000.0) >= found


def test_nothing_is_said_of_too_few_and_of_those_that_failed():
    pace = Pace()
    for _ in range(LEAST - 1):
        pace.add(call(0.0, 1.0))
    for _ in range(10):
        pace.add(call(0.0, 9.0, error_kind="LLMTimeoutError"))
    assert pace.quantile("answer", 0.5, 0.0) is None
    assert pace.last("answer") is None
    pace.add(call(1.0, 1.0))
    assert pace.quantile("answer", 1.0, 1.0) == 1.0
    assert pace.last("answer") == 1.0


def test_newer_answers_count_for_more():
    pace = Pace()
    for _ in range(20):
        pace.add(call(0.0, 5.0))
    later = 3 * HALF_LIFE_S
    for _ in range(10):
        pace.add(call(later, 1.0))
    assert pace.quantile("answer", 0.5, later) == 1.0
    assert pace.quantile("answer", 0.95, later) == 5.0


def test_a_first_token_is_measured_where_it_was_seen():
    pace = Pace()
    for _ in range(LEAST):
        pace.add(call(10.0, 4.0))
    assert pace.quantile("first_token", 0.5, 10.0) == 2.0


def test_what_was_tried_elsewhere_before_counts_from_when_it_was_asked_here():
    pace = Pace()
    tried = (Attempt(backend="b", begin=0.0, end=90.0), Attempt(backend="a", begin=90.0, end=92.0))
    for _ in range(LEAST):
        pace.add(call(92.0, 92.0, attempts=tried))
    assert pace.quantile("answer", 0.5, 92.0) == 2.0


def test_it_is_believed_for_some_minutes():
    pace = Pace()
    for _ in range(LEAST):
        pace.add(call(10.0, 4.0))
    assert pace.is_fresh("answer", 10.0 + FRESH_S)
    assert not pace.is_fresh("answer", 11.0 + FRESH_S)


def test_each_backend_of_each_route_has_its_own():
    paces = Paces()
    of_m, of_n = paces.of("a", "m"), paces.of("a", "n")
    for _ in range(LEAST):
        paces.add(call(1.0, 1.0))
        paces.add(call(1.0, 2.0, route="n"))
        paces.add(call(1.0, 3.0, backend="somebody else"))
    assert (of_m.quantile("answer", 1, 1.0), of_n.quantile("answer", 1, 1.0)) == (1.0, 2.0)
    assert paces.of("a", "m") is of_m
