"""What the figures of a profile mean: one sentence to act on, and recommendations with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from headrace.contracts.profile_report import Noise, Overhead, Recommendation, StageFigures
from headrace.contracts.profiling import OperatorSummary
from headrace.numbers.roofline import Roof, ridge

_NEAR = 0.7
"""From this share of a limit on, only other work or other hardware makes it faster."""
_SOME = 0.2
"""Below this share of both limits, what stands between operators is what it waits for."""
_MUCH = 0.15
"""What takes this share of the time is worth a word."""


@frozen(kw_only=True)
class Findings:
    """What the verdict is made of; ``reason`` is why a share is not known."""

    stages: Mapping[str, StageFigures]
    operators: tuple[OperatorSummary, ...]
    roof: Roof
    dtype: str
    attention: str
    compiled: bool
    on_cuda: bool
    noise: Noise
    overhead: Overhead | None
    reason: str | None


def verdict_of(found: Findings) -> str:
    """One sentence on the stage that takes most of the time."""
    outer = [stage for stage in found.stages.values() if stage.inside is None]
    if not outer:
        return "Nothing was timed, so nothing can be said."
    main = max(outer, key=lambda stage: stage.time_ms.mean)
    took = f"{main.stage.capitalize()} takes {_share(main.share)} of the time"
    if main.stage == "preprocess":
        return f"{took}, before the model sees anything: prepare inputs ahead, or on more cores."
    if main.mbu is None or main.mfu is None:
        why = f" ({found.reason})" if found.reason else ""
        return f"{took}; how near that is to the device's limit is not known{why}."
    reaches = f"{took} and reaches {_share(main.mbu)} of memory bandwidth and {_share(main.mfu)} of compute"
    return f"{reaches}: {_advice(main.bound, max(main.mbu, main.mfu))}."


def _advice(bound: str | None, reached: float) -> str:
    if reached > 1:
        return (
            "more than the limits that were measured, so its data came from a cache, or the "
            "measurement was disturbed"
        )
    if bound == "memory" and reached >= _NEAR:
        return "it is as fast as memory lets it be; batch more, or quantise"
    if bound == "memory" and reached >= _SOME:
        return "batch more, or quantise"
    if bound == "compute" and reached >= _NEAR:
        return "it is as fast as the device computes; a smaller dtype or model helps"
    if bound == "compute" and reached >= _SOME:
        return "a smaller dtype or faster kernels would use the rest"
    return (
        "most of it is neither arithmetic nor memory; compile it or use fused kernels, then batch"
    )


def recommendations_of(found: Findings) -> tuple[Recommendation, ...]:
    """What can be done, the largest gain first."""
    made = [
        *_decode(found),
        *_prefill(found),
        *_vision(found),
        *_preprocess(found),
        *_operators(found),
        *_noise(found),
    ]
    return tuple(sorted(made, key=lambda each: -(each.gain or 0.0)))


def _decode(found: Findings) -> Iterator[Recommendation]:
    stage = found.stages.get("decode")
    if stage is None or stage.mbu is None or stage.mfu is None or stage.bound != "memory":
        return
    share = stage.share or 0.0
    top = ridge(found.roof)
    if top is not None and stage.intensity:
        room = top / stage.intensity
        yield Recommendation(
            text=f"Decode several sequences together: weights are read once for all, up to about "
            f"{room:.0f} of them before arithmetic is the limit.",
            because=f"decode does {stage.intensity:.1f} FLOPs a byte, and the device's ridge is at "
            f"{top:.0f}; it uses {_share(stage.mfu)} of compute.",
            gain=room,
        )
    if found.dtype == "fp32":
        yield Recommendation(
            text="Run it in bf16, or with weights of 8 bits: a step then reads half or a quarter.",
            because=f"decode takes {_share(stage.share)} of the time and is bound by reading "
            "4 bytes a weight.",
            gain=_amdahl(share, 2.0),
        )
    else:
        yield Recommendation(
            text="Quantise the weights to 8 or 4 bits: a step then reads half or a quarter.",
            because=f"decode takes {_share(stage.share)} of the time and is bound by reading "
            f"{found.dtype} weights.",
            gain=_amdahl(share, 2.0),
        )
    if stage.of_floor is not None and stage.of_floor < _NEAR and not found.compiled:
        yield Recommendation(
            text="Compile the model (--compile), or run it in an engine with fused kernels.",
            because=f"a decode step takes {1 / stage.of_floor:.1f} times as long as reading its "
            "bytes would.",
            gain=_amdahl(share, 1 / stage.of_floor),
        )


def _prefill(found: Findings) -> Iterator[Recommendation]:
    stage = found.stages.get("prefill")
    if stage is None or stage.of_floor is None or (stage.share or 0.0) < _MUCH:
        return
    if stage.bound == "compute" and found.dtype == "fp32" and found.on_cuda:
        yield Recommendation(
            text="Run it in bf16: tensor cores do not work in FP32.",
            because=f"prefill takes {_share(stage.share)} of the time and is bound by arithmetic.",
        )
    if stage.of_floor < _NEAR and found.attention == "eager":
        yield Recommendation(
            text="Use fused attention (sdpa or flash_attention_2) in place of eager.",
            because=f"prefill reaches {_share(stage.of_floor)} of its limit with eager attention.",
            gain=_amdahl(stage.share or 0.0, 1 / stage.of_floor),
        )


def _vision(found: Findings) -> Iterator[Recommendation]:
    stage, prefill = found.stages.get("vision"), found.stages.get("prefill")
    if stage is None or prefill is None or (stage.share or 0.0) < _MUCH:
        return
    of_prefill = stage.time_ms.mean / prefill.time_ms.mean
    yield Recommendation(
        text="Give smaller pictures or fewer tiles, or keep what the encoder made of those seen before.",
        because=f"the vision encoder takes {_share(stage.share)} of the time and "
        f"{_share(of_prefill)} of prefill.",
        gain=_amdahl(stage.share or 0.0, None),
    )


def _preprocess(found: Findings) -> Iterator[Recommendation]:
    stage = found.stages.get("preprocess")
    if stage is None or (stage.share or 0.0) < _MUCH:
        return
    yield Recommendation(
        text="Prepare inputs while the model works on others, or on more cores.",
        because=f"preparing takes {_share(stage.share)} of the time, and the device waits.",
        gain=_amdahl(stage.share or 0.0, None),
    )


def _operators(found: Findings) -> Iterator[Recommendation]:
    for stage in ("prefill", "decode"):
        own = [o for o in found.operators if o.stage == stage]
        whole = sum(o.cuda_time_ms or o.total_time_ms for o in own)
        for operator in own[:3]:
            taken = operator.cuda_time_ms or operator.total_time_ms
            share = taken / whole if whole else 0.0
            roof = operator.share_of_roof
            if share < 0.25 or roof is None or not 0 < roof < _NEAR:
                continue
            yield Recommendation(
                text=f"Look at {operator.op_name} in {stage}: other shapes, threads or kernels.",
                because=f"it takes {_share(share)} of {stage}'s operator time and reaches "
                f"{_share(roof)} of its roof.",
                gain=_amdahl(share * (_of(found, stage)), 1 / roof),
            )


def _noise(found: Findings) -> Iterator[Recommendation]:
    if found.noise.verdict == "noisy":
        yield Recommendation(
            text="Measure again on a quiet machine before these times are compared with others.",
            because=found.noise.text.removeprefix("Noisy: ").partition("; it kept")[0] + ".",
        )


def _of(found: Findings, stage: str) -> float:
    figures = found.stages.get(stage)
    return (figures.share or 0.0) if figures is not None else 0.0


def _amdahl(share: float, times: float | None) -> float | None:
    """How many times faster the whole is when ``share`` of it is ``times`` faster; None: takes none."""
    left = 1 - share + (share / times if times else 0.0)
    return 1 / left if left > 0 else None


def notes_of(found: Findings, verdict: str, ttft_ms: float | None, tpot_ms: float | None) -> str:
    """For those who decide: what was found, how sure it is, and what to do first."""
    said = [verdict]
    if ttft_ms is not None:
        said.append(f"The first token comes after {ttft_ms:.0f} ms.")
    if tpot_ms:
        said.append(f"Each one after it takes {tpot_ms:.1f} ms ({1e3 / tpot_ms:.0f} a second).")
    first = next(iter(recommendations_of(found)), None)
    if first is not None:
        said.append(f"First to do: {first.text} ({first.because})")
    said.append(found.noise.text)
    if found.reason:
        said.append(f"Not known: {found.reason}")
    return " ".join(said)


def _share(value: float | None) -> str:
    if value is None:
        return "an unknown share"
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"
