"""Samples of a made-up load test, and a tally that has counted them."""

from headrace.contracts.load import LoadPlan, Poisson
from headrace.contracts.load_report import Sample
from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.responses import Usage
from headrace.numbers.load_tally import LoadTally
from headrace.numbers.trust_facts import SenderFacts

BEGIN = 5_000.0
OPEN = LoadPlan(url="http://127.0.0.1:1", arrivals=Poisson(rate=10.0))
CLOSED = LoadPlan(url="http://127.0.0.1:1")


def sample(
    index=0,
    *,
    at=0.0,
    lag=0.0,
    ttft=0.05,
    gaps=(0.01, 0.01, 0.01),
    tail=0.0,
    intended=True,
    usage=True,
    prompt=7,
    tokens=None,
    error=None,
    cut=False,
    status=200,
    **more,
):
    """A request that is intended ``at`` seconds from the beginning and sent ``lag`` later."""
    sent = BEGIN + at + lag
    first = sent + ttft
    last = first + sum(gaps)
    bad = error is not None or cut
    record = CallRecord(
        call_id=str(index),
        operation="chat",
        stream=True,
        status=status,
        error_kind="LLMCancelledError" if cut else error,
        chunks=len(gaps) + 1,
        usage=Usage(
            prompt_tokens=prompt, completion_tokens=len(gaps) + 1 if tokens is None else tokens
        )
        if usage and not bad
        else None,
        timeline=Timeline(
            anchor=BEGIN,
            wall_anchor=0.0,
            intended=BEGIN + at if intended else None,
            queued=sent,
            sent=sent,
            first_byte=first,
            first_token=first,
            last_token=last,
            done=last + tail,
        ),
    )
    return Sample(record=record, index=index, gaps_s=tuple(gaps), cut=cut, **more)


def tally_of(samples, plan=OPEN, **more):
    tally = LoadTally(plan, **more)
    tally.began(BEGIN)
    for each in samples:
        tally.sent(each.record.timeline.sent)
        tally.add(each)
    return tally


def report_of(tally, ended="complete", facts=None, **more):
    return tally.report(
        run_id="r",
        started="2026-01-01T00:00:00+00:00",
        ended=ended,
        facts=facts or SenderFacts(times_from="kernel", cpu_share=0.1, cpu_s=1.0),
        **more,
    )
