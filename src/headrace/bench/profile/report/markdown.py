"""The report of a profile in Markdown, short enough for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.bench.profile.report import words
from headrace.bench.report.markdown import code, plain_words, table
from headrace.bench.report.words import NOTHING, count, number, share, time_ms
from headrace.contracts.profile_report import ProfileReport
from headrace.contracts.profiling import Stats

_MOST_OPERATORS = 12


def markdown(report: ProfileReport) -> str:
    """The verdict, stages, operators, peaks, and what can be done."""
    lines = [
        f"### Profile of {code(words.model_of(report))} on {code(words.device_of(report))}",
        "",
        f"**{plain_words(report.verdict, 1000)}**",
        "",
        f"{code(report.dtype)}, {plain_words(report.attention or NOTHING)} attention, "
        f"{len(report.inputs)} inputs × {report.repeats} repeats. The machine was "
        f"{report.noise.verdict}: {plain_words(report.noise.text, 600)}",
    ]
    if not report.complete:
        lines += ["", "⚠️ **The run ended early: the figures are of a part of it.**"]
    for part in (
        _times(report),
        _stages(report),
        _operators(report),
        _kernels(report),
        _peaks(report),
    ):
        if part:
            lines += ["", *part]
    if report.recommendations:
        lines += ["", "**What can be done**", ""]
        lines += [
            f"- {plain_words(r.text, 600)} {plain_words(r.because, 600)}"
            + (f" Up to {words.gain(r.gain)}." if r.gain is not None else "")
            for r in report.recommendations
        ]
    if report.uncounted:
        lines += ["", f"Not counted: {', '.join(map(code, report.uncounted))}."]
    for title, told in (("Notes", report.notes), ("Conventions", report.conventions)):
        if told:
            lines += ["", f"**{title}**", "", *(f"- {plain_words(each, 1000)}" for each in told)]
    lines += ["", f"<sub>headrace {plain_words(report.version)}, run {code(report.run_id)}</sub>"]
    return "\n".join(lines) + "\n"


def _times(report: ProfileReport) -> list[str]:
    rows = [
        [name, _spread(stats), count(stats.count) if stats.count is not None else NOTHING]
        for name, stats in (
            ("TTFT", report.ttft_ms),
            ("TPOT", report.tpot_ms),
            ("whole input", report.total_ms),
        )
        if stats is not None
    ]
    rows += [
        [label, f"{number(stats.mean)} ± {number(stats.std)}", count(stats.count or 0)]
        for label, key in (
            ("prefill tokens/s", "prefill_tokens_per_s"),
            ("decode tokens/s", "decode_tokens_per_s"),
        )
        if (stats := report.summary.aggregates.get(key)) is not None
    ]
    return table(["", "mean ± std", "values"], rows)


def _spread(stats: Stats) -> str:
    return f"{time_ms(stats.mean)} ± {time_ms(stats.std)}"


def _stages(report: ProfileReport) -> list[str]:
    rows: list[Sequence[str]] = [
        [
            words.stage_of(s),
            _spread(s.time_ms),
            share(s.share),
            words.flops(s.flops),
            words.bytes_(s.bytes),
            s.bound or NOTHING,
            share(s.mfu),
            share(s.mbu),
            share(s.of_floor),
        ]
        for s in report.stages
    ]
    heads = ["stage", "time", "share", "FLOPs", "bytes", "bound by", "MFU", "MBU", "of least time"]
    return table(heads, rows)


def _kernels(report: ProfileReport) -> list[str]:
    if not report.kernels:
        return []
    rows = [
        [
            code(k.name),
            code(k.stage) if k.stage else NOTHING,
            k.source,
            time_ms(k.time_ms),
            count(k.calls),
            share(k.memory_share),
            share(k.compute_share),
        ]
        for k in report.kernels[:_MOST_OPERATORS]
    ]
    heads = ["kernel", "stage", "told by", "time", "launches", "of memory", "of compute"]
    lines = table(heads, rows)
    if len(report.kernels) > _MOST_OPERATORS:
        lines += ["", f"{len(report.kernels) - _MOST_OPERATORS} more are in `report.json`."]
    return lines


def _operators(report: ProfileReport) -> list[str]:
    timed = sorted(report.operators, key=lambda o: -words.own_ms(o))
    rows = [
        [
            code(o.op_name),
            code(o.stage) if o.stage else NOTHING,
            time_ms(words.own_ms(o)),
            count(o.calls),
            words.flops(o.flops),
            words.bytes_(o.bytes),
            share(o.share_of_roof),
        ]
        for o in timed[:_MOST_OPERATORS]
    ]
    heads = ["operator", "stage", "own time", "calls", "FLOPs", "bytes", "of its roof"]
    lines = table(heads, rows)
    if len(timed) > _MOST_OPERATORS:
        lines += [
            "",
            f"<sub>{len(timed) - _MOST_OPERATORS} more in operators.parquet or .csv.</sub>",
        ]
    return lines


def _peaks(report: ProfileReport) -> list[str]:
    rows = [
        [
            plain_words(words.peak_name(p)),
            words.flops_per_s(p.flops_per_s),
            words.bytes_per_s(p.bytes_per_s),
            plain_words(p.text, 600),
        ]
        for p in report.peaks
    ]
    return table(["peak", "compute", "memory", "how it is known"], rows)
