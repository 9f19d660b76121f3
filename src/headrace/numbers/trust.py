"""Whether a load test's figures are the server's, or those of the one who measured.

Each rule looks at one fact and has limits of its own, with their reason beside them. A doubt of
verdict VALID is a statement: a reader should know it, and it speaks against nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import field, frozen

from headrace.contracts.load_report import Doubt, Trust, Verdict
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.stats import percentile_needs

LAG_MS = 1.0
LAG_SHARE = 0.05
LAG_LEAST_MS = 0.1
"""A schedule lag is in every figure from the intended time. Up to 5% of the median time to first
token it stays within the 5% to which we hold ourselves; 1 ms is what a good sender on a free core
keeps (0.2 ms at p99 is usual), so more shows one that is pressed, even where the server is slow.
Below 0.1 ms nobody can send on time, and the clock itself is part of it."""

LAG_BAD_MS = 10.0
LAG_BAD_SHARE = 0.25
"""From here on the figures are wrong by a quarter, or the arrivals are not those that were asked
for: 10 ms is the gap of 100 requests a second. Never below ten times the least limit."""

STALL_MS = 20.0
"""One late request does not move p99, but it is the maximum. Told where it is more than the median
time to first token too, for then it stands out among the server's own."""

READ_LAG_MS = 5.0
READ_LAG_BAD_MS = 50.0
"""With the kernel's times a late read changes no figure of its own request, as long as nothing more
comes meanwhile (see ``FIRST_TOGETHER``). It shows how long the
loop is busy, and so how late the next request is written: past 5 ms that shows, past 50 ms the
sender is overloaded (half of a usual gap between tokens, many times over)."""

COALESCED = 0.05
COALESCED_BAD = 0.25
"""Pieces that come in one read have gaps of zero and make the next gap longer. Up to 5% the p95 of
the gaps is still right. With the kernel's times several pieces in one read came together on the
wire, so it is the server's or the network's doing and never makes a run INVALID."""

FIRST_TOGETHER = 0.01
"""What waits to be read is one to the kernel, with the instant of the last to come. So a first token
that is read together with the next one is told a gap late or more, the kernel's times or not; above
1% of the requests that is in the p99."""

CPU = 0.7
CPU_READ = 0.5
CPU_BAD = 0.9
"""What waits for a processor that is busy for the share r waits r / (2 (1 - r)) times its work (a
queue with one server and equal work): 1.2 times at 0.7, 4.5 times at 0.9, and without end at 1.
Without the kernel's times that waiting is in the figures, so half is enough for a doubt."""

WAIT = 0.05
WAIT_BAD = 0.25
"""For so much of the time the sender was ready and had no core. What comes then is read late, and
what is due then is sent late; above 1% of the time that can be in a p99, and 5% is what short waits
behind the kernel's own work stay below. Without the kernel's times a quarter makes it INVALID. With
them the sender's own figures hold as far as its lags say, but whoever else runs on this machine, the
server maybe, waits too, and that nobody can tell from its slowness."""

STEAL = 0.01
STEAL_BAD = 0.1
"""A hypervisor takes a core for milliseconds at a time, the kernel's stamps stand still with it, and
no clock inside sees it: what is stolen for 1% of the time can be in every p99. At 10% it is in p90."""

LOST = 0.01
"""Each lost connection puts the set-up of a new one (a round trip, more with TLS) into a request;
above 1% of the requests that is in the p99."""

MISSING = 0.01
"""Requests that were cut or never sent are the slow ones. Where they are more than 1%, the true p99
is above every latency that was measured."""

MEMORY = 0.5
"""A process that takes half of the machine's memory may be swapped out while it measures."""

_PERCENTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_RANK: dict[Verdict, int] = {"VALID": 0, "SUSPECT": 1, "INVALID": 2}


@frozen(kw_only=True)
class SenderFacts:
    """What the sending processes know of themselves.

    ``cpu_share`` is of the busiest process's one core over the run; ``cpu_s`` is of all of them
    together. ``wait_share`` is how much of the run the worst process was ready and had no core,
    ``steal_share`` what a hypervisor took of all cores' time. ``times_from`` is ``kernel`` only where every process had the kernel's receive times.
    ``peak_rss_bytes`` is of all processes together, ``memory_bytes`` what the machine has.
    """

    times_from: str = field(
        default="read", validator=lambda _, a, v: _one_of(a.name, v, ("kernel", "read"))
    )
    cpu_share: float | None = None
    cpu_s: float | None = None
    wait_share: float | None = None
    steal_share: float | None = None
    lost_connections: int = 0
    peak_rss_bytes: int | None = None
    memory_bytes: int | None = None
    workers: int = 1
    workers_lost: int = 0


@frozen(kw_only=True)
class RunFacts:
    """All that ``judge_trust`` looks at. Lags are in ms; ``ttft_p50_ms`` and
    ``itl_p50_ms`` are the measured medians.

    ``loop_lag`` is how late the sender's own ticks were: what any read may have waited for.

    ``sent`` counts every request that was sent, ``ok`` the measured ones that ended well,
    ``cut`` the measured ones that the run's end cut off, ``never_sent`` those that were due and
    waited for up to ``longest_wait_s``. ``pieces`` counts the pieces of output,
    ``first_together`` the requests whose first one was read together with the next.
    """

    sender: SenderFacts
    schedule_lag: LogHistogram
    read_lag: LogHistogram
    loop_lag: LogHistogram = field(factory=LogHistogram)
    closed_loop: bool = False
    ttft_p50_ms: float | None = None
    itl_p50_ms: float | None = None
    sent: int = 0
    ok: int = 0
    failed: int = 0
    cut: int = 0
    never_sent: int = 0
    longest_wait_s: float = 0.0
    pieces: int = 0
    coalesced: int = 0
    first_together: int = 0
    output_tokens: int = 0


def together(facts: Iterable[SenderFacts]) -> SenderFacts:
    """What several sending processes say as one: the worst share, and sums of the rest."""
    listed = list(facts)
    if not listed:
        return SenderFacts()
    return SenderFacts(
        times_from="kernel" if all(f.times_from == "kernel" for f in listed) else "read",
        cpu_share=_worst(f.cpu_share for f in listed),
        wait_share=_worst(f.wait_share for f in listed),
        steal_share=_worst(f.steal_share for f in listed),
        cpu_s=_sum(f.cpu_s for f in listed),
        lost_connections=sum(f.lost_connections for f in listed),
        peak_rss_bytes=_whole(_sum(f.peak_rss_bytes for f in listed)),
        memory_bytes=next((f.memory_bytes for f in listed if f.memory_bytes), None),
        workers=sum(f.workers for f in listed),
        workers_lost=sum(f.workers_lost for f in listed),
    )


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


def _schedule(f: RunFacts) -> Iterator[Doubt]:
    lag = f.schedule_lag.quantile(0.99)
    suspect, invalid = lag_limits_ms(f.ttft_p50_ms)
    if lag is not None and lag > suspect:
        bad = lag > invalid
        yield Doubt(
            name="schedule lag",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"1 in 100 requests was sent {_ms(lag)} or more after it could be, and that is in"
            f" the latencies; {_less_load(f)}",
            value=lag,
            limit=invalid if bad else suspect,
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
        bad = lag > READ_LAG_BAD_MS
        yield Doubt(
            name="read lag",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"1 in 100 reads came {_ms(lag)} or more after its bytes were there;"
            f" {_less_load(f)}",
            value=lag,
            limit=READ_LAG_BAD_MS if bad else READ_LAG_MS,
        )


def _ticks(f: RunFacts) -> Iterator[Doubt]:
    """Without the kernel's times a late loop is in every figure, as a late sending is.

    With them it is in none until it is later than a gap: then pieces wait for one another.
    """
    lag = f.loop_lag.quantile(0.99)
    kernel = f.sender.times_from == "kernel"
    suspect, invalid = lag_limits_ms(f.ttft_p50_ms)
    if kernel:
        suspect = min(max(READ_LAG_MS, f.itl_p50_ms or 0.0), READ_LAG_BAD_MS)
        invalid = READ_LAG_BAD_MS
    if lag is not None and lag > suspect:
        bad = lag > invalid
        into = "what was due then was sent late" if kernel else "that is in the latencies"
        yield Doubt(
            name="loop lag",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"for 1% of the time the sender came {_ms(lag)} or more too late to what it had to"
            f" do, and {into}; {_less_load(f)}",
            value=lag,
            limit=invalid if bad else suspect,
        )


def _pieces(f: RunFacts) -> Iterator[Doubt]:
    share = f.coalesced / f.pieces if f.pieces else 0.0
    if share > COALESCED:
        bad = share > COALESCED_BAD and f.sender.times_from == "read"
        yield Doubt(
            name="coalesced reads",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"{share:.0%} of the pieces of output came together with the piece before, so"
            " the gaps between tokens are not known for them; "
            + (
                "measure from a machine nearer to the server, or ask it to send each token at once"
                if f.sender.times_from == "kernel"
                else _less_load(f)
            ),
            value=share,
            limit=COALESCED_BAD if bad else COALESCED,
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
        bad = share > CPU_BAD
        yield Doubt(
            name="processor",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"the sender was busy for {share:.0%} of one core, so what it times waits for it;"
            f" {_less_load(f)}",
            value=share,
            limit=CPU_BAD if bad else limit,
        )


def _contended(f: RunFacts) -> Iterator[Doubt]:
    share = f.sender.wait_share
    if share is not None and share > WAIT:
        bad = share > WAIT_BAD and f.sender.times_from == "read"
        yield Doubt(
            name="contended processor",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"for {share:.0%} of the time the sender waited for a core that others had; a server"
            " on this machine waits likewise, and that looks as if it were slow: keep other work off"
            " this machine, or pin the sender to a core of its own",
            value=share,
            limit=WAIT_BAD if bad else WAIT,
        )


def _stolen(f: RunFacts) -> Iterator[Doubt]:
    share = f.sender.steal_share
    if share is not None and share > STEAL:
        bad = share > STEAL_BAD
        yield Doubt(
            name="stolen time",
            verdict="INVALID" if bad else "SUSPECT",
            text=f"the hypervisor gave {share:.0%} of this machine's processors to others, which no"
            " clock inside can see; measure from a machine whose cores are its own",
            value=share,
            limit=STEAL_BAD if bad else STEAL,
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


def _sum(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _worst(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
