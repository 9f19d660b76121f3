"""Two profiles side by side: the ratio of each stage's time, and whether it is more than noise.

What repeats is a pass over all inputs, so those times are compared, and not those of single inputs,
which differ among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from headrace.bench.profile.report import words
from headrace.contracts.load_find import Comparison, Difference, Judgement
from headrace.contracts.profile_report import ProfileReport, StageFigures
from headrace.numbers.stats import mean
from headrace.numbers.welch import ratio_of_means

FORMAT = "headrace.profile-comparison/1"
_LEAST = 0.01
_MUST_AGREE: tuple[tuple[str, Callable[[ProfileReport], object]], ...] = (
    ("model", lambda r: r.model_name),
    ("device", words.device_of),
    ("numbers", lambda r: r.dtype),
    ("inputs", lambda r: r.inputs),
    ("new tokens", lambda r: r.request.max_new_tokens),
)


def compare(a: ProfileReport, b: ProfileReport, least: float = _LEAST) -> Comparison:
    """B against A; the judgement is that of whole passes.

    A difference counts where its interval leaves out 1 and it is ``least`` or more.
    """
    # A whole pass is its stages, but for vision, which lies inside prefill.
    whole = _difference("whole", _whole(a), _whole(b), least)
    return Comparison(
        a=f"{words.model_of(a)}, run {a.run_id}",
        b=f"{words.model_of(b)}, run {b.run_id}",
        judgement=whole.judgement,
        differences=(whole, *_stages(a, b, least)),
        warnings=tuple(_warnings(a, b)),
        format=FORMAT,
    )


def _stages(a: ProfileReport, b: ProfileReport, least: float) -> Iterator[Difference]:
    before = {stage.stage: stage for stage in a.stages}
    after = {stage.stage: stage for stage in b.stages}
    for name in (*before, *(name for name in after if name not in before)):
        yield _difference(name, _passes(before.get(name), a), _passes(after.get(name), b), least)


def _passes(stage: StageFigures | None, report: ProfileReport) -> list[float]:
    """A stage's time for one input in each whole repeat, ms: the mean over the inputs."""
    inputs = len(report.inputs)
    if stage is None or not inputs:
        return []
    values = stage.values_ms
    starts = range(0, len(values) - inputs + 1, inputs)
    return [sum(values[at : at + inputs]) / inputs for at in starts]


def _whole(report: ProfileReport) -> list[float]:
    parts = [_passes(stage, report) for stage in report.stages if stage.inside is None]
    return [sum(each) for each in zip(*parts, strict=False)]


def _difference(name: str, a: Sequence[float], b: Sequence[float], least: float) -> Difference:
    mean_a, mean_b = mean(a), mean(b)
    if mean_a is None or mean_b is None:
        only = "A" if mean_b is None else "B"
        return Difference(
            name=name, unit="ms an input", a=mean_a, b=mean_b, text=f"only {only} has it"
        )
    found = ratio_of_means(a, b)
    if found is None:
        ratio = mean_b / mean_a if mean_a else None
        text = "two repeats of each are needed"
        return Difference(name=name, unit="ms an input", a=mean_a, b=mean_b, ratio=ratio, text=text)
    ratio, low, high = found
    judgement: Judgement = "no difference seen"
    text = "within noise"
    if abs(ratio - 1) >= least and (low > 1 or high < 1):
        judgement = "slower" if low > 1 else "faster"
        text = ""
    elif low > 1 or high < 1:
        text = f"less than {least:.0%}"
    return Difference(
        name=name,
        unit="ms an input",
        a=mean_a,
        b=mean_b,
        ratio=ratio,
        low=low,
        high=high,
        judgement=judgement,
        text=text,
    )


def _warnings(a: ProfileReport, b: ProfileReport) -> Iterator[str]:
    for name, of in _MUST_AGREE:
        if of(a) != of(b):
            if name == "inputs":
                yield f"the inputs differ: {len(a.inputs)} of A, {len(b.inputs)} of B, or others"
            else:
                yield f"the {name} differs: {of(a)} in A, {of(b)} in B"
    for name, report in (("A", a), ("B", b)):
        if report.noise.verdict != "clean":
            yield f"{name} was {report.noise.verdict}: {report.noise.text}"
        if not report.complete:
            yield f"{name} ended early" + (f": {report.ended}" if report.ended else "")
        if report.repeats < 3:
            yield f"{name} has {report.repeats} repeats; three or more tell noise from difference"
