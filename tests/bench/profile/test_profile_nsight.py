"""NVIDIA's profilers without NVIDIA: what they are told, and how what they say is read.

The samples have the form that the tools' documents show; no GPU has confirmed them yet.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from bench.profile.reports import a_report
from headrace.backends.managed import processes
from headrace.bench.profile.nsight import (
    look,
    ncu_command,
    nsys_command,
    nsys_table_command,
)
from headrace.bench.profile.report.files import write_all
from headrace.bench.profile.stopping import Stopped
from headrace.bench.profile.watching import EventSpans
from headrace.contracts.profile_report import KernelSummary
from headrace.contracts.profiling import LLMProfileRequest

NSYS = """\
Generating SQLite file nsys.sqlite from nsys.nsys-rep
Processing [nsys.sqlite] with [nvtx_kern_sum.py]...
NVTX Range,Style,PID,TID,NVTX Inst,Kern Inst,Total Time (ns),Avg (ns),Kernel Name
:prefill,PushPop,7,7,1,40,3000000,75000.0,"void gemm<float, 128>(int)"
:decode,PushPop,7,7,1,160,8000000,50000.0,gemv
:vision,PushPop,7,7,1,12,1000000,83333.3,gelu
:something,PushPop,7,7,1,1,1,1.0,else
"""
_HEAD = (
    '"ID","Process ID","Kernel Name","Device","dram__throughput.avg.pct_of_peak_sustained_elapsed",'
    '"gpu__time_duration.sum","sm__throughput.avg.pct_of_peak_sustained_elapsed"'
)
NCU = f"""\
==PROF== Connected to process 7
==PROF== Profiling "gemv" - 0: 0%....50%....100% - 3 passes
{_HEAD}
"","","","","%","us","%"
"0","7","gemv","0","80.0","3.0","4.0"
"1","7","void gemm<float, 128>(int)","0","10.0","1,000.5","60.0"
"2","7","gemv","0","60.0","1.0","8.0"
==PROF== Disconnected from process 7
"""
GEMM = "void gemm<float, 128>(int)"

Tools = Callable[..., Callable[[str], str | None]]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Programs that write down what they are told, run what they should watch, and say ``said``."""

    def made(**said: str) -> Callable[[str], str | None]:
        for name, text in said.items():
            (tmp_path / f"{name}.said").write_text(text)
            program = tmp_path / name
            program.write_text(
                f"#!{sys.executable}\n"
                + textwrap.dedent(
                    """\
                    import json, subprocess, sys
                    from pathlib import Path

                    here, told = Path(__file__), sys.argv[1:]
                    with here.with_suffix(".told").open("a") as file:
                        file.write(json.dumps(told) + "\\n")
                    said = here.with_suffix(".said").read_text()
                    if said.startswith("fails"):
                        print(said)
                        sys.exit(3)
                    if sys.executable in told:
                        subprocess.run(told[told.index(sys.executable):], check=True)
                    if "--log-file" in told:
                        Path(told[told.index("--log-file") + 1]).write_text(said)
                    elif told[0] == "stats":
                        print(said)
                    """
                )
            )
            program.chmod(0o755)
        return lambda name: str(tmp_path / name) if name in said else None

    return made


def asked(folder: Path, **more: object) -> LLMProfileRequest:
    return LLMProfileRequest(model_path=str(folder / "m"), input_dir=str(folder / "in"), **more)  # type: ignore[arg-type]


IDLE = (sys.executable, "-c", "")


def test_kernels_are_told_by_stage_and_with_what_they_reach(tmp_path: Path, tools: Tools) -> None:
    which = tools(nsys=NSYS, ncu=NCU)
    found = look(asked(tmp_path), "0.txt", tmp_path, lambda: False, which=which, watched=IDLE)
    assert found.kernels == (
        KernelSummary(name="gemv", source="nsys", stage="decode", calls=160, time_ms=8.0),
        KernelSummary(name=GEMM, source="nsys", stage="prefill", calls=40, time_ms=3.0),
        KernelSummary(
            name=GEMM,
            source="ncu",
            stage="decode",
            calls=1,
            time_ms=pytest.approx(1.0005),
            memory_share=pytest.approx(0.1),
            compute_share=pytest.approx(0.6),
        ),
        KernelSummary(name="gelu", source="nsys", stage="vision", calls=12, time_ms=1.0),
        KernelSummary(
            name="gemv",
            source="ncu",
            stage="decode",
            calls=2,
            time_ms=pytest.approx(0.004),
            # By their time: three parts of the one launch, one of the other.
            memory_share=pytest.approx(0.75),
            compute_share=pytest.approx(0.05),
        ),
    )
    assert len(found.notes) == 2


def test_they_are_told_what_to_record(tmp_path: Path, tools: Tools) -> None:
    which = tools(nsys=NSYS, ncu=NCU)
    look(asked(tmp_path), "0.txt", tmp_path, lambda: False, which=which, watched=IDLE)
    recorded, table = map(json.loads, (tmp_path / "nsys.told").read_text().splitlines())
    (measured,) = map(json.loads, (tmp_path / "ncu.told").read_text().splitlines())
    request = str(tmp_path / "nsight-request.json")
    assert recorded[-7:] == [*IDLE, request, "0.txt", "prefill", "decode"]
    assert measured[-6:] == [*IDLE, request, "0.txt", "decode"]
    assert recorded == nsys_command("", tmp_path / "nsys", recorded[-7:])[1:]
    assert table == nsys_table_command("", tmp_path / "nsys.nsys-rep")[1:]
    assert measured == ncu_command("", tmp_path / "ncu.csv", measured[-6:])[1:]
    assert "--capture-range=cudaProfilerApi" in recorded
    assert measured[:2] == ["--profile-from-start", "off"]


def test_what_is_not_installed_is_said(tmp_path: Path, tools: Tools) -> None:
    found = look(asked(tmp_path), "0.txt", tmp_path, lambda: False, which=tools(), watched=IDLE)
    assert found.kernels == ()
    assert [note.split()[0] for note in found.notes] == ["nsys", "ncu"]
    assert all("is not installed" in note for note in found.notes)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("fails: ERR_NVGPUCTRPERM", "ended with status 3: fails: ERR_NVGPUCTRPERM"),
        ("nothing of use", "no table that begins with 'ID'"),
        (NCU.replace('"Kernel Name"', '"Kernel"'), "no column 'Kernel Name'"),
        (NCU.replace('"us"', '"fortnight"'), "tells times in 'fortnight'"),
        (NCU.replace('"80.0"', '"n/a"'), "'n/a' stands where a number should"),
        (NCU.replace('"0","7","gemv"', '"0","gemv"'), "has not 7 columns"),
    ],
)
def test_one_that_fails_or_speaks_otherwise_is_a_note_and_the_other_is_heard(
    tmp_path: Path, tools: Tools, said: str, why: str
) -> None:
    which = tools(nsys=NSYS, ncu=said)
    found = look(asked(tmp_path), "0.txt", tmp_path, lambda: False, which=which, watched=IDLE)
    assert {kernel.source for kernel in found.kernels} == {"nsys"}
    assert any(note.startswith("ncu told nothing") and why in note for note in found.notes)


def test_one_that_cannot_be_started_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "nsys").write_text("no program")
    (tmp_path / "nsys").chmod(0o755)
    found = look(
        asked(tmp_path),
        "0.txt",
        tmp_path,
        lambda: False,
        which=lambda name: str(tmp_path / name) if name == "nsys" else None,
        watched=IDLE,
    )
    assert found.notes[0].startswith("nsys told nothing: it cannot be started")


def test_a_stop_ends_what_is_watched(tmp_path: Path, tools: Tools) -> None:
    told = tmp_path / "pid"
    forever = (
        sys.executable,
        "-c",
        f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); "
        "time.sleep(600)",
    )
    with pytest.raises(Stopped):
        look(
            asked(tmp_path),
            "0.txt",
            tmp_path,
            lambda: told.exists() and told.read_text() != "",
            which=tools(nsys=NSYS),
            watched=forever,
        )
    over = time.monotonic() + 30
    while processes.look(int(told.read_text())) is not None:
        assert time.monotonic() < over
        time.sleep(0.01)


def test_the_pass_that_is_watched_runs_the_input(tmp_path: Path, tools: Tools) -> None:
    from bench.profile import tiny

    tiny.llama(tmp_path / "m")
    tiny.prompts(tmp_path / "in")
    request = asked(tmp_path, device="cpu", random_weights=True)
    found = look(request, "1.txt", tmp_path, lambda: False, which=tools(nsys=NSYS))
    assert found.kernels, found.notes
    found = look(request, "none.txt", tmp_path, lambda: False, which=tools(nsys=NSYS))
    assert not found.kernels


def test_kernels_stand_in_every_form_of_the_report(tmp_path: Path) -> None:
    kernels = tuple(
        KernelSummary(name=f"{GEMM} {n}", source="ncu", calls=n, time_ms=9.0 - n, memory_share=0.5)
        for n in range(3)
    )
    write_all(evolve(a_report(), kernels=kernels), tmp_path)
    assert len(json.loads((tmp_path / "report.json").read_bytes())["kernels"]) == 3
    page = (tmp_path / "report.html").read_text()
    assert 'data-path="kernels[2].memory_share">50.0%' in page
    assert "gemm&lt;float, 128&gt;(int) 2" in page
    assert "gemm<float, 128>(int) 2" in (tmp_path / "report.md").read_text()


class _Event:
    """A moment in a device's stream, in ms, as ``torch.cuda.Event`` tells it."""

    def __init__(self, at_ms: float) -> None:
        self.at_ms = at_ms

    def elapsed_time(self, later: _Event) -> float:
        return later.at_ms - self.at_ms


def test_spans_on_a_gpu_are_those_of_its_own_clock() -> None:
    moments = iter([10.0, 14.0, 20.0, 21.5, 30.0, 30.25])
    spans = EventSpans(lambda: _Event(next(moments)))
    for _ in range(2):
        spans.begin()
        spans.end()
    assert spans.take() == pytest.approx(0.0055)
    spans.begin()
    spans.end()
    assert spans.take() == pytest.approx(0.00025)
    assert spans.take() == 0
