"""A profile from its request to its report: load, warm up, time, then look at operators apart.

Times first and unwatched: what operators take is found in a run of its own, since watching makes a
decode step up to twice as long.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from attrs import define, evolve, field

from headrace.bench.profile import needs
from headrace.bench.profile.inputs import Given, find_inputs
from headrace.bench.profile.limits import Limits, limits_of
from headrace.bench.profile.loading import Loaded, load
from headrace.bench.profile.memory import Sampler
from headrace.bench.profile.noise import Reading, read_clocks
from headrace.bench.profile.operators import Observed, observe
from headrace.bench.profile.passes import Runner, Timed
from headrace.bench.profile.stopping import NoMemoryError, Stop, Stopped, ends_if_asked, memory_told
from headrace.bench.profile.work import Account, account_of
from headrace.contracts.errors import LLMCancelledError, LLMCapabilityError
from headrace.contracts.profile_report import MemoryMoment, ProfileReport
from headrace.contracts.profiling import LLMProfileRequest, ProfilePhase
from headrace.numbers.roofline import Roof

Tell: TypeAlias = Callable[[ProfilePhase, float, str], None]
"""Called with the phase, how much of the whole is done (0 to 1), and what it is doing."""

_HINT = "take a smaller dtype, fewer new tokens, shorter inputs, or a device with more memory"
_LOADED, _WARM, _TIMED, _OBSERVED = 0.15, 0.25, 0.8, 0.95


@define(kw_only=True)
class Gathered:
    """What a run has found so far; a report can be made of it at any moment after loading."""

    run_id: str
    request: LLMProfileRequest
    started: str
    loaded: Loaded
    account: Account
    given: tuple[Given, ...]
    passes: list[Timed] = field(factory=list)
    clocks: tuple[Reading, Reading] | None = None
    memory: tuple[MemoryMoment, ...] = ()
    peak_memory: int | None = None
    limits: Limits = field(factory=lambda: Limits(device_name=None, roof=Roof()))
    observed: Observed | None = None
    texts: dict[str, str] = field(factory=dict)
    ended: str | None = None


def new_run_id() -> str:
    """When it began, and a few letters that tell two of one second apart."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def profile(
    request: LLMProfileRequest,
    *,
    on_progress: Tell = lambda _phase, _done, _words: None,
    stop: Stop = lambda: False,
    artifacts_dir: Path | None = None,
    run_id: str | None = None,
) -> ProfileReport:
    """Profile the model that ``request`` names.

    What goes wrong before anything was timed is raised, as an LLMError (LLMCancelledError where
    ``stop`` said so). After that a report of what there is comes back, with ``complete`` False and
    ``ended`` saying why. ``artifacts_dir`` gets the trace of the operators.
    """
    from headrace.bench.profile.reporting import report_of

    if request.kernels and not request.device.startswith("cuda"):
        raise LLMCapabilityError(
            f"kernels are looked at on CUDA only, and device is {request.device!r}", param="kernels"
        )
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        ends_if_asked(stop)
        on_progress("loading", 0.0, f"loading {Path(request.model_path).name}")
        loaded = load(request)
        ends_if_asked(stop)
        given = find_inputs(Path(request.input_dir), sees=loaded.sees, model=loaded.name)
    except Stopped:
        raise LLMCancelledError("stopped while loading; nothing was timed") from None
    if artifacts_dir is not None:
        artifacts_dir.mkdir(parents=True, exist_ok=True)
    runner = Runner(loaded)
    gathered = Gathered(
        run_id=run_id or new_run_id(),
        request=request,
        started=started,
        loaded=loaded,
        account=account_of(
            loaded.config,
            name=loaded.name,
            dtype=loaded.dtype,
            last_logits_only=runner.last_logits_only,
        ),
        given=given,
    )
    try:
        _warm_up(gathered, runner, on_progress, stop)
        _time(gathered, runner, on_progress, stop)
        on_progress("operators", _TIMED, "measuring what the device can do")
        gathered.limits = limits_of(loaded.device, loaded.dtype)
        _observe(gathered, runner, on_progress, stop, artifacts_dir)
    except Stopped:
        if not gathered.passes:
            raise LLMCancelledError("stopped before anything was timed") from None
        gathered.ended = "stopped before its end, as was asked"
    except NoMemoryError as error:
        if not gathered.passes:
            raise
        gathered.ended = error.message
    finally:
        runner.close()
    on_progress("report", _OBSERVED, "putting the figures together")
    report = report_of(gathered, runner)
    if request.kernels and report.complete and artifacts_dir is not None:
        report = _with_kernels(report, gathered, on_progress, stop, artifacts_dir)
    return report


def _with_kernels(
    report: ProfileReport, gathered: Gathered, tell: Tell, stop: Stop, artifacts: Path
) -> ProfileReport:
    from headrace.bench.profile.nsight import look

    # The process that is watched needs the memory that the model has had here.
    gathered.loaded.model.to("meta")
    needs.torch().cuda.empty_cache()
    given = _middle(gathered.given, gathered.passes)
    tell("operators", _OBSERVED, f"looking at kernels of {given.name} with nsys and ncu")
    try:
        looked = look(gathered.request, given.name, artifacts, stop)
    except Stopped:
        ended = "stopped while looking at kernels, as was asked"
        summary = evolve(report.summary, complete=False)
        return evolve(report, summary=summary, complete=False, ended=ended)
    return evolve(report, kernels=looked.kernels, notes=(*report.notes, *looked.notes))


def _warm_up(gathered: Gathered, runner: Runner, tell: Tell, stop: Stop) -> None:
    request, given = gathered.request, gathered.given
    rounds = request.warmup
    for number in range(rounds):
        for place, each in enumerate(given):
            done = (number * len(given) + place) / (rounds * len(given))
            tell("warmup", _between(_LOADED, _WARM, done), f"warming up with {each.name}")
            with memory_told(f"warming up with {each.name}", _HINT):
                runner.once(each, request.max_new_tokens, stop)


def _time(gathered: Gathered, runner: Runner, tell: Tell, stop: Stop) -> None:
    """Every input, ``repeats`` times in the same order. What is finished stays, however it ends."""
    request, given = gathered.request, gathered.given
    sampler = Sampler(runner)
    before = read_clocks()
    sampler.start()
    try:
        for number in range(request.repeats):
            for place, each in enumerate(given):
                done = (number * len(given) + place) / (request.repeats * len(given))
                words = f"timing {each.name}, repeat {number + 1} of {request.repeats}"
                tell("timing", _between(_WARM, _TIMED, done), words)
                with memory_told(f"timing {each.name}", _HINT):
                    timed = runner.once(each, request.max_new_tokens, stop)
                gathered.passes.append(timed)
                gathered.texts[each.name] = runner.text(timed.tokens)
    finally:
        sampler.stop()
        gathered.clocks = (before, read_clocks())
        gathered.memory, gathered.peak_memory = sampler.moments(), sampler.peak()


def _observe(
    gathered: Gathered, runner: Runner, tell: Tell, stop: Stop, artifacts: Path | None
) -> None:
    given = _middle(gathered.given, gathered.passes)
    tell("operators", _between(_TIMED, _OBSERVED, 0.5), f"looking at operators of {given.name}")
    with memory_told(f"looking at operators of {given.name}", _HINT):
        gathered.observed = observe(
            runner,
            given,
            gathered.request.max_new_tokens,
            gathered.limits.roof,
            stop,
            artifacts,
        )


def _middle(given: Sequence[Given], passes: Sequence[Timed]) -> Given:
    """The input of middle length."""
    lengths = {timed.input: timed.input_tokens for timed in passes}
    return sorted(given, key=lambda each: lengths.get(each.name, 0))[len(given) // 2]


def _between(low: float, high: float, done: float) -> float:
    return low + (high - low) * done
