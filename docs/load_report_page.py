"""The fields of a load test's report: the page and the schema, made from the contracts."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from attrs import NOTHING, fields
from load_schema import classes_of, schema_of

from headrace.contracts import load_report
from headrace.contracts.load_report import (
    Columns,
    Counts,
    Distribution,
    Doubt,
    ErrorCount,
    Figures,
    LoadReport,
    Moment,
    PromiseResult,
    ServerSeries,
    Trust,
)

# What each field of the report says. A field that is new in the contract needs a line here.
MEANINGS: dict[type, dict[str, str]] = {
    LoadReport: {
        "run_id": "the run's name, which its call records have too",
        "started": "when it began: ISO 8601, UTC",
        "plan": "what was asked for; values of headers and passwords in addresses are not kept",
        "ended": "whether it ran to its end, and what ended it where it did not",
        "closed_loop": "the load waited for the server, so latencies flatter it",
        "figures": "the figures of all measured requests",
        "trust": "whether the sender kept up",
        "format": "always `headrace.load/1`; a change that breaks readers would have another",
        "version": "of the headrace that made the report",
        "errors": "failures by kind",
        "connect": "times to set up a connection, which are in no TTFT",
        "promises": "each promise of the plan and what came",
        "scenarios": "figures by scenario",
        "series": "the time line, in intervals; warm-up and cool-down are in it",
        "heat_bounds_ms": "upper bounds of the latency buckets of each interval's `heat`",
        "server": "what the server told of itself meanwhile",
        "requests": "each measured request; null where they were not kept",
        "notes": "what a reader should know besides",
    },
    Figures: {
        "counts": "requests by fate",
        "seconds": "length of the measured time",
        "requests_per_s": "answered requests a second",
        "input_tokens_per_s": "tokens of the prompts a second",
        "output_tokens_per_s": "tokens of the answers a second",
        "goodput_per_s": "requests a second that met every promise on single requests",
        "error_share": "failed / measured, from 0 to 1",
        "latency": "ms to the answer's end, from the intended time (closed loop: from sending)",
        "service": "ms to the answer's end, from sending",
        "ttft": "ms to the first piece of output, from the intended time (closed loop: from sending)",
        "service_ttft": "ms to the first piece of output, from sending",
        "tpot": "ms a token after the first, a value for each request",
        "itl": "ms between two pieces of output, a value for each gap",
        "input_tokens": "tokens of a prompt",
        "output_tokens": "tokens of an answer",
        "output_speed": "tokens a second of a single answer",
    },
    Counts: {
        "sent": "all that were sent, warm-up and cool-down among them",
        "measured": "those in the figures: ok + failed + cut",
        "ok": "answered whole",
        "failed": "ended in an error; they have no latency",
        "cut": "still on their way when the run ended",
        "warmup": "left out at the beginning",
        "cooldown": "left out at the end",
        "never_sent": "due, but held back until the run was over",
    },
    Distribution: {
        "unit": "of the values",
        "count": "how many values there are",
        "mean": "sum / count",
        "std": "standard deviation of the sample",
        "minimum": "the smallest",
        "maximum": "the largest",
        "percentiles": "`p50` to `p99.9`; null where the sample cannot carry it",
        "intervals": "95% confidence bounds of each percentile; null where there are none",
        "histogram": "counts by bucket: bucket i holds the values in (g^(i-1), g^i], g = (1 + accuracy) / (1 - accuracy); accuracy is 0.001 for gaps, else 0.01",
    },
    ErrorCount: {
        "kind": "the error's class, as in call records",
        "count": "how many requests ended so",
        "status": "the HTTP status, where there was one",
        "example": "the first one's message",
    },
    Trust: {
        "verdict": "VALID, SUSPECT or INVALID",
        "doubts": "what speaks against the figures",
        "times_from": "who told when bytes arrived: the kernel, or the read",
        "schedule_lag_ms": "p99 of how much later a request was sent than it could have been",
        "schedule_lag_max_ms": "the same, at most",
        "read_lag_ms": "p99 from the arrival of bytes to their reading; null where the kernel does not say",
        "coalesced_share": "share of pieces that have the instant of the piece before",
        "cpu_share": "of a core, by the busiest process of the sender",
        "loop_lag_ms": "p99 of how late the sender's loop came to its own ticks",
        "loop_lag_max_ms": "the same, at most",
        "wait_share": "of the time, the sender was ready and had no core; null where the system does not say",
        "steal_share": "of all cores' time, a hypervisor gave to others; null where the system does not say",
        "cpu_s_per_1k_tokens": "CPU seconds of the sender per 1,000 tokens",
        "lost_connections": "connections that the server closed and could have kept",
        "peak_rss_bytes": "memory of the sender at most",
    },
    Doubt: {
        "name": "which measurement",
        "verdict": "how far it goes by itself",
        "text": "what it means, and what to do about it",
        "value": "what was measured",
        "limit": "what it should have stayed below",
    },
    PromiseResult: {
        "promise": "what was promised",
        "value": "what came: ms, or a share for errors",
        "kept": "null where the sample is too small to say",
        "text": "why",
    },
    Moment: {
        "at": "its beginning, seconds from the run's",
        "seconds": "its length",
        "sent": "requests sent in it",
        "done": "requests answered in it",
        "failed": "requests that failed in it",
        "in_flight": "requests on their way at its end",
        "waiting": "requests that were due and held back at its end",
        "input_tokens": "tokens of the prompts",
        "output_tokens": "tokens of the answers",
        "ttft_p50": "ms, of the requests whose first token came in it",
        "ttft_p95": "the same at p95",
        "itl_p50": "ms between pieces",
        "latency_p50": "ms, of the requests that ended in it",
        "latency_p95": "the same at p95",
        "latency_max": "the same at most",
        "heat": "how many of those latencies are in each bucket of `heat_bounds_ms`, one more for above",
    },
    ServerSeries: {
        "name": "of the metric, as the server names it",
        "labels": "that tell it from its namesakes",
        "kind": "a counter's values are rates a second",
        "at": "seconds from the run's beginning",
        "values": "one for each instant",
    },
    Columns: {
        "index": "the request's number in the order of the schedule",
        "intended_s": "when it was meant to be sent; null in a closed loop",
        "sent_s": "when it was sent",
        "latency_ms": "from the intended time to the end; null where it failed",
        "service_ms": "from sending to the end",
        "ttft_ms": "to the first piece of output",
        "tpot_ms": "a token after the first",
        "worst_gap_ms": "the longest time between two pieces",
        "connect_ms": "setting up its connection; null where it was there",
        "input_tokens": "of the prompt",
        "output_tokens": "of the answer",
        "chunks": "pieces of output",
        "status": "HTTP status",
        "error": "kind of the failure; null where it was answered",
        "scenario": "which it belongs to",
    },
}


def fields_page(note: str) -> str:
    """Every class of the report with its fields, the outermost first."""
    lines = [
        "# The fields of a load test's report",
        "",
        note,
        "",
        "`report.json` is one object, a `LoadReport`, in the format `headrace.load/1`. How to read the",
        "figures is told in [load-report.md](load-report.md); the same fields as JSON Schema are in",
        "[load-report.schema.json](load-report.schema.json). Fields may be added within the format,",
        "and are then optional; none is removed and none changes its meaning. Where a field holds one",
        "of several classes (arrivals, workload), its `type` says which.",
        "",
    ]
    for cls in classes_of(LoadReport):
        said = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")
        lines += [f"## {cls.__name__}", "", said, ""]
        rows = [_row(cls, item) for item in fields(cls)]
        told = any(meaning for *_, meaning in rows)
        lines += (
            ["| field | type | default | meaning |", "|---|---|---|---|"]
            if told
            else ["| field | type | default |", "|---|---|---|"]
        )
        lines += ["| " + " | ".join(row if told else row[:-1]) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def schema(_: str = "") -> str:
    """The JSON Schema of ``report.json``."""
    made = schema_of(LoadReport, MEANINGS)
    made["properties"]["format"] = {"const": load_report.FORMAT}
    made["required"].append("format")
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _row(cls: type, item: Any) -> tuple[str, str, str, str]:
    meaning = MEANINGS.get(cls, {}).get(item.name, "")
    if not meaning and cls.__module__ == load_report.__name__:
        raise SystemExit(
            f"docs/load_report_page.py says nothing of {cls.__name__}.{item.name}: add a line there"
        )
    default = "required" if item.default is NOTHING else _default(item.default)
    return f"`{item.name}`", f"`{_kind(item.type)}`".replace("|", "\\|"), default, meaning


def _kind(tp: Any) -> str:
    if isinstance(tp, type) and not hasattr(tp, "__origin__"):
        return "null" if tp is type(None) else tp.__name__
    return re.sub(r"\b[a-z_]+\.", "", str(tp)).replace("NoneType", "None")


def _default(value: object) -> str:
    if value is None or value in ((), {}):
        return "none"
    return f"`{json.dumps(value)}`" if isinstance(value, (bool, int, float, str)) else f"`{value}`"
