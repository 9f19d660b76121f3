"""``headrace load``: drive a load against any of the known faces, and say what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.contracts.load import LoadPlan
    from headrace.contracts.load_report import LoadReport

FAILED, BROKEN, INVALID = 1, 3, 4
"""Exit statuses: a run that was stopped, or whose report was not saved; a promise that was not kept;
figures that are not the server's."""

_TARGET, _ARRIVALS, _WORKLOAD, _END = "Target", "Arrivals", "Requests", "Limits"
_PROMISES, _REPORT = "Promises", "Report"


def load(
    url: Annotated[
        str | None, typer.Argument(help="The target's base, such as http://127.0.0.1:8000.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with a whole plan; flags go before it.", rich_help_panel=_TARGET
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to ask for. [default: the first one listed]", rich_help_panel=_TARGET
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="chat, completions, responses, messages, embeddings or rerank. [default: chat]",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Ask for whole answers, not streams.", rich_help_panel=_TARGET
        ),
    ] = False,
    key_env: Annotated[
        str | None,
        typer.Option(
            help="The environment variable with the API key. [default: HEADRACE_API_KEY, or the "
            "provider's own]",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(help="One more header, NAME: VALUE. Repeatable.", rich_help_panel=_TARGET),
    ] = None,
    extra_body: Annotated[
        str | None,
        typer.Option(help="A JSON object laid over each request's body.", rich_help_panel=_TARGET),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Take any certificate.", rich_help_panel=_TARGET),
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Who may have issued the certificate (PEM).", rich_help_panel=_TARGET),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many callers, each asking when it is answered. [default: 10]",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests a second, whatever the server does.", rich_help_panel=_ARRIVALS
        ),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="How --rate comes: poisson, constant or gamma. [default: poisson]",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(
            help="Shape of gamma arrivals; below 1 comes in bursts.", rich_help_panel=_ARRIVALS
        ),
    ] = None,
    burst: Annotated[
        str | None,
        typer.Option(help="SIZE/EVERY: so many at once, as 32/5s.", rich_help_panel=_ARRIVALS),
    ] = None,
    ramp: Annotated[
        str | None,
        typer.Option(
            help="A..B/SECS: a rate that goes from A to B; with --concurrency, the seconds over "
            "which the callers begin.",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="Rates one after the other, as 5,10,20/30s.", rich_help_panel=_ARRIVALS),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            help="FILE[:form] to replay: mooncake, burstgpt, azure or records.",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Replay the trace so many times faster.", rich_help_panel=_ARRIVALS),
    ] = None,
    think: Annotated[
        float | None,
        typer.Option(
            help="Seconds that a caller waits between answer and question, on average.",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    at_most: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many in flight; the others' waiting is in the figures.",
            rich_help_panel=_ARRIVALS,
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="short, medium, long, mixed, or all in turn. [default: mixed]",
            rich_help_panel=_WORKLOAD,
        ),
    ] = None,
    input_tokens: Annotated[
        str | None,
        typer.Option(
            help="Made-up prompts of that length: 128, normal:128,20, uniform:50..150.",
            rich_help_panel=_WORKLOAD,
        ),
    ] = None,
    output_tokens: Annotated[
        str | None,
        typer.Option(help="How long answers may be, likewise.", rich_help_panel=_WORKLOAD),
    ] = None,
    output_exact: Annotated[
        bool,
        typer.Option(
            "--output-exact",
            help="Ask the server not to end before (ignore_eos).",
            rich_help_panel=_WORKLOAD,
        ),
    ] = False,
    shared_prefix: Annotated[
        int | None,
        typer.Option(help="So many tokens of each prompt are the same.", rich_help_panel=_WORKLOAD),
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(min=1, help="Turns of a conversation.", rich_help_panel=_WORKLOAD),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=0, help="Pictures with each prompt.", rich_help_panel=_WORKLOAD),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts of a file: JSONL, or ShareGPT's JSON.", rich_help_panel=_WORKLOAD
        ),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle", help="Take the file's in any order.", rich_help_panel=_WORKLOAD),
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="What counts tokens: a GGUF file, a known model, tiktoken's name.",
            rich_help_panel=_WORKLOAD,
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="The sampling temperature.", rich_help_panel=_WORKLOAD)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="What chance begins with.", rich_help_panel=_WORKLOAD)
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1, help="End after so many. [default: 100 without --duration]", rich_help_panel=_END
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="End after so many seconds.", rich_help_panel=_END)
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(help="Seconds at the beginning that do not count.", rich_help_panel=_END),
    ] = None,
    warmup_requests: Annotated[
        int | None,
        typer.Option(help="Requests at the beginning that do not count.", rich_help_panel=_END),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(help="Seconds before --duration that do not count.", rich_help_panel=_END),
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option(
            help="Seconds that the last ones have to end. [default: 30]", rich_help_panel=_END
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a request may take. [default: 120]", rich_help_panel=_END),
    ] = None,
    most_errors: Annotated[
        int | None, typer.Option(min=1, help="End at so many failures.", rich_help_panel=_END)
    ] = None,
    most_error_share: Annotated[
        float | None,
        typer.Option(help="End at that share of failures, as 0.1.", rich_help_panel=_END),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Sending processes. [default: 1]", rich_help_panel=_END),
    ] = None,
    hosts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Send from so many machines of a Ray cluster.", rich_help_panel=_END
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster for --hosts. [default: RAY_ADDRESS, or a Ray of our own here]",
            rich_help_panel=_END,
        ),
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            help="A promise, as ttft:p99<500ms, tpot:p99<30ms or errors<0.1%. Repeatable.",
            rich_help_panel=_PROMISES,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Promises by name: serving, mlperf-llama3.1-8b-server, ... (a wrong name lists them).",
            rich_help_panel=_PROMISES,
        ),
    ] = None,
    find: Annotated[
        bool,
        typer.Option(
            "--find",
            help="Search for the highest rate that holds the promises.",
            rich_help_panel=_PROMISES,
        ),
    ] = False,
    find_from: Annotated[
        float | None,
        typer.Option(help="The rate to begin with. [default: 1]", rich_help_panel=_PROMISES),
    ] = None,
    find_to: Annotated[
        float | None,
        typer.Option(help="The highest rate to try.", rich_help_panel=_PROMISES),
    ] = None,
    find_precision: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="How near the answer shall be. [default: 0.05]",
            rich_help_panel=_PROMISES,
        ),
    ] = None,
    find_longest: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds that a trial may take at most. [default: 120]",
            rich_help_panel=_PROMISES,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the report's files into this folder.", rich_help_panel=_REPORT),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            help="Append a line of JSON for each request to this file.", rich_help_panel=_REPORT
        ),
    ] = None,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            help="Where the server tells of itself. [default: /metrics beside the target]",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="One more of the server's own metrics to keep. Repeatable.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    no_kernel_times: Annotated[
        bool,
        typer.Option(
            "--no-kernel-times",
            help="Take times as answers are read, not as the kernel received them.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
    no_progress: Annotated[
        bool,
        typer.Option("--no-progress", help="Say nothing while it runs.", rich_help_panel=_REPORT),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON.", rich_help_panel=_REPORT)
    ] = False,
) -> None:
    """Drive a load against a server and report what came of it.

    Exit status: 0 fine, 1 an error or a run that had to be stopped, 3 a promise was broken, 4 the
    figures are not the server's.
    """
    given = dict(locals())
    from headrace.cli.load_plan import plans_of

    plans = plans_of(given)
    drive = _driver(hosts, ray_address, find=find)
    if out is not None:
        _make_folder(out)
    if find:
        from headrace.cli.load_find import search

        for _, plan in plans:
            search(plan, given)
        return
    from headrace.cli.report import hand_over, interrupts_wait

    worst = 0
    for name, plan in plans:
        report = drive(plan) if no_progress else shown(plan, drive)
        with interrupts_wait() as interrupted:
            saved = hand_over(report, None if out is None else out / name, as_json=as_json)
        worst = max(worst, _status(report) or (0 if saved else FAILED))
        if report.ended == "interrupted" or interrupted:
            break
    if worst:
        raise typer.Exit(worst)


def _driver(hosts: int | None, ray_address: str | None, *, find: bool) -> Callable[..., LoadReport]:
    """Who drives a plan: this machine, or those of a cluster."""
    if hosts is None:
        if ray_address is not None:
            raise LLMInvalidRequestError("--ray-address is for --hosts; give that too")
        from headrace.bench.load.run import load as drive

        return drive
    if find:
        raise LLMInvalidRequestError("--find searches from this machine; leave out --hosts")
    from headrace.bench.load.hosts import load_by_hosts

    return partial(load_by_hosts, hosts=hosts, address=ray_address)


def shown(plan: LoadPlan, drive: Callable[..., LoadReport]) -> LoadReport:
    """The run of ``plan``, watched on standard error."""
    from headrace.bench.load.live import Live
    from headrace.numbers.load_course import HEAT_BOUNDS_MS

    live = Live(plan, sys.stderr, heat_bounds_ms=HEAT_BOUNDS_MS)
    try:
        return drive(plan, on_moment=live.moment)
    finally:
        live.end()


def _make_folder(out: Path) -> None:
    """A run may take an hour; that its report has no place is better known before."""
    from headrace.contracts.errors import LLMInvalidRequestError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LLMInvalidRequestError(
            f"--out is {str(out)!r}, which cannot be a folder: {error.strerror}; name another one"
        ) from error


def _status(report: LoadReport) -> int:
    if report.trust.verdict == "INVALID":
        return INVALID
    if any(each.kept is False for each in report.promises):
        return BROKEN
    return FAILED if report.ended in ("target lost", "too many errors") else 0
