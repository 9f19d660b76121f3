"""The tables of the profile's page."""

from __future__ import annotations

from headrace.bench.profile.report import words
from headrace.bench.profile.report.figures import Figures
from headrace.bench.report.page_tables import row, section, table
from headrace.bench.report.svg import text_of
from headrace.bench.report.words import NOTHING, count, share, time_ms
from headrace.contracts.profile_report import ProfileReport


def whole(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else count(value)


def paragraphs(said: str, most: int) -> str:
    """What somebody has written, on lines of its own as it was."""
    lines = said[:most].splitlines()
    return "\n".join(text_of(line, most) for line in lines) + ("…" if len(said) > most else "")


def stages(report: ProfileReport, figures: Figures) -> str:
    """Each stage's time, work, and share of what the device can do."""
    if not report.stages:
        return ""
    body = []
    for n, stage in enumerate(report.stages):
        at = f"stages[{n}]"
        body.append(
            row(
                text_of(words.stage_of(stage)),
                [
                    figures.spread(f"{at}.time_ms", time_ms),
                    figures.html(f"{at}.share", share),
                    figures.html(f"{at}.tokens", whole),
                    figures.html(f"{at}.flops", words.flops),
                    figures.html(f"{at}.bytes", words.bytes_),
                    figures.html(f"{at}.intensity", words.intensity),
                    figures.html(f"{at}.flops_per_s", words.flops_per_s),
                    figures.html(f"{at}.bytes_per_s", words.bytes_per_s),
                    f'<td class="text">{stage.bound or NOTHING}</td>',
                    figures.html(f"{at}.mfu", share),
                    figures.html(f"{at}.mbu", share),
                    figures.html(f"{at}.of_floor", share),
                ],
            )
        )
    heads = ["stage", "time", "share", "tokens", "FLOPs", "bytes", "intensity", "FLOP/s", "bytes/s"]
    heads += ["~bound by", "MFU", "MBU", "of least time"]
    under = (
        "Time and its spread are for one input; tokens, FLOPs and bytes for all inputs once. The last "
        "column: the least time that the device could take, over the time."
    )
    return section("Stages", table(heads, body), under)


def operators(report: ProfileReport, figures: Figures) -> str:
    """Operators by their own time; the table sorts by any column."""
    if not report.operators:
        return ""
    on_gpu = any(o.cuda_time_ms for o in report.operators)
    order = sorted(range(len(report.operators)), key=lambda n: -words.own_ms(report.operators[n]))
    body = []
    for n in order:
        o, at = report.operators[n], f"operators[{n}]"
        cells = [f'<td class="text">{text_of(o.stage or NOTHING, 40)}</td>']
        cells.append(figures.cell(f"{at}.total_time_ms", time_ms))
        if on_gpu:
            cells.append(figures.cell(f"{at}.cuda_time_ms", time_ms))
        cells += [
            figures.cell(f"{at}.share_of_stage", share),
            figures.cell(f"{at}.calls", whole),
            figures.cell(f"{at}.flops", words.flops),
            figures.cell(f"{at}.bytes", words.bytes_),
            figures.cell(f"{at}.share_of_roof", share),
        ]
        body.append(row(f"<code>{text_of(o.op_name, 120)}</code>", cells))
    heads = ["operator", "~stage", *(["on the CPU", "on the GPU"] if on_gpu else ["own time"])]
    heads += ["of its stage", "calls", "FLOPs", "bytes", "of its roof"]
    under = (
        "Own times, under the operator profiler and apart from the timed passes. Of its stage: of the own times "
        "of all its operators. Of its roof: the operator's least possible time over its time."
    )
    return _long("Operators", table(heads, body, "sorts"), len(body), under)


def kernels(report: ProfileReport, figures: Figures) -> str:
    """Kernels of the GPU as NVIDIA's profilers tell them; the table sorts by any column."""
    if not report.kernels:
        return ""
    body = [
        row(
            f"<code>{text_of(kernel.name, 160)}</code>",
            [
                f'<td class="text">{text_of(kernel.stage or NOTHING, 40)}</td>',
                f'<td class="text">{kernel.source}</td>',
                figures.cell(f"kernels[{n}].time_ms", time_ms),
                figures.cell(f"kernels[{n}].calls", whole),
                figures.cell(f"kernels[{n}].memory_share", share),
                figures.cell(f"kernels[{n}].compute_share", share),
            ],
        )
        for n, kernel in enumerate(report.kernels)
    ]
    heads = ["kernel", "~stage", "~told by", "time", "launches", "of memory", "of compute"]
    under = (
        "In processes of their own, apart from the timed passes. Shares are of what the device "
        "sustains at most."
    )
    return _long("Kernels", table(heads, body, "sorts"), len(body), under)


def _long(title: str, rows: str, number: int, under: str) -> str:
    """A section with a table that scrolls by itself."""
    return (
        f'<section class="card long"><h2>{title} ({count(number)})</h2>'
        f'<p class="quiet small">{text_of(under, 600)}</p><div class="scroll tall" tabindex="0" '
        f'role="region" aria-label="{title}">{rows}</div></section>'
    )


def peaks(report: ProfileReport, figures: Figures) -> str:
    """What the device can do at best, and who says so."""
    if not report.peaks:
        return section(
            "Peaks", "<p>No peak of this device is known, so there is no MFU and no MBU.</p>"
        )
    body = [
        row(
            text_of(peak.source),
            [
                f'<td class="text">{text_of(peak.dtype)}</td>',
                figures.html(f"peaks[{n}].flops_per_s", words.flops_per_s),
                figures.html(f"peaks[{n}].bytes_per_s", words.bytes_per_s),
                figures.html(f"peaks[{n}].spread", share),
                figures.html(f"peaks[{n}].cpu_share", share),
                f'<td class="wrap">{text_of(peak.text, 600)}</td>',
            ],
        )
        for n, peak in enumerate(report.peaks)
    ]
    heads = [
        "source",
        "~numbers",
        "compute",
        "memory",
        "spread",
        "processor got",
        "~how it is known",
    ]
    return section(
        "Peaks", table(heads, body), "What MFU and MBU are shares of; dense figures only."
    )
