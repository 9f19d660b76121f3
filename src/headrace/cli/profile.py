"""``headrace profile``: where a model's time goes, and how far that is from the device's limits."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import console

if TYPE_CHECKING:
    from headrace.contracts.profile_report import ProfileReport


def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a config.json and weights, a GGUF file, or a known model's name."
        ),
    ] = None,
    input_dir: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="A folder of pictures, or of .txt and .jsonl prompts. [default: a few prompts of "
            "ours]",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes over all inputs.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Passes before them, not timed.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda:<number>. [default: the first GPU, else the processor]"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="bf16, fp16 or fp32. [default: the one that the model names]"),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="The most tokens made for one input.")
    ] = 64,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Only the shape, with random weights: no files."),
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option(
            help="eager, sdpa or flash_attention_2. [default: FlashAttention where available]"
        ),
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the model with torch.compile first.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that the model brings.")
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="On a GPU: look at kernels with nsys and ncu too, where they are installed.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the report's files. [default: tmp/profiles/<run>]"),
    ] = None,
    compare: Annotated[
        tuple[str, str],
        typer.Option(
            "--compare",
            metavar="A B",
            show_default=False,
            help="Instead of a model: two profiles, each a report.json or its folder.",
        ),
    ] = ("", ""),
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --compare: print it as Markdown.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Time a model's stages, then look at its operators, and hold both against the device's limits.

    Needs torch and transformers, which the extra named torch brings. Nothing is fetched but a model
    that is known by name.
    """
    from headrace.contracts.errors import LLMError, LLMInvalidRequestError

    if compare[0]:
        if model is not None:
            raise LLMInvalidRequestError("give a model to profile, or --compare A B, not both")
        from headrace.cli.profile_compare import compare_profiles

        compare_profiles(Path(compare[0]), Path(compare[1]), as_json=as_json, markdown=markdown)
        return
    if model is None:
        raise LLMInvalidRequestError(
            "no model: give a folder, a GGUF file or a known name (or --compare A B)", param="model"
        )
    from headrace.bench.profile.loading import usual_device
    from headrace.bench.profile.report.files import mark, write_all
    from headrace.bench.profile.run import new_run_id
    from headrace.bench.profile.run import profile as run
    from headrace.bench.report.saved import FILE_NAME
    from headrace.contracts.profiling import LLMProfileRequest

    device = device or usual_device()
    run_id = new_run_id()
    folder = (out or Path("tmp") / "profiles" / run_id).resolve()
    request = LLMProfileRequest(
        model_path=str(_model_path(model)),
        input_dir=str((input_dir or _own_prompts(folder)).resolve()),
        repeats=repeats,
        warmup=warmup,
        device=device,
        dtype=dtype,
        max_new_tokens=max_new_tokens,
        random_weights=random_weights,
        attention=attention,
        compile=compile_model,
        trust_remote_code=trust_remote_code,
        kernels=kernels,
    )
    with _interrupts() as stop:
        try:
            report = run(
                request, on_progress=_tell(), stop=stop, artifacts_dir=folder, run_id=run_id
            )
        except LLMError as error:
            if folder.is_dir():
                mark(folder, error.message)
            raise
        write_all(report, folder)
        if as_json:
            typer.echo((folder / FILE_NAME).read_text(encoding="utf-8"))
        else:
            _show(report)
    typer.echo(f"Report: {folder}", err=True)
    if not report.complete:
        raise LLMError(f"the profile is incomplete: {report.ended}")


def _model_path(model: str) -> Path:
    """The folder or file that ``model`` is, or the known model's file, fetched where it is not here."""
    from headrace.cli.progress import shown
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models import PRESETS, ModelStore, is_uri

    path = Path(model).expanduser()
    if path.exists():
        return path.resolve()
    if model.lower() not in PRESETS and not is_uri(model):
        raise LLMInvalidRequestError(
            f"model {model!r} is no folder, no GGUF file, no URI and no known name; known: "
            f"{', '.join(PRESETS)}",
            param="model",
        )
    with shown() as progress:
        return ModelStore().find(model, progress).path.resolve()


def _own_prompts(folder: Path) -> Path:
    """A few prompts of ours, written where the report will lie, so that the run can be repeated."""
    from headrace.bench.profile.inputs import OUR_PROMPTS

    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, prompt in enumerate(OUR_PROMPTS, 1):
        (inputs / f"{number}.txt").write_text(prompt + "\n", encoding="utf-8")
    return inputs


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C ends the run and keeps what there is; the second ends the program."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        typer.echo("stopping; once more to end at once", err=True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _tell() -> Callable[[str, float, str], None]:
    """Progress on standard error: each thing it does, once."""
    last = ""

    def tell(_phase: str, done: float, words: str) -> None:
        nonlocal last
        if words != last:
            last = words
            typer.echo(f"{done:4.0%} {words}", err=True)

    return tell


def _show(report: ProfileReport) -> None:
    from rich.table import Table

    out = console()
    out.print(report.verdict)
    out.print(
        f"\n{report.model_name}: {report.parameters:,} parameters, {_bytes(report.weight_bytes)} "
        f"({report.dtype}), attention {report.attention}, on "
        f"{report.environment.device_name or report.environment.device}; "
        f"{len(report.inputs)} inputs, {report.repeats} repeats\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("ms an input", "std", "share", "MFU", "MBU", "least ms", "bound by"):
        table.add_column(name, justify="right")
    for stage in report.stages:
        least = None if stage.floor_ms is None else stage.floor_ms / len(report.inputs)
        table.add_row(
            f"  {stage.stage}" if stage.inside else stage.stage,
            f"{stage.time_ms.mean:.2f}",
            f"{stage.time_ms.std:.2f}",
            _share(stage.share),
            _share(stage.mfu),
            _share(stage.mbu),
            "?" if least is None else f"{least:.2f}",
            stage.bound or "?",
        )
    out.print(table)
    for name, sample, unit in (
        ("first token", report.ttft_ms, "ms"),
        ("each token after", report.tpot_ms, "ms"),
        ("whole", report.total_ms, "ms"),
    ):
        if sample is not None:
            out.print(f"{name}: {sample.mean:.2f} {unit} (std {sample.std:.2f})")
    if report.peak_memory is not None:
        cache = "" if report.kv_bytes is None else f", {_bytes(report.kv_bytes)} of it cache"
        out.print(f"memory at most: {_bytes(report.peak_memory)}{cache}")
    for peak in report.peaks:
        flops = "?" if peak.flops_per_s is None else f"{peak.flops_per_s / 1e12:.2f} TFLOP/s"
        moved = "?" if peak.bytes_per_s is None else f"{peak.bytes_per_s / 1e9:.1f} GB/s"
        out.print(f"limits ({peak.source}, {peak.dtype}): {flops}, {moved}")
    _show_operators(report)
    out.print(f"\n{report.noise.text}")
    for each in report.recommendations:
        out.print(f"- {each.text} Because {each.because}")
    for note in report.notes:
        out.print(f"Note: {note}")


def _show_operators(report: ProfileReport) -> None:
    from rich.table import Table

    if not report.operators:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", title="\nOperators by own time")
    table.add_column("operator")
    table.add_column("stage")
    on_gpu = any(each.cuda_time_ms for each in report.operators)
    for name in ("ms", *(["GPU ms"] if on_gpu else []), "calls", "GFLOP", "of its roof"):
        table.add_column(name, justify="right")
    for each in report.summary.top_operators:
        table.add_row(
            each.op_name,
            each.stage or "",
            f"{each.total_time_ms:.2f}",
            *([f"{each.cuda_time_ms:.2f}"] if on_gpu else []),
            f"{each.calls:,}",
            "" if each.flops is None else f"{each.flops / 1e9:.3f}",
            _share(each.share_of_roof),
        )
    console().print(table)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "?"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f} B"
