"""What the verdict on a load test looks at: what the senders know of themselves and of their run."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from headrace.numbers.histogram import LogHistogram


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
