"""Charts of a profile: where the time goes, how far below its roofs it lies, and the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

from attrs import frozen

from headrace.bench.profile.report import words
from headrace.bench.profile.report.places import Label, spread_labels
from headrace.bench.report.svg import WIDE, Chart, linear, logarithmic, place, text_of
from headrace.bench.report.timelines import Drawn
from headrace.bench.report.words import NOTHING, number, share, time_ms
from headrace.contracts.profile_report import Peak, ProfileReport, StageFigures

MOST_OPERATORS = 8
"""So many operators have a dot on the roofline."""
_ROW, _BAR = 46, 22
_COLOURS = {"preprocess": "left", "vision": "in", "prefill": "out", "decode": "ok"}


def stage_bars(report: ProfileReport) -> Chart | None:
    """A bar a stage: the mean, its standard deviation, every value, and the least possible time."""
    stages = report.stages
    if not stages:
        return None
    inputs = max(1, len(report.inputs))
    most = max(max((s.time_ms.mean + s.time_ms.std, *s.values_ms)) for s in stages)
    said = "; ".join(
        f"{s.stage} {time_ms(s.time_ms.mean)} ± {time_ms(s.time_ms.std)}" for s in stages
    )
    chart = Chart(
        "Time per stage",
        f"Mean and standard deviation for one input: {said}.",
        height=_ROW * len(stages) + 60,
        left=112,
        width=WIDE,
        right=24,
    )
    scale = linear(most * 1.12, *chart.x)
    chart.axis_x(scale, lambda v: f"{v:g}", "milliseconds for one input")
    for n, stage in enumerate(stages):
        _stage_bar(chart, stage, n, scale.at, inputs)
    return chart


def _stage_bar(
    chart: Chart, stage: StageFigures, n: int, at: Callable[[float], float], inputs: int
) -> None:
    top = chart.y[1] + _ROW * n + 8
    middle = top + _BAR / 2
    begin, end = at(0.0), at(stage.time_ms.mean)
    mean, std = stage.time_ms.mean, stage.time_ms.std
    name = words.stage_of(stage)
    _label(chart, chart.left - 8, middle + 4, name)
    tip = f"{name}: {time_ms(mean)} ± {time_ms(std)} ({stage.time_ms.count or NOTHING} values)"
    if stage.share is not None:
        tip += f", {share(stage.share)} of the whole"
    colour = _COLOURS[stage.stage]
    height = _BAR if stage.inside is None else _BAR - 8
    chart.parts.append(
        f'<rect class="f-{colour} bar tip-spot-own" x="{place(begin)}" y="{place(middle - height / 2)}" '
        f'width="{place(max(end - begin, 1))}" height="{place(height)}" data-stage="{stage.stage}" '
        f'data-mean="{mean!r}" data-std="{std!r}"><title>{text_of(tip)}</title></rect>'
    )
    low, high = at(max(0.0, mean - std)), at(mean + std)
    chart.parts.append(
        f'<path class="whisker" d="M{place(low)} {place(middle)}H{place(high)}M{place(low)} '
        f'{place(middle - 5)}v10M{place(high)} {place(middle - 5)}v10"/>'
    )
    # Each value once, below its bar; many make a band.
    dots = "".join(f"M{place(at(v))} {place(top + _BAR + 3)}v6" for v in stage.values_ms)
    if dots:
        chart.parts.append(f'<path class="value s-{colour}" d="{dots}"/>')
    if stage.floor_ms is not None:
        floor = at(stage.floor_ms / inputs)
        chart.parts.append(
            f'<path class="floor" d="M{place(floor)} {place(top - 4)}V{place(top + _BAR + 4)}">'
            f"<title>{text_of('the least time that the device could take')}</title></path>"
        )
    beyond = max(high, *(at(v) for v in stage.values_ms)) if stage.values_ms else high
    words_after = time_ms(mean) + ("" if stage.share is None else f", {share(stage.share)}")
    room = chart.width - beyond - 10
    if room > len(words_after) * 6.3:
        chart.words(beyond + 8, middle + 4, words_after)


def _label(chart: Chart, x: float, y: float, said: str) -> None:
    chart.parts.append(
        f'<text class="said" x="{place(x)}" y="{place(y)}" text-anchor="end">{text_of(said)}</text>'
    )


# The roofline.


@frozen
class Spot:
    """A dot of the roofline: how much work a byte, and how much of it a second."""

    name: str
    intensity: float
    flops_per_s: float
    colour: str
    path: str
    is_stage: bool
    tip: str


def spots(report: ProfileReport) -> list[Spot]:
    """Every stage, and the operators that took the most time, as far as their work is known."""
    found = []
    for n, s in enumerate(report.stages):
        if s.intensity is None or not s.flops_per_s:
            continue
        tip = (
            f"{s.stage}: {words.flops_per_s(s.flops_per_s)} at {words.intensity(s.intensity)}, "
            f"MFU {share(s.mfu)}, MBU {share(s.mbu)}"
        )
        colour = _COLOURS[s.stage]
        found.append(
            Spot(
                s.stage, s.intensity, s.flops_per_s, colour, f"stages[{n}]", is_stage=True, tip=tip
            )
        )
    timed = sorted(enumerate(report.operators), key=lambda each: -words.own_ms(each[1]))
    for n, o in timed[:MOST_OPERATORS]:
        ms = words.own_ms(o)
        if not o.flops or not o.bytes or ms <= 0:
            continue
        rate = o.flops / ms * 1e3
        name = f"{o.op_name} ({o.stage})" if o.stage else o.op_name
        tip = f"{name}: {words.flops_per_s(rate)} at {words.intensity(o.flops / o.bytes)}, {time_ms(ms)}"
        colour = _COLOURS.get(o.stage or "", "left")
        path = f"operators[{n}]"
        found.append(Spot(name, o.flops / o.bytes, rate, colour, path, is_stage=False, tip=tip))
    return found


@frozen
class _Roof:
    source: str
    bandwidth: float
    tops: tuple[tuple[str, float], ...]


def _roofs(peaks: Sequence[Peak]) -> list[_Roof]:
    """Of each source the memory's slope, and a level for each kind of numbers."""
    found = []
    for source in ("measured", "datasheet"):
        own = [p for p in peaks if p.source == source]
        bandwidth = max((p.bytes_per_s or 0.0 for p in own), default=0.0)
        tops = sorted(((p.dtype, p.flops_per_s) for p in own if p.flops_per_s), key=lambda t: -t[1])
        if bandwidth and tops:
            found.append(_Roof(source, bandwidth, tuple(tops)))
    return found


def roofline(report: ProfileReport) -> Drawn | None:
    """Work a second against work a byte, under the roofs of the device; None without any dot."""
    dots, roofs = spots(report), _roofs(report.peaks)
    if not dots:
        return None
    ridges = [level / roof.bandwidth for roof in roofs for _, level in roof.tops]
    xs = [d.intensity for d in dots] + ridges
    ys = [d.flops_per_s for d in dots] + [level for roof in roofs for _, level in roof.tops]
    described = "; ".join(d.tip for d in dots if d.is_stage)
    chart = Chart(
        "Roofline",
        f"Both axes are logarithmic. {described}.",
        height=430,
        left=92,
        width=WIDE,
        right=20,
    )
    x = logarithmic(min(xs) / 2.5, max(xs) * 4, *chart.x)
    y = logarithmic(min(ys) / 2.5, max(ys) * 2.2, *chart.y)
    chart.axis_x(x, lambda v: f"{v:g}", "FLOPs a byte (logarithmic)")
    chart.axis_y(y, words.flops_per_s, "FLOP/s (logarithmic)")
    legend, levels = [], []
    for roof, colour, dash in zip(roofs, ("ink", "in"), (0, 1), strict=False):
        highest = roof.tops[0][1]
        # The slope begins where it comes into view, at the left or from below.
        begin = max(x.low, y.low / roof.bandwidth)
        slope = (begin, begin * roof.bandwidth), (highest / roof.bandwidth, highest)
        chart.line([(x.at(a), y.at(b)) for a, b in slope], colour, dash)
        for dtype, level in roof.tops:
            knee = level / roof.bandwidth
            chart.line([(x.at(knee), y.at(level)), (chart.x[1], y.at(level))], colour, dash)
            said = f"{dtype} {roof.source} {words.flops_per_s(level)}"
            # The two sources often lie close together: one stands above its line, one below.
            beside = -6 if roof.source == "datasheet" else 14
            levels.append(Label(chart.x[1] - 4, y.at(level) + beside, said, "end"))
        said = f"{roof.source} roof, memory {words.bytes_per_s(roof.bandwidth)}"
        legend.append((said, colour, dash))
    for dot in sorted(dots, key=lambda d: d.is_stage):
        _dot(chart, dot, x.at(dot.intensity), y.at(dot.flops_per_s))
    stages, operators = (
        [
            _beside(chart, x.at(d.intensity), y.at(d.flops_per_s) + 4, d.name)
            for d in dots
            if d.is_stage is wanted
        ]
        for wanted in (True, False)
    )
    placed = spread_labels([*stages, *levels, *operators])
    for label, meant in zip(placed, [*stages, *levels, *operators], strict=True):
        # An operator's name far from its ring would be read as another's; a pointer still shows it.
        if label.y == meant.y or meant not in operators:
            chart.words(label.x, label.y, label.said, label.anchor)
    return Drawn(chart, tuple(legend))


def _beside(chart: Chart, x: float, y: float, said: str) -> Label:
    """A dot's name at its right, or at its left where there is no room."""
    label = Label(x + 10, y, said)
    return label if label.reach[1] <= chart.width else Label(x - 10, y, said, "end")


def _dot(chart: Chart, dot: Spot, x: float, y: float) -> None:
    kind = f"f-{dot.colour}" if dot.is_stage else f"hollow s-{dot.colour}"
    chart.parts.append(
        f'<circle class="{kind} tip-spot-own" cx="{place(x)}" cy="{place(y)}" '
        f'r="{7 if dot.is_stage else 4}" data-path="{dot.path}" data-intensity="{dot.intensity!r}" '
        f'data-flops-per-s="{dot.flops_per_s!r}"><title>{text_of(dot.tip)}</title></circle>'
    )


def memory(report: ProfileReport) -> Drawn | None:
    """What was in use over the timed passes; the stages are colours below it."""
    moments = report.memory
    if len(moments) < 2:
        return None
    weights = report.weight_bytes or 0
    most = max(*(m.allocated for m in moments), report.peak_memory or 0, weights)
    chart = Chart(
        "Memory over time",
        f"At most {words.bytes_(report.peak_memory or most)} in use.",
        height=270,
        left=76,
        width=WIDE,
    )
    x = linear(moments[-1].at_ms, *chart.x, low=moments[0].at_ms)
    y = linear(most * 1.1, *chart.y)
    chart.axis_x(x, lambda v: f"{number(v / 1000)} s", "since the first timed pass began")
    chart.axis_y(y, words.bytes_, "bytes in use")
    bottom = chart.y[0]
    bands: dict[str, list[tuple[float, float, float, float]]] = {}
    pairs = [(a.stage, x.at(a.at_ms), x.at(b.at_ms)) for a, b in pairwise(moments)]
    for stage, run in groupby(pairs, key=lambda each: each[0]):
        stretch = list(run)
        if stage is not None:
            begin, end = stretch[0][1], stretch[-1][2]
            bands.setdefault(stage, []).append((begin, bottom - 6, max(end - begin, 0.6), 6))
    for stage, boxes in bands.items():
        chart.bars(boxes, _COLOURS[stage])
    chart.line([(x.at(m.at_ms), y.at(m.allocated)) for m in moments], "ink")
    legend = [("in use", "ink", 0)]
    if weights:
        chart.line([(chart.x[0], y.at(weights)), (chart.x[1], y.at(weights))], "in", 1)
        legend.append((f"weights, {words.bytes_(weights)}", "in", 1))
    legend += [(stage, _COLOURS[stage], 0) for stage in bands]
    step = max(1, len(moments) // 120)
    ends = [x.at(m.at_ms) for m in moments[::step]] + [chart.x[1]]
    chart.tips(
        (
            left,
            right - left,
            f"{number(m.at_ms / 1000)} s: {words.bytes_(m.allocated)}"
            + (f", {m.stage}" if m.stage else ""),
        )
        for m, left, right in zip(moments[::step], ends, ends[1:], strict=False)
    )
    return Drawn(chart, tuple(legend))
