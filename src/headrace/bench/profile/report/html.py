"""The report of a profile as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from itertools import count

from headrace.bench.profile.report import charts, tables, words
from headrace.bench.profile.report.figures import Figures, Tell
from headrace.bench.profile.report.saved import plain_of
from headrace.bench.report.page import bullets, card, page, pair, terms
from headrace.bench.report.svg import text_of
from headrace.bench.report.words import NOTHING, number, share, time_ms
from headrace.contracts.profile_report import ProfileReport

_DEFINITIONS = (
    ("TTFT", "Time to first token: preprocessing, vision and prefill of one input, together."),
    ("TPOT", "Time per output token: the mean of an input's decode steps after the first token."),
    ("vision", "The part of prefill in the model's vision encoder and projector; not added to it."),
    (
        "MFU",
        "Model FLOPs utilisation: the FLOPs that the model needs, over what the device could have "
        "done in the time. One multiply-add is two FLOPs.",
    ),
    (
        "MBU",
        "Memory bandwidth utilisation: the bytes that have to be moved at least, over what the "
        "memory could have moved in the time.",
    ),
    (
        "least time",
        "The longer of both: FLOPs over the peak, and bytes over the bandwidth. Its share of the "
        "time is how much of what is possible was reached.",
    ),
    (
        "roofline",
        "Work a second against work a byte. Left of the ridge the memory is the limit, right of it "
        "the arithmetic; the distance to the line above a dot is what is not used.",
    ),
    ("own time", "An operator's time without that of the operators that it calls."),
    ("±", "The sample standard deviation over inputs and repeats."),
)


def html(report: ProfileReport) -> str:
    """The whole page."""
    figures = Figures(plain_of(report))
    numbers = count(1)
    title = f"Profile of {words.model_of(report)}"
    parts = (
        _head(report, title),
        _verdict(report),
        _tiles(report, figures),
        _recommendations(report, figures),
        card(charts.stage_bars(report), numbers, _BARS),
        tables.stages(report, figures),
        card(charts.roofline(report), numbers, _ROOF),
        tables.operators(report, figures),
        tables.kernels(report, figures),
        card(charts.memory(report), numbers, _MEMORY if report.memory else ""),
        tables.peaks(report, figures),
        pair([_noise(report, figures), _uncounted(report)], "halves"),
        pair([_what_was_run(report), terms("Where it ran", _environment(report))], "halves"),
        _listed("Notes", report.notes),
        _listed("How it was counted", report.conventions),
        _predictions(report, figures),
        terms("How to read this", _DEFINITIONS, "definitions"),
        _foot(report),
    )
    return page(title, "\n".join(part for part in parts if part), _style())


_BARS = (
    "Bar: the mean for one input. Black line: one standard deviation to each side. Ticks below: each "
    "value. Red: the least time that the device could take. Vision lies inside prefill."
)
_ROOF = (
    "A full dot is a stage, a ring an operator. A dot on a line uses all that the device has; the "
    "solid lines are peaks as measured here, the dashed ones the datasheet's."
)
_MEMORY = "Colours at the bottom: which stage ran."


@cache
def _style() -> str:
    place = files("headrace.bench.profile.report") / "profile.css"
    return place.read_text(encoding="utf-8")


def _head(report: ProfileReport, title: str) -> str:
    parts = [
        words.device_of(report),
        report.dtype,
        f"{report.attention} attention" if report.attention else "",
        "compiled" if report.compiled else "",
        "random weights" if report.request.random_weights else "",
        f"{len(report.inputs)} inputs × {report.repeats} repeats",
    ]
    said = "; ".join(part for part in parts if part)
    return (
        f'<header><div class="head"><h1>{text_of(title)}</h1>'
        f'<p class="quiet"><span class="brand">headrace</span> · {text_of(report.started)}</p></div>'
        f'<p class="quiet">{text_of(said, 600)}</p></header>'
    )


_NOISE = {"clean": ("ok", "clean"), "noisy": ("warn", "noisy"), "unknown": ("warn", "not known")}


def _verdict(report: ProfileReport) -> str:
    kind = (
        "invalid" if not report.complete else "" if report.noise.verdict == "clean" else "suspect"
    )
    lines = [f'<p class="sentence">{text_of(report.verdict, 1000)}</p>']
    if not report.complete:
        why = f" ({text_of(report.ended, 600)})" if report.ended else ""
        lines.append(
            f"<p><b>The run ended early{why}: the figures are of the part of it that was done.</b></p>"
        )
    # The notes of a summary begin with the verdict where nobody wrote others.
    if more := report.summary.notes.removeprefix(report.verdict).strip():
        lines.append(f"<p>{text_of(more, 4000)}</p>")
    if report.noise.verdict != "clean":
        lines.append(f'<p class="quiet">{text_of(report.noise.text, 600)}</p>')
    return f'<section class="card verdict {kind}" aria-label="Verdict">{"".join(lines)}</section>'


def _tiles(report: ProfileReport, figures: Figures) -> str:
    tiles: list[tuple[str, str, str]] = []

    def add(name: str, path: str, tell: Tell, beside: str = "") -> None:
        if figures.value(path) is not None:
            tiles.append((name, figures.html(path, tell), beside))

    for name, path in (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms")):
        if figures.plain_at(path) is not None:
            add(name, f"{path}.mean", time_ms, f"± {figures.html(f'{path}.std', time_ms)}")
    for name, path in (
        ("Prefill", "prefill_tokens_per_s"),
        ("Decode", "decode_tokens_per_s"),
    ):
        if path in report.summary.aggregates:
            place = f"summary.aggregates.{path}"
            beside = f"tokens/s, ± {figures.html(f'{place}.std', number)}"
            add(name, f"{place}.mean", number, beside)
    add("MFU", "summary.mfu_model_level", share, "of compute, whole run")
    add("MBU", "summary.mbu_model_level", share, "of bandwidth, whole run")
    weights = figures.html("weight_bytes", words.bytes_)
    add("Peak memory", "peak_memory", words.bytes_, f"weights {weights}")
    inner = "".join(
        f'<article class="tile"><h3>{text_of(name)}</h3><p class="figure">{value}</p>'
        f'<p class="quiet">{beside}</p></article>'
        for name, value, beside in tiles
    )
    return f'<section class="tiles" aria-label="Figures">{inner}</section>' if tiles else ""


def _recommendations(report: ProfileReport, figures: Figures) -> str:
    if not report.recommendations:
        return ""
    items = []
    for n, each in enumerate(report.recommendations):
        gained = figures.html(f"recommendations[{n}].gain", words.gain)
        right = (
            f'<span class="gain">up to {gained}</span>'
            if each.gain is not None
            else "<span></span>"
        )
        items.append(
            f"<li><span>{text_of(each.text, 600)}</span>{right}"
            f'<span class="because">{text_of(each.because, 600)}</span></li>'
        )
    return (
        '<section class="card"><h2>What can be done</h2><p class="quiet small">Each with the number '
        "that speaks for it, and how many times as fast it could get at most.</p>"
        f'<ol class="advice">{"".join(items)}</ol></section>'
    )


def _noise(report: ProfileReport, figures: Figures) -> str:
    noise = report.noise
    colour, word = _NOISE[noise.verdict]
    rows = [
        ("share of the processor", figures.html("noise.cpu_share", share)),
        ("largest variation of a stage", figures.html("noise.variation", share)),
        ("taken by other machines", figures.html("noise.stolen_share", share)),
    ]
    if report.overhead is not None:
        rows += [
            ("under the operator profiler, prefill", figures.html("overhead.prefill", _times)),
            ("under the operator profiler, decode", figures.html("overhead.decode", _times)),
        ]
    inner = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value != NOTHING)
    return (
        f'<section class="card"><h2>How quiet it was <span class="pill {colour}">{word}</span></h2>'
        f'<p>{text_of(noise.text, 600)}</p><dl class="facts">{inner}</dl></section>'
    )


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{number(value)} times as long"


def _uncounted(report: ProfileReport) -> str:
    if not report.uncounted:
        said = (
            "Nothing: the work of every operator that ran is in the figures."
            if report.operators
            else "No operators were looked at."
        )
        return f'<section class="card"><h2>Not counted</h2><p>{said}</p></section>'
    items = (f"<code>{text_of(each)}</code>" for each in report.uncounted)
    return (
        '<section class="card"><h2>Not counted</h2><p class="quiet small">The work of these is in no '
        f"figure.</p>{bullets(items)}</section>"
    )


def _listed(title: str, lines: Iterable[str]) -> str:
    items = [text_of(line, 1000) for line in lines]
    return f'<section class="card"><h2>{title}</h2>{bullets(items)}</section>' if items else ""


def _what_was_run(report: ProfileReport) -> str:
    asked = report.request
    rows = [
        ("model", asked.model_path),
        ("inputs", asked.input_dir),
        ("device", asked.device),
        ("numbers", report.dtype),
        ("attention", report.attention),
        ("weights", "random" if asked.random_weights else "the model's own"),
        ("repeats", f"{report.repeats}, after {asked.warmup} to warm up"),
        ("new tokens", f"at most {asked.max_new_tokens}"),
        ("compiled", "yes" if report.compiled else "no"),
        ("run", report.run_id),
    ]
    return terms("What was run", [(a, b) for a, b in rows if b])


def _environment(report: ProfileReport) -> list[tuple[str, str]]:
    named = [("device", words.device_of(report))]
    return named + [(name, value) for name, value in report.environment.facts.items()]


_MOST_PREDICTIONS = 40


def _predictions(report: ProfileReport, figures: Figures) -> str:
    if not report.predictions:
        return ""
    items = []
    for n, p in enumerate(report.predictions[:_MOST_PREDICTIONS]):
        tokens = figures.html(f"predictions[{n}].output_tokens", tables.whole)
        ended = f", {text_of(p.finish_reason, 60)}" if p.finish_reason else ""
        items.append(
            f"<article><h3>{text_of(p.input, 200)}</h3>"
            f'<p class="quiet small">{figures.html(f"predictions[{n}].input_tokens", tables.whole)} tokens '
            f'in, {tokens} out{ended}</p><p class="said">{tables.paragraphs(p.text, 4000)}</p></article>'
        )
    left = len(report.predictions) - len(items)
    under = f'<p class="quiet small">{left} more in report.json.</p>' if left > 0 else ""
    return (
        f'<section class="card long"><h2>What the model said</h2>{under}'
        f'<div class="predictions">{"".join(items)}</div></section>'
    )


def _foot(report: ProfileReport) -> str:
    version = f" {report.version}" if report.version else ""
    return (
        f'<footer class="quiet small">Made by headrace{text_of(version)} from run '
        f"{text_of(report.run_id)}, format {text_of(report.format)}.</footer>"
    )
