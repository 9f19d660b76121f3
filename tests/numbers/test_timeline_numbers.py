"""What the instants of a call say."""

import attrs
import pytest

from headrace.contracts.record import Timeline
from headrace.numbers import timeline

WHOLE = Timeline(
    anchor=100.0,
    wall_anchor=1_700_000_000.0,
    intended=100.0,
    queued=100.5,
    admitted=101.5,
    sent=101.75,
    first_byte=102.0,
    first_token=102.25,
    last_token=104.25,
    done=104.5,
)
NUMBERS = [
    (timeline.queue_time, 1.0, ("queued", "admitted")),
    (timeline.time_to_first_byte, 0.25, ("sent", "first_byte")),
    (timeline.time_to_first_token, 0.5, ("sent", "first_token")),
    (timeline.arrival_to_first_token, 1.75, ("queued", "first_token")),
    (timeline.generation_time, 2.0, ("first_token", "last_token")),
    (timeline.backend_time, 2.75, ("sent", "done")),
    (timeline.end_to_end, 4.0, ("queued", "done")),
    (timeline.latency_from_intended, 4.5, ("intended", "done")),
    (timeline.first_token_from_intended, 2.25, ("intended", "first_token")),
    (timeline.send_lag, 1.75, ("intended", "sent")),
    (lambda t: timeline.time_per_output_token(t, 5), 0.5, ("first_token", "last_token")),
    (lambda t: timeline.output_tokens_per_s(t, 5), 2.0, ("sent", "last_token")),
]


@pytest.mark.parametrize(("number", "value", "needs"), NUMBERS)
def test_a_number_follows_its_formula(number, value, needs):
    assert number(WHOLE) == value


@pytest.mark.parametrize(("number", "value", "needs"), NUMBERS)
def test_a_number_is_unknown_when_an_instant_it_needs_is(number, value, needs):
    for name in needs:
        assert number(attrs.evolve(WHOLE, **{name: None})) is None


@pytest.mark.parametrize(("number", "value", "needs"), NUMBERS)
def test_a_number_needs_no_other_instant(number, value, needs):
    bare = Timeline(anchor=0, wall_anchor=0, **{name: getattr(WHOLE, name) for name in needs})
    assert number(bare) == value


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_there_is_no_time_between_fewer_than_two_tokens(tokens):
    assert timeline.time_per_output_token(WHOLE, tokens) is None


def test_there_is_no_rate_where_no_time_passed_or_the_tokens_are_unknown():
    assert timeline.output_tokens_per_s(WHOLE, None) is None
    assert timeline.output_tokens_per_s(attrs.evolve(WHOLE, last_token=101.75), 5) is None


def test_an_instant_has_a_time_on_the_wall():
    assert timeline.wall_time(WHOLE, WHOLE.done) == 1_700_000_004.5
    assert timeline.wall_time(WHOLE, None) is None
