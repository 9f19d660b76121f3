"""Each thing that speaks against a load test's figures, alone, and a run that nothing speaks against."""

import attrs
import pytest

from headrace.numbers.histogram import LogHistogram
from headrace.numbers.trust import judge_trust, lag_limits_ms
from headrace.numbers.trust_facts import RunFacts, SenderFacts, together


def lags(*ms):
    histogram = LogHistogram()
    histogram.add_all(ms)
    return histogram


GOOD_SENDER = SenderFacts(
    times_from="kernel",
    cpu_share=0.4,
    cpu_s=4.0,
    peak_rss_bytes=50 << 20,
    memory_bytes=8 << 30,
)
GOOD = RunFacts(
    sender=GOOD_SENDER,
    schedule_lag=lags(*[0.05] * 5000),
    read_lag=lags(*[0.1] * 5000),
    ttft_p50_ms=50.0,
    sent=5000,
    ok=5000,
    pieces=500_000,
    coalesced=100,
    output_tokens=500_000,
)


def with_(sender=None, **changes):
    return attrs.evolve(GOOD, sender=attrs.evolve(GOOD_SENDER, **(sender or {})), **changes)


def test_a_sender_that_kept_up_is_valid_without_a_doubt():
    trust = judge_trust(GOOD)
    assert (trust.verdict, trust.doubts) == ("VALID", ())
    assert trust.schedule_lag_ms == pytest.approx(0.05, rel=0.02)
    assert trust.read_lag_ms == pytest.approx(0.1, rel=0.02)
    assert trust.coalesced_share == pytest.approx(0.0002)
    assert trust.cpu_s_per_1k_tokens == pytest.approx(0.008)
    assert trust.times_from == "kernel"


READ = {"times_from": "read"}

RULES = [
    ("schedule lag", "SUSPECT", with_(schedule_lag=lags(*[1.5] * 99)), "--workers 2"),
    ("schedule lag", "INVALID", with_(schedule_lag=lags(*[11.0] * 99)), "lower --rate"),
    (
        "schedule lag",
        "SUSPECT",
        with_(schedule_lag=lags(*[0.3] * 99), ttft_p50_ms=4.0),
        "--workers 2",
    ),
    ("schedule lag", "INVALID", with_(schedule_lag=lags(*[1.2] * 99), ttft_p50_ms=4.0), "--rate"),
    ("stall", "SUSPECT", with_(schedule_lag=lags(*[0.05] * 999, 400.0)), "pin"),
    ("read lag", "SUSPECT", with_(read_lag=lags(*[8.0] * 99)), "--workers 2"),
    ("read lag", "INVALID", with_(read_lag=lags(*[80.0] * 99)), "--workers 2"),
    ("coalesced reads", "SUSPECT", with_(coalesced=50_000), "nearer"),
    ("coalesced reads", "SUSPECT", with_(coalesced=400_000), "nearer"),
    ("coalesced reads", "INVALID", with_(READ, coalesced=400_000), "--workers 2"),
    ("processor", "SUSPECT", with_({"cpu_share": 0.75}), "--workers 2"),
    ("processor", "SUSPECT", with_({"cpu_share": 0.6} | READ), "--workers 2"),
    ("processor", "INVALID", with_({"cpu_share": 0.97}), "--workers 2"),
    ("loop lag", "SUSPECT", with_(loop_lag=lags(*[8.0] * 99)), "--workers 2"),
    ("loop lag", "INVALID", with_(loop_lag=lags(*[60.0] * 99)), "--workers 2"),
    ("loop lag", "SUSPECT", with_(READ, loop_lag=lags(*[3.0] * 99)), "in the latencies"),
    ("loop lag", "INVALID", with_(READ, loop_lag=lags(*[15.0] * 99)), "--workers 2"),
    ("stall", "SUSPECT", with_(loop_lag=lags(*[0.05] * 999, 400.0)), "pin"),
    ("contended processor", "SUSPECT", with_({"wait_share": 0.1}), "waits likewise"),
    ("contended processor", "SUSPECT", with_({"wait_share": 0.5}), "waits likewise"),
    ("contended processor", "INVALID", with_({"wait_share": 0.5} | READ), "of its own"),
    ("first tokens read late", "SUSPECT", with_(first_together=100), "--workers 2"),
    ("stolen time", "SUSPECT", with_({"steal_share": 0.02}), "hypervisor"),
    ("stolen time", "INVALID", with_({"steal_share": 0.2}), "hypervisor"),
    ("lost connections", "SUSPECT", with_({"lost_connections": 500}), "keep-alive"),
    ("missing requests", "SUSPECT", with_(ok=4800, cut=200), "longer"),
    ("missing requests", "SUSPECT", with_(never_sent=900, longest_wait_s=12.0), "12.0 s"),
    ("lost workers", "INVALID", with_({"workers": 2, "workers_lost": 1}), "again"),
    ("memory", "SUSPECT", with_({"peak_rss_bytes": 6 << 30}), "swapped"),
    ("nothing measured", "INVALID", with_(ok=0, failed=5000), "errors"),
]


@pytest.mark.parametrize(("name", "verdict", "facts", "advice"), RULES)
def test_one_bad_fact_is_one_doubt_that_says_what_to_do(name, verdict, facts, advice):
    trust = judge_trust(facts)
    assert trust.verdict == verdict
    grave = [d for d in trust.doubts if d.verdict != "VALID"]
    # A lag at p99 is the largest too.
    assert {d.name for d in grave} - {"stall"} in ({name}, set())
    assert name in {d.name for d in grave}
    assert advice in grave[0].text


def test_by_the_kernels_times_a_loop_may_be_late_by_less_than_a_gap():
    late = lags(*[8.0] * 99)
    assert judge_trust(with_(loop_lag=late, itl_p50_ms=10.0)).verdict == "VALID"
    assert judge_trust(with_(loop_lag=late, itl_p50_ms=6.0)).verdict == "SUSPECT"
    assert judge_trust(with_(READ, loop_lag=late, itl_p50_ms=10.0)).verdict == "SUSPECT"


STATEMENTS = [
    ("closed loop", with_(closed_loop=True)),
    ("clock", with_(READ)),
    ("lost connections", with_({"lost_connections": 3})),
    ("missing requests", with_(cut=2)),
    ("few samples", with_(ok=100, sent=100)),
]


@pytest.mark.parametrize(("name", "facts"), STATEMENTS)
def test_what_a_reader_should_know_makes_no_figure_worse(name, facts):
    trust = judge_trust(facts)
    assert trust.verdict == "VALID"
    assert [d.name for d in trust.doubts] == [name]


def test_too_few_requests_are_named_with_what_they_cannot_carry_and_how_many_it_takes():
    (doubt,) = judge_trust(with_(ok=100, sent=100)).doubts
    assert "p99, p99.9" in doubt.text
    assert "--requests 299" in doubt.text
    (doubt,) = judge_trust(with_(ok=20, sent=20)).doubts
    assert "p90, p95, p99, p99.9" in doubt.text


def test_a_sender_that_was_frozen_for_a_second_in_every_five_is_invalid():
    # 40 requests a second: those of the frozen second are late by up to all of it.
    late = [1000.0 * (1 - i / 40) for i in range(40)] + [0.1] * 160
    assert judge_trust(with_(schedule_lag=lags(*late * 12))).verdict == "INVALID"


def test_an_overloaded_sender_is_invalid_for_each_of_its_reasons():
    trust = judge_trust(
        with_(
            {"cpu_share": 0.99},
            schedule_lag=lags(*[40.0] * 500),
            read_lag=lags(*[70.0] * 500),
        )
    )
    assert trust.verdict == "INVALID"
    assert [d.name for d in trust.doubts if d.verdict == "INVALID"] == [
        "schedule lag",
        "read lag",
        "processor",
    ]
    ranks = [("INVALID", "SUSPECT", "VALID").index(d.verdict) for d in trust.doubts]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("ttft", "limits"),
    [(None, (1.0, 10.0)), (2000.0, (1.0, 10.0)), (10.0, (0.5, 2.5)), (0.5, (0.1, 1.0))],
)
def test_the_limits_of_the_schedule_follow_the_time_to_first_token(ttft, limits):
    assert lag_limits_ms(ttft) == pytest.approx(limits)


def test_a_late_read_is_unknown_where_the_kernel_tells_no_time():
    assert judge_trust(with_(READ)).read_lag_ms is None


def test_a_closed_loop_is_told_to_ask_with_fewer_callers():
    trust = judge_trust(with_({"cpu_share": 0.95}, closed_loop=True))
    assert "lower --concurrency" in trust.doubts[0].text


def test_several_processes_are_as_busy_as_the_busiest_and_as_large_as_all():
    one = attrs.evolve(GOOD_SENDER, cpu_share=0.9, lost_connections=2)
    both = together([one, attrs.evolve(GOOD_SENDER, times_from="read")])
    assert (both.cpu_share, both.cpu_s, both.workers) == (0.9, 8.0, 2)
    assert (both.lost_connections, both.peak_rss_bytes) == (2, 100 << 20)
    assert both.times_from == "read"
    assert together([]) == SenderFacts()


def test_a_clock_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="expected one of kernel, read"):
        SenderFacts(times_from="sundial")
