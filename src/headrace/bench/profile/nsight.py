"""NVIDIA's own profilers, where they are installed: nsys tells kernels by stage, ncu what each reaches.

Both watch a process of its own (``nsight_pass``), which runs a few steps between
``cudaProfilerStart`` and ``cudaProfilerStop``. Whatever goes wrong with them is a note: the times of
the model are there without them.

nsys: https://docs.nvidia.com/nsight-systems/UserGuide/index.html
ncu: https://docs.nvidia.com/nsight-compute/NsightComputeCli/index.html
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, frozen

from headrace.bench.profile.stopping import Stop, ends_if_asked
from headrace.contracts.convert import to_json
from headrace.contracts.profile_report import KernelSummary
from headrace.contracts.profiling import LLMProfileRequest

PASS = (sys.executable, "-m", "headrace.bench.profile.nsight_pass")
LAUNCHES = 200
"""ncu runs each kernel several times over, so it looks at so many launches of a step and no more."""
_TIME = "gpu__time_duration.sum"
_MEMORY = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
_COMPUTE = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
_OF_NSYS = ("NVTX Range", "Kern Inst", "Total Time (ns)", "Kernel Name")
_TO_MS = {
    **{"ns": 1e-6, "nsecond": 1e-6, "us": 1e-3, "usecond": 1e-3},
    **{"ms": 1.0, "msecond": 1.0, "s": 1e3, "second": 1e3},
}
_LOOK_S = 0.1
# Less than whoever cancels a profile waits for its end.
_PATIENCE_S = 5.0


@frozen(kw_only=True)
class Looked:
    """Kernels, the longest first, and what there is to say of how they were found."""

    kernels: tuple[KernelSummary, ...] = ()
    notes: tuple[str, ...] = ()


def nsys_command(program: str, made: Path, watched: Sequence[str]) -> list[str]:
    """Record what ``watched`` runs between start and stop into ``made``, without its extension."""
    return [
        *(program, "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none"),
        *("--capture-range=cudaProfilerApi", "--capture-range-end=stop"),
        *("--force-overwrite=true", f"--output={made}", *watched),
    ]


def nsys_table_command(program: str, recorded: Path) -> list[str]:
    """Print the kernels within each NVTX range of a recording, as CSV."""
    return [
        *(program, "stats", "--report", "nvtx_kern_sum", "--format", "csv"),
        *("--force-export=true", "--output", "-", str(recorded)),
    ]


def ncu_command(program: str, made: Path, watched: Sequence[str]) -> list[str]:
    """Measure the first launches that ``watched`` makes after start; the CSV goes to ``made``."""
    return [
        *(program, "--profile-from-start", "off", "--target-processes", "all"),
        *("--launch-count", str(LAUNCHES), "--metrics", f"{_TIME},{_MEMORY},{_COMPUTE}"),
        *("--csv", "--page", "raw", "--force-overwrite", "--log-file", str(made), *watched),
    ]


def look(
    request: LLMProfileRequest,
    given: str,
    folder: Path,
    stop: Stop,
    *,
    which: Callable[[str], str | None] = shutil.which,
    watched: Sequence[str] = PASS,
) -> Looked:
    """Run ``given`` under whichever of both is installed; their files stay in ``folder``."""
    asked = folder / "nsight-request.json"
    asked.write_bytes(to_json(request))
    kernels: list[KernelSummary] = []
    notes: list[str] = []
    for name, of in (("nsys", _by_nsys), ("ncu", _by_ncu)):
        program = which(name)
        if program is None:
            notes.append(f"{name} is not installed, so it was not asked about kernels.")
            continue
        try:
            found = of(program, folder, [*watched, str(asked), given], stop)
        except _NotToldError as failed:
            notes.append(f"{name} told nothing: {failed}")
        else:
            kernels += found
            notes.append(_HOW[name])
    order = sorted(kernels, key=lambda each: -each.time_ms)
    return Looked(kernels=tuple(order), notes=tuple(notes))


_HOW = {
    "nsys": "Kernels by stage are nsys's, of one prefill and a few decode steps in a process of its "
    "own; those of vision are among prefill's too.",
    "ncu": f"What kernels reach is ncu's, of the first {LAUNCHES} launches of decode, each alone and "
    "with an empty cache.",
}


class _NotToldError(Exception):
    """A profiler failed, or said something that we cannot read."""


def _by_nsys(program: str, folder: Path, watched: Sequence[str], stop: Stop) -> list[KernelSummary]:
    made = folder / "nsys"
    _run(nsys_command(program, made, [*watched, "prefill", "decode"]), stop)
    return kernels_of_nsys(_run(nsys_table_command(program, made.with_suffix(".nsys-rep")), stop))


def _by_ncu(program: str, folder: Path, watched: Sequence[str], stop: Stop) -> list[KernelSummary]:
    made = folder / "ncu.csv"
    _run(ncu_command(program, made, [*watched, "decode"]), stop)
    try:
        return kernels_of_ncu(made.read_text(encoding="utf-8", errors="replace"), "decode")
    except OSError as missing:
        raise _NotToldError(f"it wrote no {made.name}: {missing.strerror}") from missing


def _run(command: Sequence[str], stop: Stop) -> str:
    """What ``command`` prints; it is ended, and what it watches, where a stop is asked for."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as refused:
        raise _NotToldError(f"it cannot be started: {refused.strerror}") from refused
    with process:
        try:
            while True:
                try:
                    said, _ = process.communicate(timeout=_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    ends_if_asked(stop)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise _NotToldError(f"it ended with status {process.returncode}: {last[0]}")
    return said


def _end(process: subprocess.Popen[str]) -> None:
    """End all of its session: a profiler that is ended may leave what it watches behind."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
            return


def kernels_of_nsys(text: str) -> list[KernelSummary]:
    """The rows of ``nvtx_kern_sum``; ranges that are no stage of ours are left out."""
    found = []
    for row in _rows(text, _OF_NSYS):
        stage = row["NVTX Range"].lstrip(":")
        if stage in ("vision", "prefill", "decode"):
            found.append(
                KernelSummary(
                    name=row["Kernel Name"],
                    source="nsys",
                    stage=stage,
                    calls=int(_number(row["Kern Inst"])),
                    time_ms=_number(row["Total Time (ns)"]) / 1e6,
                )
            )
    return found


@define
class _Sums:
    calls: int = 0
    time_ms: float = 0.0
    memory: float = 0.0
    compute: float = 0.0


def kernels_of_ncu(text: str, stage: str) -> list[KernelSummary]:
    """Launches of the raw page, by kernel; shares of the peaks are means weighted by time."""
    rows = _rows(text, ("ID", "Kernel Name", _TIME, _MEMORY, _COMPUTE))
    units = next(rows, None)
    if units is None:
        return []
    sums: dict[str, _Sums] = {}
    for row in rows:
        entry = sums.setdefault(row["Kernel Name"], _Sums())
        unit = units[_TIME]
        if unit not in _TO_MS:
            raise _NotToldError(f"it tells times in {unit!r}; {', '.join(_TO_MS)} are known")
        took = _number(row[_TIME]) * _TO_MS[unit]
        entry.calls += 1
        entry.time_ms += took
        entry.memory += took * _number(row[_MEMORY]) / 100
        entry.compute += took * _number(row[_COMPUTE]) / 100
    return [
        KernelSummary(
            name=name,
            source="ncu",
            stage=stage,
            calls=each.calls,
            time_ms=each.time_ms,
            memory_share=each.memory / each.time_ms if each.time_ms else None,
            compute_share=each.compute / each.time_ms if each.time_ms else None,
        )
        for name, each in sums.items()
    ]


def _rows(text: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The table that begins with the first of ``columns``; what is printed before is passed over."""
    first = columns[0]
    lines = text.splitlines()
    at = next((n for n, line in enumerate(lines) if line.startswith((first, f'"{first}"'))), None)
    if at is None:
        raise _NotToldError(f"its output has no table that begins with {first!r}")
    table = [line for line in lines[at:] if line.strip() and not line.startswith("==")]
    read = csv.DictReader(table)
    lacking = [name for name in columns if name not in (read.fieldnames or ())]
    if lacking:
        raise _NotToldError(f"its table has no column {lacking[0]!r}")
    for row in read:
        if None in row or None in row.values():
            raise _NotToldError(f"a row of its table has not {len(read.fieldnames or ())} columns")
        yield row


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError as wrong:
        raise _NotToldError(f"{text!r} stands where a number should") from wrong
