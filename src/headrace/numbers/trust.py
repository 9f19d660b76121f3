"""Whether a load test's figures are the server's, or those of the one who measured.

Each rule looks at one fact and has limits of its own (``trust_limits``). A doubt of verdict VALID is a statement: a reader should know it, and it speaks against nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.contracts.load_report import Doubt, Trust, Verdict
from headrace.numbers.stats import percentile_needs
from headrace.numbers.trust_facts import RunFacts
from headrace.numbers.trust_limits import (
    COALESCED,
    COALESCED_BAD,
    CPU,
    CPU_BAD,
    CPU_READ,
    FIRST_TOGETHER,
    LAG_BAD_MS,
    LAG_BAD_SHARE,
    LAG_LEAST_MS,
    LAG_MS,
    LAG_SHARE,
    LOST,
    MEMORY,
    MISSING,
    READ_LAG_BAD_MS,
    READ_LAG_MS,
    STALL_MS,
    STEAL,
    STEAL_BAD,
    WAIT,
    WAIT_BAD,
)

_PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_RANK: dict[Verdict, int] = {"VALID": 0, "SUSPECT": 1, "INVALID": 2}


def judge_trust(facts: RunFacts) -> Trust:
    """The worst verdict of all rules, and every doubt: the gravest first, statements last."""
    doubts = sorted(_doubts(facts), key=lambda d: -_RANK[d.verdict])
    sender = facts.sender
    return Trust(
        verdict=doubts[0].verdict if doubts else "VALID",
        doubts=tuple(doubts),
        times_from="kernel" if sender.times_from == "kernel" else "read",
        schedule_lag_ms=facts.schedule_lag.quantile(0.99),
        schedule_lag_max_ms=facts.schedule_lag.maximum,
        read_lag_ms=facts.read_lag.quantile(0.99) if sender.times_from == "kernel" else None,
        coalesced_share=facts.coalesced / facts.pieces if facts.pieces else None,
        cpu_share=sender.cpu_share,
        cpu_s_per_1k_tokens=(
            1000 * sender.cpu_s / facts.output_tokens
            if sender.cpu_s is not None and facts.output_tokens
            else None
        ),
        lost_connections=sender.lost_connections,
        peak_rss_bytes=sender.peak_rss_bytes,
        loop_lag_ms=facts.loop_lag.quantile(0.99),
        loop_lag_max_ms=facts.loop_lag.maximum,
        wait_share=sender.wait_share,
        steal_share=sender.steal_share,
    )


def lag_limits_ms(ttft_p50_ms: float | None) -> tuple[float, float]:
    """From where on a schedule lag (p99) is SUSPECT, and from where INVALID.

    The smaller of 1 ms and 5% of the median time to first token, but at least 0.1 ms; the smaller
    of 10 ms and 25% of it, but at least 1 ms.
    """
    if ttft_p50_ms is None:
        return LAG_MS, LAG_BAD_MS
    return (
        max(LAG_LEAST_MS, min(LAG_MS, LAG_SHARE * ttft_p50_ms)),
        max(10 * LAG_LEAST_MS, min(LAG_BAD_MS, LAG_BAD_SHARE * ttft_p50_ms)),
    )


def _doubts(f: RunFacts) -> Iterator[Doubt]:
    for rule in (
        _nothing,
        _schedule,
        _stall,
        _reads,
        _ticks,
        _pieces,
        _first,
        _processor,
        _contended,
        _stolen,
        _connections,
        _missing,
        _workers,
        _memory,
        _clock,
        _loop,
        _few,
    ):
        yield from rule(f)


def _nothing(f: RunFacts) -> Iterator[Doubt]:
    if not f.ok:
        yield Doubt(
            name="nothing measured",
            verdict="INVALID",
            text="no measured request ended well, so there is no figure to trust; see the errors",
        )


def _graded(name: str, value: float, *, suspect: float, invalid: float | None, text: str) -> Doubt:
    """Of a ``value`` past ``suspect``: INVALID where it is past ``invalid`` too, if that can be."""
    bad = invalid is not None and value > invalid
    return Doubt(
        name=name,
        verdict="INVALID" if bad else "SUSPECT",
        text=text,
        value=value,
        limit=invalid if bad else suspect,
    )


def _schedule(f: RunFacts) -> Iterator[Doubt]:
    lag = f.schedule_lag.quantile(0.99)
    suspect, invalid = lag_limits_ms(f.ttft_p50_ms)
    if lag is not None and lag > suspect:
        yield _graded(
            "schedule lag",
            lag,
            suspect=suspect,
            invalid=invalid,
            text=f"1 in 100 requests was sent {_ms(lag)} or more after it could be, and that is in"
            f" the latencies; {_less_load(f)}",
        )


def _stall(f: RunFacts) -> Iterator[Doubt]:
    worst = max(f.schedule_lag.maximum or 0.0, f.loop_lag.maximum or 0.0)
    limit = max(STALL_MS, f.ttft_p50_ms or 0.0)
    if worst > limit:
        yield Doubt(
            name="stall",
            verdict="SUSPECT",
            text=f"the sender once stood still for {_ms(worst)}: the highest latencies may be its"
            " own; keep other work off this machine, or pin the sender to a core of its own",
            value=worst,
            limit=limit,
        )


def _reads(f: RunFacts) -> Iterator[Doubt]:
    lag = f.read_lag.quantile(0.99)
    if f.sender.times_from == "kernel" and lag is not None and lag > READ_LAG_MS:
        yield _graded(
            "read lag",
            lag,
            suspect=READ_LAG_MS,
            invalid=READ_LAG_BAD_MS,
            text=f"1 in 100 reads came {_ms(lag)} or more after its bytes were there;"
            f" {_less_load(f)}",
        )


def _ticks(f: RunFacts) -> Iterator[Doubt]:
    """Without the kernel's times a late loop is in every figure, as a late sending is.

    With them what is sent late counts (as schedule lag does), and what is later than a gap: then
    pieces wait for one another, and the kernel may put them together.
    """
    lag = f.loop_lag.quantile(0.99)
    kernel = f.sender.times_from == "kernel"
    suspect, invalid = lag_limits_ms(f.ttft_p50_ms)
    if kernel:
        suspect = min(max(READ_LAG_MS, f.itl_p50_ms or 0.0), READ_LAG_BAD_MS)
        invalid = READ_LAG_BAD_MS
    if lag is not None and lag > suspect:
        into = "what was due then was sent late" if kernel else "that is in the latencies"
        yield _graded(
            "loop lag",
            lag,
            suspect=suspect,
            invalid=invalid,
            text=f"for 1% of the time the sender came {_ms(lag)} or more too late to what it had to"
            f" do, and {into}; {_less_load(f)}",
        )


def _pieces(f: RunFacts) -> Iterator[Doubt]:
    share = f.coalesced / f.pieces if f.pieces else 0.0
    if share > COALESCED:
        yield _graded(
            "coalesced reads",
            share,
            suspect=COALESCED,
            invalid=COALESCED_BAD if f.sender.times_from == "read" else None,
            text=f"{share:.0%} of the pieces of output came together with the piece before, so"
            " the gaps between tokens are not known for them; "
            + (
                "measure from a machine nearer to the server, or ask it to send each token at once"
                if f.sender.times_from == "kernel"
                else _less_load(f)
            ),
        )


def _first(f: RunFacts) -> Iterator[Doubt]:
    share = f.first_together / f.sent if f.sent else 0.0
    if share > FIRST_TOGETHER:
        yield Doubt(
            name="first tokens read late",
            verdict="SUSPECT",
            text=f"for {share:.0%} of the requests the first token was read together with the next,"
            " so their time to first token is too long by a gap or more, unless the server sent both"
            f" at once; {_less_load(f)}",
            value=share,
            limit=FIRST_TOGETHER,
        )


def _processor(f: RunFacts) -> Iterator[Doubt]:
    share = f.sender.cpu_share
    limit = CPU if f.sender.times_from == "kernel" else CPU_READ
    if share is not None and share > limit:
        yield _graded(
            "processor",
            share,
            suspect=limit,
            invalid=CPU_BAD,
            text=f"the sender was busy for {share:.0%} of one core, so what it times waits for it;"
            f" {_less_load(f)}",
        )


def _contended(f: RunFacts) -> Iterator[Doubt]:
    share = f.sender.wait_share
    if share is not None and share > WAIT:
        yield _graded(
            "contended processor",
            share,
            suspect=WAIT,
            invalid=WAIT_BAD if f.sender.times_from == "read" else None,
            text=f"for {share:.0%} of the time the sender waited for a core that others had; a server"
            " on this machine waits likewise, and that looks as if it were slow: keep other work off"
            " this machine, or pin the sender to a core of its own",
        )


def _stolen(f: RunFacts) -> Iterator[Doubt]:
    share = f.sender.steal_share
    if share is not None and share > STEAL:
        yield _graded(
            "stolen time",
            share,
            suspect=STEAL,
            invalid=STEAL_BAD,
            text=f"the hypervisor gave {share:.0%} of this machine's processors to others, which no"
            " clock inside can see; measure from a machine whose cores are its own",
        )


def _connections(f: RunFacts) -> Iterator[Doubt]:
    lost = f.sender.lost_connections
    share = lost / f.sent if f.sent else 0.0
    if lost:
        yield Doubt(
            name="lost connections",
            verdict="SUSPECT" if share > LOST else "VALID",
            text=f"the server closed {lost} connections that could have been kept ({share:.1%} of"
            " the requests), and setting up new ones takes time; raise its keep-alive limits",
            value=share,
            limit=LOST,
        )


def _missing(f: RunFacts) -> Iterator[Doubt]:
    missing, whole = f.cut + f.never_sent, f.ok + f.failed + f.cut + f.never_sent
    share = missing / whole if whole else 0.0
    if missing:
        waited = (
            f", some of them due {f.longest_wait_s:.1f} s before" if f.longest_wait_s > 0 else ""
        )
        yield Doubt(
            name="missing requests",
            verdict="SUSPECT" if share > MISSING else "VALID",
            text=f"{f.cut} requests were cut off by the run's end and {f.never_sent} never"
            f" sent{waited}: they are the slow ones and are in no latency, so percentiles above"
            f" {100 * (1 - share):.3g}% are too low; lower --rate, or give them longer to end",
            value=share,
            limit=MISSING,
        )


def _workers(f: RunFacts) -> Iterator[Doubt]:
    if f.sender.workers_lost:
        yield Doubt(
            name="lost workers",
            verdict="INVALID",
            text=f"{f.sender.workers_lost} of {f.sender.workers} sending processes died, so the"
            " load was not what was asked for; run it again",
            value=f.sender.workers_lost,
            limit=0,
        )


def _memory(f: RunFacts) -> Iterator[Doubt]:
    peak, whole = f.sender.peak_rss_bytes, f.sender.memory_bytes
    if peak and whole and peak > MEMORY * whole:
        yield Doubt(
            name="memory",
            verdict="SUSPECT",
            text=f"the sender took {peak / 2**20:.0f} MB of this machine's {whole / 2**20:.0f} MB"
            " and may have been swapped out; lower --concurrency or measure for a shorter time",
            value=peak / whole,
            limit=MEMORY,
        )


def _clock(f: RunFacts) -> Iterator[Doubt]:
    if f.sender.times_from == "read":
        yield Doubt(
            name="clock",
            verdict="VALID",
            text="times are those of reading, not of the kernel's receiving: a busy sender would"
            " be in them",
        )


def _loop(f: RunFacts) -> Iterator[Doubt]:
    if f.closed_loop:
        yield Doubt(
            name="closed loop",
            verdict="VALID",
            text="each caller waits for its answer before it asks again, so a slow server is asked"
            " less and the latencies flatter it; --rate asks whatever the server does",
        )


def _few(f: RunFacts) -> Iterator[Doubt]:
    lacking = [p for p in _PERCENTILES if 0 < f.ok < percentile_needs(p)]
    if lacking:
        # Almost no run has the 2,995 that p99.9 needs, and almost nobody asks for it.
        wanted = lacking[0] if lacking[0] == 0.999 else min(0.99, max(lacking[:-1]))
        names = ", ".join(f"p{100 * p:g}" for p in lacking)
        yield Doubt(
            name="few samples",
            verdict="VALID",
            text=f"{f.ok} requests cannot carry {names}: not told; p{100 * wanted:g} needs"
            f" {percentile_needs(wanted)} (--requests {percentile_needs(wanted)})",
            value=f.ok,
            limit=percentile_needs(wanted),
        )


def _less_load(f: RunFacts) -> str:
    lower = "lower --concurrency" if f.closed_loop else "lower --rate"
    return f"use --workers {f.sender.workers + 1} with a free core for each, or {lower}"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"
