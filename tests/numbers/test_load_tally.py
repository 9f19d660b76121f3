"""What a load test's figures are, from what its sender saw."""

import math
from statistics import stdev

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_samples import BEGIN, CLOSED, OPEN, report_of, sample, tally_of

from headrace.contracts.load import LoadPlan, Poisson
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.load_course import HEAT_BOUNDS_MS, MOST
from headrace.numbers.load_tally import LoadTally
from headrace.numbers.promises import parse
from headrace.numbers.stats import percentile
from headrace.numbers.trust_facts import SenderFacts

REQUESTS = st.builds(
    sample,
    index=st.integers(0, 10_000),
    at=st.floats(0, 50),
    lag=st.floats(0, 2),
    ttft=st.floats(0.001, 3),
    gaps=st.lists(st.floats(0, 0.5), max_size=5).map(tuple),
    tail=st.floats(0, 0.1),
    usage=st.booleans(),
    error=st.none() | st.sampled_from(["LLMTimeoutError", "LLMRateLimitError"]),
    cut=st.sampled_from([False, False, False, True]),
    phase=st.sampled_from(["measured", "measured", "warmup", "cooldown"]),
    scenario=st.sampled_from([None, "short", "long"]),
    connect_s=st.none() | st.floats(0, 1),
)


def near(value):
    """``value`` with every float replaced by one that compares approximately."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-9, abs=1e-9)
    if isinstance(value, dict):
        return {k: near(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [near(v) for v in value]
    return value


def plain(report):
    """A report as plain values."""
    return msgspec.json.decode(msgspec.json.encode(attrs.asdict(attrs.evolve(report, plan=None))))


def test_latency_counts_from_the_intended_time_and_service_from_sending():
    figures = report_of(
        tally_of([sample(i, at=i, lag=0.2, ttft=0.05, tail=0.02) for i in range(5)])
    ).figures
    assert figures.latency.mean == pytest.approx(300)
    assert figures.service.mean == pytest.approx(100)
    assert figures.ttft.mean == pytest.approx(250)
    assert figures.service_ttft.mean == pytest.approx(50)


def test_a_closed_loop_counts_from_sending_and_says_that_it_is_one():
    report = report_of(
        tally_of([sample(i, at=i, lag=0.2, intended=False) for i in range(5)], CLOSED)
    )
    assert report.closed_loop
    assert report.figures.latency.mean == pytest.approx(80)
    assert [d.verdict for d in report.trust.doubts if d.name == "closed loop"] == ["VALID"]


def test_tokens_per_second_and_per_token_follow_their_formulas():
    requests = [sample(i, at=i * 0.5, ttft=0.1, gaps=(0.02,) * 9, tail=0.01) for i in range(21)]
    figures = report_of(tally_of(requests)).figures
    # From the first intended to the last end: 20 * 0.5 + 0.1 + 9 * 0.02 + 0.01.
    assert figures.seconds == pytest.approx(10.29)
    assert figures.requests_per_s == pytest.approx(21 / 10.29)
    assert figures.input_tokens_per_s == pytest.approx(21 * 7 / 10.29)
    assert figures.output_tokens_per_s == pytest.approx(210 / 10.29)
    assert figures.tpot.mean == pytest.approx(20)
    assert figures.output_speed.mean == pytest.approx(10 / 0.28)
    assert figures.itl.count == 189
    assert figures.itl.percentiles["p50"] == pytest.approx(20, rel=0.011)


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=400))
@settings(max_examples=30)
def test_percentiles_are_exact_and_told_only_where_the_sample_carries_them(ttfts):
    ttft = report_of(tally_of([sample(i, ttft=t) for i, t in enumerate(ttfts)])).figures.ttft
    values = [t * 1e3 for t in ttfts]
    for name, p, needs in (
        ("p50", 0.5, 5),
        ("p90", 0.9, 29),
        ("p95", 0.95, 59),
        ("p99", 0.99, 299),
    ):
        if len(values) < needs:
            assert ttft.percentiles[name] is None
        else:
            assert ttft.percentiles[name] == pytest.approx(percentile(values, p), abs=1e-6)
    assert ttft.percentiles["p99.9"] is None
    assert ttft.std == (
        pytest.approx(stdev(values), rel=1e-6, abs=1e-6) if len(values) > 1 else None
    )
    for name, bounds in ttft.intervals.items():
        if bounds is not None and ttft.percentiles[name] is not None:
            assert bounds[0] <= ttft.percentiles[name] <= bounds[1]


def test_failed_and_cut_requests_are_counted_and_have_no_latency():
    requests = [
        sample(0, ttft=0.1, gaps=()),
        sample(1, ttft=9.0, error="LLMTimeoutError", status=None),
        sample(2, ttft=8.0, error="LLMRateLimitError", status=429),
        sample(3, ttft=7.0, error="LLMRateLimitError", status=429),
        sample(4, ttft=6.0, cut=True),
    ]
    report = report_of(tally_of([attrs.evolve(s, error=f"message {s.index}") for s in requests]))
    counts = report.figures.counts
    assert (counts.sent, counts.measured, counts.ok, counts.failed, counts.cut) == (5, 5, 1, 3, 1)
    assert report.figures.latency.count == 1
    assert report.figures.latency.maximum == pytest.approx(100)
    assert report.figures.error_share == 0.75
    assert [(e.kind, e.status, e.count, e.example) for e in report.errors] == [
        ("LLMRateLimitError", 429, 2, "message 3"),
        ("LLMTimeoutError", None, 1, "message 1"),
    ]
    assert report.requests.error == (
        None, "LLMTimeoutError", "LLMRateLimitError", "LLMRateLimitError", "cut",
    )  # fmt: skip
    assert report.requests.latency_ms[1:] == (None,) * 4


def test_the_warm_up_and_the_cool_down_are_in_no_figure_but_in_the_time_line():
    requests = [
        sample(0, ttft=5.0, phase="warmup"),
        sample(1, at=1.0),
        sample(2, at=2.0, ttft=6.0, phase="cooldown"),
        sample(3, error="LLMTimeoutError", phase="warmup"),
    ]
    report = report_of(tally_of(requests))
    counts = report.figures.counts
    assert (counts.sent, counts.measured, counts.warmup, counts.cooldown) == (4, 1, 2, 1)
    assert report.figures.latency.count == len(report.requests.index) == 1
    assert sum(m.done for m in report.series) == 3
    assert report.errors == ()
    assert any("1 requests of the warm-up" in note for note in report.notes)


def test_tokens_are_those_of_usage_and_pieces_only_where_there_is_none():
    report = report_of(
        tally_of([sample(0, tokens=12, gaps=(0.01,) * 3), sample(1, usage=False, input_tokens=40)])
    )
    assert report.requests.output_tokens == (12, 4)
    assert report.requests.input_tokens == (7, 40)
    assert "tokens counted by pieces: the server gave no usage for 1 requests" in report.notes


@pytest.mark.parametrize("count", [-1, 2**70])
def test_a_count_that_cannot_be_is_left_out_and_told(count):
    report = report_of(tally_of([sample(0, prompt=count)]))
    assert report.requests.input_tokens == (None,)
    assert any("1 token counts" in note for note in report.notes)


def test_a_clock_that_goes_back_a_little_between_two_pieces_is_no_gap_below_zero():
    figures = report_of(tally_of([sample(0, gaps=(0.01, -1e-6, 0.01))])).figures
    assert figures.itl.minimum == 0.0


@given(st.lists(REQUESTS, max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_tallies_of_any_split_add_up_to_that_of_the_whole(requests, data):
    requests = [attrs.evolve(s, index=i) for i, s in enumerate(requests)]
    parts = [[], [], []]
    for each in requests:
        parts[data.draw(st.integers(0, 2))].append(each)
    whole, merged = tally_of(requests), LoadTally(OPEN)
    merged.began(BEGIN)
    for tally, lags in ((whole, (0.001, 0.002, 0.003)), (merged, ())):
        for lag in lags:
            tally.late(lag)
            tally.read_late(lag / 10)
        if lags:
            tally.never_sent(3, 4.0)
    for part, lag in zip(parts, (0.001, 0.002, 0.003), strict=True):
        one = tally_of(part)
        one.late(lag)
        one.read_late(lag / 10)
        one.never_sent(1, 4.0)
        sent = msgspec.msgpack.encode(one.to_plain())
        merged.merge(LoadTally.from_plain(OPEN, msgspec.msgpack.decode(sent)))
    a, b = plain(report_of(merged)), plain(report_of(whole))
    # Who gives up waits for the last interval of its own process.
    for each in (a, b):
        for moment in each["series"]:
            del moment["in_flight"], moment["sent"]
    assert a == near(b)


@given(st.lists(REQUESTS, max_size=10))
@settings(max_examples=30, deadline=None)
def test_a_tally_comes_back_as_it_went(requests):
    tally = tally_of(requests)
    sent = msgspec.msgpack.encode(tally.to_plain())
    back = LoadTally.from_plain(OPEN, msgspec.msgpack.decode(sent))
    assert plain(report_of(back)) == plain(report_of(tally))


def test_past_the_last_row_percentiles_come_from_a_histogram_and_counts_stay_exact():
    requests = [sample(i, at=i * 0.01, ttft=0.05 + i * 1e-4) for i in range(1000)]
    exact, rough = report_of(tally_of(requests)), report_of(tally_of(requests, most_rows=100))
    assert rough.requests is None
    assert any("past 100 requests" in note for note in rough.notes)
    assert rough.figures.counts == exact.figures.counts
    assert rough.figures.output_tokens_per_s == pytest.approx(exact.figures.output_tokens_per_s)
    for name in ("p50", "p95", "p99"):
        assert rough.figures.ttft.percentiles[name] == pytest.approx(
            exact.figures.ttft.percentiles[name], rel=0.012
        )


def test_scenarios_have_figures_of_their_own():
    report = report_of(
        tally_of(
            [sample(i, at=i, ttft=0.1, scenario="short") for i in range(5)]
            + [sample(i, at=i, ttft=0.9, scenario="long") for i in range(5, 8)]
        )
    )
    assert list(report.scenarios) == ["long", "short"]
    assert report.scenarios["short"].ttft.percentiles["p50"] == pytest.approx(100)
    assert report.scenarios["long"].ttft.mean == pytest.approx(900)
    assert report.scenarios["long"].counts.ok == 3
    assert report.scenarios["short"].itl.count == 15


PROMISED = LoadPlan(
    url="http://127.0.0.1:1",
    arrivals=Poisson(rate=10.0),
    drain_s=30.0,
    promises=(parse("ttft:p90<200ms"), parse("itl:p99<50ms"), parse("errors<1%")),
)


def test_goodput_counts_the_requests_that_kept_every_promise():
    requests = [sample(i, at=i * 0.1, ttft=0.3 if i % 4 == 0 else 0.1) for i in range(400)]
    report = report_of(tally_of(requests, PROMISED))
    assert report.figures.goodput_per_s == pytest.approx(300 / report.figures.seconds)
    assert [p.kept for p in report.promises] == [False, True, True]


def test_requests_that_waited_longer_than_promised_and_were_never_sent_have_missed():
    tally = tally_of([sample(i, at=i * 0.1, ttft=0.1) for i in range(400)], PROMISED)
    assert report_of(tally).promises[0].kept
    tally.never_sent(100, 25.0)
    report = report_of(tally)
    assert report.promises[0].kept is False
    assert report.figures.counts.never_sent == 100
    missing = next(d for d in report.trust.doubts if d.name == "missing requests")
    assert missing.verdict == "SUSPECT"
    assert "100 never sent, some of them due 25.0 s before" in missing.text


def test_a_report_of_nothing_is_whole_and_trusts_nothing():
    report = report_of(LoadTally(OPEN), ended="interrupted", facts=SenderFacts())
    assert report.figures.latency is None
    assert report.figures.requests_per_s is None
    assert report.trust.verdict == "INVALID"


def test_the_time_line_says_what_is_in_flight_and_what_waits():
    tally = LoadTally(OPEN)
    tally.began(BEGIN)
    for _ in range(3):
        tally.sent(BEGIN + 0.5)
    tally.waits(BEGIN + 0.9, 1)
    tally.add(sample(0, at=0.5, ttft=1.0, gaps=()))
    first, second = tally.moments()
    assert (first.sent, first.in_flight, first.waiting, first.done) == (2, 2, 1, 0)
    assert (second.sent, second.in_flight, second.waiting, second.done) == (1, 2, 0, 1)
    assert second.latency_max == pytest.approx(1000)
    assert sum(second.heat) == 1
    assert second.heat[HEAT_BOUNDS_MS.index(1000.0)] == 1
    assert tally.moment(BEGIN + 0.9) is None
    assert tally.moment(BEGIN + 2.1) == second


def test_requests_that_are_given_up_were_not_sent_and_are_in_flight_no_longer():
    tally = LoadTally(OPEN)
    tally.began(BEGIN)
    for _ in range(3):
        tally.sent(BEGIN + 0.5)
    tally.waits(BEGIN + 0.9, 2)
    tally.add(sample(0, at=0.5, ttft=1.0, gaps=()))
    tally.never_sent(2, 1.0)
    first, second = tally.moments()
    assert (first.sent, first.in_flight, first.waiting) == (1, 1, 2)
    assert (second.sent, second.in_flight, second.waiting, second.done) == (0, 0, 0, 1)


def test_a_first_token_that_the_sender_tells_of_is_in_the_time_line_at_once_and_only_once():
    tally = LoadTally(OPEN)
    tally.began(BEGIN)
    tally.first_token(BEGIN + 0.1, 0.05)
    assert tally.moment(BEGIN + 1.0).ttft_p50 == pytest.approx(50, rel=0.011)
    tally.add(sample(0, ttft=0.05))
    assert tally.course.to_plain()["intervals"][0][9]["count"] == 1


def test_a_long_run_has_longer_intervals_and_not_more_of_them():
    tally = tally_of([sample(i, at=float(i * 10), gaps=()) for i in range(2 * MOST)])
    moments = tally.moments()
    assert len(moments) <= MOST
    assert moments[0].seconds == 32.0
    assert sum(m.done for m in moments) == 2 * MOST
    assert all(m.in_flight == 0 for m in moments)


def test_rows_are_in_the_order_in_which_the_requests_began():
    report = report_of(tally_of([sample(2, at=2.0), sample(0, at=0.0), sample(1, at=1.0)]))
    assert report.requests.index == (0, 1, 2)
    assert report.requests.intended_s == pytest.approx((0.0, 1.0, 2.0))


def test_a_worker_tells_its_last_second_and_the_parent_adds_it_up():
    parts = [tally_of([sample(i, at=0.3 + i * 0.01)]) for i in range(3)]
    shown = LoadTally(OPEN)
    shown.began(BEGIN)
    for part in parts:
        shown.course.merge(type(part.course).from_plain(part.course.piece(1.2).to_plain()))
    assert shown.moment(BEGIN + 1.2).done == 3


def test_a_number_that_is_none_is_refused_by_the_histogram_and_changes_nothing():
    h = LogHistogram()
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="cannot be counted"):
            h.add_all([1.0, bad, 2.0])
    assert h.count == 0
    assert not h.buckets


@given(st.lists(st.just(0.0) | st.floats(1e-12, 1e12), max_size=60))
def test_adding_many_is_adding_each(values):
    many, each = LogHistogram(), LogHistogram()
    many.add_all(values)
    for value in values:
        each.add(value)
    a, b = many.to_plain(), each.to_plain()
    assert a.pop("total") == pytest.approx(b.pop("total"))
    assert a == b
