"""From what a run has gathered to its report."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from attrs import evolve

from headrace.bench.profile import figures, needs
from headrace.bench.profile.noise import noise_of
from headrace.bench.profile.operators import Observed, Spent
from headrace.bench.profile.passes import Runner, Timed
from headrace.bench.profile.run import Gathered
from headrace.bench.profile.verdict import Findings, notes_of, recommendations_of, verdict_of
from headrace.bench.profile.work import Account, Seen, work_of
from headrace.contracts.profile_report import (
    Environment,
    Noise,
    Overhead,
    Prediction,
    ProfileReport,
    StageFigures,
)
from headrace.contracts.profiling import LLMProfileReportSummary
from headrace.numbers.stats import mean

_TOP = 10


def report_of(gathered: Gathered, runner: Runner) -> ProfileReport:
    """The report of what there is: whole repeats where there is one, else the passes that ended."""
    loaded, request, limits = gathered.loaded, gathered.request, gathered.limits
    passes, inputs = _whole_repeats(gathered.passes, len(gathered.given))
    account = _with_vision(gathered, runner)
    work = work_of(account, passes[:inputs])
    stages = figures.stage_figures(passes, work, inputs, limits.roof)
    sums = figures.aggregates(passes)
    noise = _noise(gathered, passes, inputs)
    observed = gathered.observed
    overhead = None if observed is None else _overhead(observed, passes)
    attention = _attention(loaded.attention, observed)
    reasons = [each for each in (limits.reason, account.reason) if each]
    found = Findings(
        stages={stage.stage: stage for stage in stages},
        operators=() if observed is None else observed.operators,
        roof=limits.roof,
        dtype=loaded.dtype,
        attention=loaded.attention,
        compiled=loaded.compiled,
        on_cuda=loaded.on_cuda,
        noise=noise,
        overhead=overhead,
        reason="; ".join(reasons) or None,
    )
    verdict = verdict_of(found)
    ended = gathered.ended
    if ended is not None:
        verdict = f"Incomplete ({ended}): {verdict}"
    ttft, tpot = sums.get("ttft_ms"), sums.get("tpot_ms")
    words = notes_of(
        found, verdict, None if ttft is None else ttft.mean, None if tpot is None else tpot.mean
    )
    model_mfu, model_mbu = figures.whole_shares(passes, work, inputs, limits.roof)
    uncounted = _uncounted(account, observed)
    held, needed = _cache(passes, account)
    summary = LLMProfileReportSummary(
        run_id=gathered.run_id,
        mfu_model_level=model_mfu,
        mfu_per_stage={s.stage: s.mfu for s in stages if s.mfu is not None},
        top_operators=list(found.operators[:_TOP]),
        aggregates=sums,
        notes=words,
        mbu_model_level=model_mbu,
        mbu_per_stage={s.stage: s.mbu for s in stages if s.mbu is not None},
        device_name=limits.device_name,
        dtype=loaded.dtype,
        attention=attention,
        noise=noise.text,
        uncounted=list(uncounted),
        complete=ended is None,
    )
    return ProfileReport(
        run_id=gathered.run_id,
        started=gathered.started,
        request=request,
        summary=summary,
        verdict=verdict,
        environment=_environment(gathered),
        noise=noise,
        version=_version("headrace"),
        model_name=loaded.name,
        parameters=loaded.parameters,
        weight_bytes=loaded.weight_bytes,
        kv_bytes_per_token=account.kv_per_token,
        dtype=loaded.dtype,
        attention=attention,
        compiled=loaded.compiled,
        inputs=tuple(each.name for each in gathered.given),
        repeats=len(passes) // inputs if inputs == len(gathered.given) else 0,
        ttft_ms=ttft,
        tpot_ms=tpot,
        total_ms=sums.get("total_ms"),
        stages=stages,
        operators=found.operators,
        memory=gathered.memory,
        peak_memory=gathered.peak_memory,
        kv_bytes=held,
        kv_bytes_needed=needed,
        peaks=limits.peaks,
        overhead=overhead,
        recommendations=recommendations_of(found),
        predictions=_predictions(gathered),
        uncounted=uncounted,
        conventions=account.conventions,
        notes=_notes(gathered, account, passes, stages),
        complete=ended is None,
        ended=ended,
    )


def _whole_repeats(passes: Sequence[Timed], inputs: int) -> tuple[list[Timed], int]:
    """Passes that weigh all inputs alike, and how many inputs they are of."""
    whole = len(passes) // inputs * inputs
    return (list(passes[:whole]), inputs) if whole else (list(passes), len(passes))


def _with_vision(gathered: Gathered, runner: Runner) -> Account:
    """Where no formula is known for the vision parts, what torch counted of them in the run apart."""
    account, observed = gathered.account, gathered.observed
    if not account.language_only or observed is None or observed.vision is None:
        return account
    modules = runner.watch.modules
    held = {p.data_ptr(): p.numel() * p.element_size() for m in modules for p in m.parameters()}
    return evolve(
        account,
        seen=Seen(flops=float(observed.vision.flops), weight_bytes=sum(held.values())),
        reason=None,
    )


def _noise(gathered: Gathered, passes: Sequence[Timed], inputs: int) -> Noise:
    if gathered.clocks is None:
        return Noise(verdict="unknown", text="Unknown: nothing was timed.")
    before, after = gathered.clocks
    threads = needs.torch().get_num_threads()
    return noise_of(before, after, figures.spreads(passes, inputs), threads)


def _overhead(observed: Observed, passes: Sequence[Timed]) -> Overhead:
    """The input's times in the run apart over its times before."""
    own = [timed for timed in passes if timed.input == observed.input]
    prefill = mean([timed.prefill_s for timed in own])
    step = mean([s for timed in own for s in timed.steps_s[: observed.steps]])

    def ratio(spent: Spent) -> tuple[float | None, float | None]:
        return (
            spent.prefill_s / prefill if prefill else None,
            spent.step_s / step if step and spent.step_s is not None else None,
        )

    profiled, counted = ratio(observed.profiled), ratio(observed.counted)
    return Overhead(
        prefill=profiled[0],
        decode=profiled[1],
        counting_prefill=counted[0],
        counting_decode=counted[1],
    )


def _cache(passes: Sequence[Timed], account: Account) -> tuple[int | None, float | None]:
    """Bytes of the largest cache, and what that many tokens need by the analytic model."""
    cached = [timed for timed in passes if timed.cache_bytes is not None]
    if not cached:
        return None, None
    most = max(cached, key=lambda timed: timed.cache_bytes or 0)
    # The last token is made, and not yet read.
    tokens = most.input_tokens + len(most.tokens) - 1
    each = account.kv_per_token
    return most.cache_bytes, None if each is None else each * tokens


def _attention(asked: str, observed: Observed | None) -> str:
    """The implementation, and which kernel it came to where that was seen."""
    if observed is None:
        return asked
    kernels = {o.op_name for o in observed.operators if "attention" in o.op_name}
    inner = sorted(name for name in kernels if name != "aten::scaled_dot_product_attention")
    return f"{asked} ({', '.join(inner)})" if inner else asked


def _uncounted(account: Account, observed: Observed | None) -> tuple[str, ...]:
    shape = () if account.model is None else account.model.uncounted
    return (*shape, *(() if observed is None else observed.uncounted))


def _environment(gathered: Gathered) -> Environment:
    torch = needs.torch()
    facts = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
    }
    for package in ("transformers", "accelerate", "pillow", "flash-attn"):
        found = _version(package)
        if found:
            facts[package] = found
    if gathered.loaded.on_cuda:
        facts["cuda"] = str(torch.version.cuda)
    return Environment(
        device=gathered.loaded.device, device_name=gathered.limits.device_name, facts=facts
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _predictions(gathered: Gathered) -> tuple[Prediction, ...]:
    last = {timed.input: timed for timed in gathered.passes}
    return tuple(
        Prediction(
            input=timed.input,
            text=gathered.texts[timed.input],
            input_tokens=timed.input_tokens,
            output_tokens=len(timed.tokens),
            finish_reason=timed.finish_reason,
        )
        for timed in last.values()
    )


def _notes(
    gathered: Gathered,
    account: Account,
    passes: Sequence[Timed],
    stages: Sequence[StageFigures],
) -> tuple[str, ...]:
    notes = list(gathered.loaded.notes)
    if gathered.limits.reason:
        notes.append(f"A limit is missing: {gathered.limits.reason}")
    if account.reason:
        notes.append(f"The analytic model does not know all of it: {account.reason}")
    if account.seen is not None:
        notes.append(
            "The vision parts' FLOPs are those that torch counted for one picture, taken for each; "
            "their bytes are those of their weights."
        )
    if gathered.observed is not None:
        observed = gathered.observed
        notes.append(
            f"Operators are of one prefill of {observed.input} and {observed.steps} decode steps, in "
            "a run of its own; times are their own, without those that they call."
        )
    over = [s.stage for s in stages if (s.mbu or 0) > 1 or (s.mfu or 0) > 1]
    if over:
        notes.append(
            f"{', '.join(over)} went beyond the limits that were measured: small weights stay in a "
            "cache, or the measurement was disturbed."
        )
    return tuple(notes)
