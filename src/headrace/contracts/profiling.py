"""What a profile is asked for, how it stands, and what it found.

Times are milliseconds where a name ends in ``_ms``. A share is a fraction of one: MFU is the FLOPs
that the model needs over what the device could have done in the time, MBU the same of bytes. What
is not known is absent or None, never zero; ``notes`` then say why.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from attrs import field, frozen

from headrace.contracts._checks import (
    absolute,
    as_float,
    as_floats,
    at_least,
    kind,
    number,
    numbers,
    one_of,
    or_none,
)

ProfileState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
ProfilePhase: TypeAlias = Literal["loading", "warmup", "timing", "operators", "report"]


_TEXT = kind(str, "a text")
_WHOLE = kind(int, "a whole number")
_FLAG = kind(bool, "true or false")


def _help(text: str, **more: object) -> dict[str, object]:
    return {"help": text, **more}


@frozen(kw_only=True)
class LLMProfileRequest:
    """A profile of a model over a directory of inputs."""

    model_path: str = field(
        validator=[_TEXT, absolute],
        metadata=_help("The model's directory, or a GGUF file: an absolute path on the server."),
    )
    input_dir: str = field(
        validator=[_TEXT, absolute],
        metadata=_help(
            "The directory of inputs, an absolute path: images (10 to 20 are enough), or .txt and "
            ".jsonl prompts for a text model."
        ),
    )
    repeats: int = field(
        default=3,
        validator=[_WHOLE, at_least(1)],
        metadata=_help("How many timed passes over the inputs are aggregated.", minimum=1),
    )
    use_flash_attn: bool = field(
        default=True,
        validator=_FLAG,
        metadata=_help("Take FlashAttention where it is available; the report says which ran."),
    )
    device: str = field(
        default="cuda:0",
        validator=_TEXT,
        metadata=_help("The device that runs the model, such as cuda:0 or cpu."),
    )
    max_new_tokens: int = field(
        default=64,
        validator=[_WHOLE, at_least(1)],
        metadata=_help("The most tokens that are generated for one input.", minimum=1),
    )
    dtype: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("bf16, fp16 or fp32; none: the one that the model's configuration names."),
    )
    warmup: int = field(
        default=1,
        validator=[_WHOLE, at_least(0)],
        metadata=_help("Passes that are run first and not timed.", minimum=0),
    )
    compile: bool = field(
        default=False,
        validator=_FLAG,
        metadata=_help("Compile the model before it is timed."),
    )
    random_weights: bool = field(
        default=False,
        validator=_FLAG,
        metadata=_help("Take random weights of the configured shape: no weight files are needed."),
    )
    trust_remote_code: bool = field(
        default=False,
        validator=_FLAG,
        metadata=_help("Run the Python code that comes with the model."),
    )
    attention: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help(
            "The implementation of attention: eager, sdpa, flash_attention_2, ...; none: as "
            "use_flash_attn says."
        ),
    )
    kernels: bool = field(
        default=False,
        validator=_FLAG,
        metadata=_help(
            "On CUDA: look at kernels with nsys and ncu, where they are installed; each loads the "
            "model once more."
        ),
    )


@frozen(kw_only=True)
class LLMProfileAccepted:
    """A profile that will be made, or is being made."""

    run_id: str = field(validator=_TEXT, metadata=_help("The run's name on this server."))
    status: Literal["queued", "running"] = field(
        validator=[_TEXT, one_of("queued", "running")],
        metadata=_help("Whether it waits for its device or has begun."),
    )
    artifacts_dir: str = field(
        validator=[_TEXT, absolute],
        metadata=_help("Where its files will lie: an absolute path on the server."),
    )


@frozen(kw_only=True)
class OperatorSummary:
    """An operator over all its calls; times are its own, without those that it calls."""

    op_name: str = field(validator=_TEXT, metadata=_help("The operator's name, such as aten::mm."))
    total_time_ms: float = field(
        converter=as_float, validator=number, metadata=_help("Its own time, in ms.")
    )
    cuda_time_ms: float = field(
        converter=as_float,
        validator=number,
        metadata=_help("Its own time on the GPU, in ms; 0 only where no CUDA ran."),
    )
    calls: int = field(
        validator=[_WHOLE, at_least(0)], metadata=_help("How often it was called.", minimum=0)
    )
    stage: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("The stage that it belongs to; none: all of them."),
    )
    flops: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("FLOPs of all calls; none where no formula is known for it."),
    )
    bytes: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("Bytes read and written at least by all calls."),
    )
    share_of_roof: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("Its least possible time over its time; none where a peak is unknown."),
    )
    share_of_stage: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("Its own time over that of all operators of its stage."),
    )


@frozen(kw_only=True)
class Stats:
    """A sample of a quantity; its name says the unit."""

    mean: float = field(converter=as_float, validator=number, metadata=_help("The mean."))
    std: float = field(
        converter=as_float, validator=number, metadata=_help("The sample standard deviation.")
    )
    count: int | None = field(
        default=None,
        validator=or_none(_WHOLE),
        metadata=_help("How many values the sample has."),
    )
    minimum: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("The smallest value."),
    )
    maximum: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("The largest value."),
    )


@frozen(kw_only=True)
class LLMProfileReportSummary:
    """What a profile found, in short; all of it is in the run's artifacts."""

    run_id: str = field(validator=_TEXT, metadata=_help("The run, as it was accepted."))
    mfu_model_level: float | None = field(
        converter=as_float,
        validator=or_none(number),
        metadata=_help(
            "FLOPs of the whole run over what the device could do in its time (0 to 1); none where "
            "the device's peak is unknown, with the reason in notes."
        ),
    )
    mfu_per_stage: dict[str, float] = field(
        factory=dict,
        converter=as_floats,
        validator=numbers,
        metadata=_help("MFU of each stage, such as prefill; a stage without a peak is absent."),
    )
    top_operators: list[OperatorSummary] = field(
        factory=list,
        metadata=_help("The operators that took the most time of their own."),
    )
    aggregates: dict[str, Stats] = field(
        factory=dict,
        metadata=_help(
            "Times and rates by name: ttft_ms, tpot_ms, <stage>_ms, prefill_tokens_per_s, "
            "decode_tokens_per_s, ..."
        ),
    )
    notes: str = field(
        validator=_TEXT,
        metadata=_help("What it means, in sentences for those who decide."),
    )
    mbu_model_level: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("Bytes that had to be moved over what the memory could in that time."),
    )
    mbu_per_stage: dict[str, float] = field(
        factory=dict,
        converter=as_floats,
        validator=numbers,
        metadata=_help("MBU of each stage; a stage without a peak is absent."),
    )
    device_name: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("The device's name, as its driver says it."),
    )
    dtype: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("The numbers that the model ran in."),
    )
    attention: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("Which implementation of attention ran."),
    )
    noise: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("How quiet the machine was: clean, or what disturbed the times."),
    )
    uncounted: list[str] = field(
        factory=list,
        metadata=_help("Operators and parts whose work is in no figure."),
    )
    complete: bool = field(
        default=True,
        validator=_FLAG,
        metadata=_help("False where the run ended early and the figures are of a part of it."),
    )


@frozen(kw_only=True)
class ProfileArtifact:
    """A file that a run has written."""

    name: str = field(validator=_TEXT, metadata=_help("Its path below the run's directory."))
    size_bytes: int = field(validator=[_WHOLE, at_least(0)], metadata=_help("Its size.", minimum=0))
    sha256: str | None = field(
        default=None,
        validator=or_none(_TEXT),
        metadata=_help("Its hash; none while it is being written."),
    )


@frozen(kw_only=True)
class ProfileStatus:
    """How a run stands; ``summary`` is there when it is done."""

    run_id: str = field(validator=_TEXT, metadata=_help("The run's name."))
    state: ProfileState = field(
        validator=[_TEXT, one_of("queued", "running", "done", "failed", "cancelled")],
        metadata=_help("Whether it waits, runs, or how it ended."),
    )
    artifacts_dir: str = field(
        validator=[_TEXT, absolute], metadata=_help("Where its files lie: an absolute path.")
    )
    progress: float = field(
        default=0.0,
        converter=as_float,
        validator=number,
        metadata=_help("How much of it is done, from 0 to 1.", minimum=0, maximum=1),
    )
    phase: ProfilePhase | None = field(
        default=None,
        validator=or_none(one_of("loading", "warmup", "timing", "operators", "report")),
        metadata=_help("What it is doing."),
    )
    device: str | None = field(
        default=None, validator=or_none(_TEXT), metadata=_help("The device that it runs on.")
    )
    created_s: float | None = field(
        default=None,
        converter=as_float,
        validator=or_none(number),
        metadata=_help("When it was asked for, in Unix seconds."),
    )
    error: str | None = field(
        default=None, validator=or_none(_TEXT), metadata=_help("Why it failed.")
    )
    summary: LLMProfileReportSummary | None = field(
        default=None, metadata=_help("What it found, when it is done.")
    )

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.progress <= 1:
            raise ValueError(f"progress is {self.progress!r}; it must be from 0 to 1")


@frozen(kw_only=True)
class ProfileList:
    """The runs that this server knows, the newest first."""

    runs: list[ProfileStatus] = field(factory=list, metadata=_help("Each run as it stands."))


class ProfileService(Protocol):
    """Who makes profiles, one at a time on each device. Errors are LLMErrors.

    A run lives in a process of its own, so that it survives whoever asked for it.
    """

    async def submit(self, request: LLMProfileRequest) -> LLMProfileAccepted:
        """Take ``request`` in; raises LLMInvalidRequestError for what cannot be run here."""

    async def status(self, run_id: str) -> ProfileStatus:
        """How a run stands; raises LLMInvalidRequestError for one that is not known."""

    async def list(self) -> tuple[ProfileStatus, ...]:
        """Every run that is known, the newest first."""

    async def cancel(self, run_id: str) -> ProfileStatus:
        """End a run; what it has written is kept and marked. One that has ended stays as it is."""

    async def artifacts(self, run_id: str) -> tuple[ProfileArtifact, ...]:
        """The files that a run has written so far."""


CONTRACTS: tuple[type, ...] = (
    LLMProfileRequest,
    LLMProfileAccepted,
    LLMProfileReportSummary,
    OperatorSummary,
    Stats,
    ProfileStatus,
    ProfileList,
    ProfileArtifact,
)
"""What goes over the wire, each a schema of its own in openapi.yaml."""
