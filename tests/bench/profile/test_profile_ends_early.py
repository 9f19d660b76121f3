"""What cannot be profiled, and runs that end before their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.profile import tiny
from headrace.bench.profile.report.saved import read_file
from headrace.bench.profile.run import profile
from headrace.bench.profile.stopping import NoMemoryError
from headrace.contracts.errors import LLMCancelledError, LLMCapabilityError, LLMInvalidRequestError

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"input_dir .*nowhere' does not exist"):
        profile(tiny.asked(tiny.llama(tmp_path / "m"), tmp_path / "nowhere"))


def test_a_folder_without_pictures_is_told_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    model = tiny.written(tmp_path / "m", tiny.LLAVA)
    with pytest.raises(LLMInvalidRequestError, match=r"no pictures \(.*\.png.*\.txt or \.jsonl"):
        profile(tiny.asked(model, tmp_path / "in"))


def test_pictures_for_a_model_that_does_not_see_are_not_dropped_in_silence(tmp_path: Path) -> None:
    with pytest.raises(LLMInvalidRequestError, match="3 pictures, which m cannot see"):
        profile(tiny.asked(tiny.llama(tmp_path / "m"), tiny.pictures(tmp_path / "in", 3)))


@pytest.mark.parametrize("broken", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_broken_picture_is_named_before_anything_runs(tmp_path: Path, broken: bytes) -> None:
    inputs = tiny.pictures(tmp_path / "in", 2)
    (inputs / "07.png").write_bytes(broken)
    model = tiny.written(tmp_path / "m", tiny.LLAVA)
    phases: list[str] = []
    with pytest.raises(LLMInvalidRequestError, match=r"07\.png' is no readable picture"):
        profile(tiny.asked(model, inputs), on_progress=lambda phase, *_: phases.append(phase))
    assert set(phases) == {"loading"}


def test_half_a_picture_is_named(tmp_path: Path) -> None:
    inputs = tiny.pictures(tmp_path / "in", 1)
    whole = (inputs / "00.png").read_bytes()
    (inputs / "00.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LLMInvalidRequestError, match=r"00\.png' is no readable picture"):
        profile(tiny.asked(tiny.written(tmp_path / "m", tiny.LLAVA), inputs))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "without a config.json"),
        ("{", "is no JSON"),
        ("{}", "has no model_type"),
        ('{"model_type": "vit"}', "loads neither"),
        ('{"model_type": "no-such-thing"}', "cannot read"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, config: str | None, said: str) -> None:
    (tmp_path / "m").mkdir()
    if config is not None:
        (tmp_path / "m" / "config.json").write_text(config)
    with pytest.raises(LLMInvalidRequestError, match=said):
        profile(tiny.asked(tmp_path / "m", tiny.prompts(tmp_path / "in")))


def test_a_model_without_weights_is_told_of_random_ones(tmp_path: Path) -> None:
    request = tiny.asked(
        tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), random_weights=False
    )
    with pytest.raises(LLMInvalidRequestError, match="random weights"):
        profile(request)


def test_a_model_that_keeps_no_cache_is_told(tmp_path: Path) -> None:
    model = tiny.written(tmp_path / "m", {"model_type": "bert", "num_hidden_layers": 1})
    with pytest.raises(LLMCapabilityError, match="keeps no cache"):
        profile(tiny.asked(model, tiny.prompts(tmp_path / "in")))


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_that_is_not_there_is_told(tmp_path: Path, device: str) -> None:
    if tiny.torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(LLMCapabilityError, match="finds no CUDA here; ask for cpu"):
        profile(tiny.asked(tiny.llama(tmp_path / "m"), tmp_path, device=device))


def test_kernels_are_for_cuda_and_the_processor_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(LLMCapabilityError, match="on CUDA only, and device is 'cpu'"):
        profile(tiny.asked(tiny.llama(tmp_path / "m"), tmp_path, kernels=True))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("device", "tpu", "cpu, cuda or cuda:"), ("dtype", "int3", "bf16, fp16, fp32")],
)
def test_a_value_that_means_nothing_is_told_with_those_that_do(
    tmp_path: Path, field: str, value: str, said: str
) -> None:
    inputs = tiny.prompts(tmp_path / "in")
    with pytest.raises(LLMInvalidRequestError, match=said) as raised:
        profile(tiny.asked(tiny.llama(tmp_path / "m"), inputs, **{field: value}))
    assert raised.value.param == field


class Stopping:
    """Says stop from the ``number``-th thing of ``phase`` on."""

    def __init__(self, phase: str, number: int = 1) -> None:
        self.phase, self.left, self.stopped = phase, number, False

    def tell(self, phase: str, _done: float, _words: str) -> None:
        if phase == self.phase:
            self.left -= 1
            self.stopped = self.stopped or self.left == 0

    def run(self, request: Any, folder: Path | None = None) -> Any:
        return profile(
            request, on_progress=self.tell, stop=lambda: self.stopped, artifacts_dir=folder
        )


@pytest.mark.parametrize("phase", ["loading", "warmup", "timing"])
def test_stopped_before_anything_was_timed_it_is_cancelled(tmp_path: Path, phase: str) -> None:
    request = tiny.asked(tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"))
    with pytest.raises(LLMCancelledError, match=r"nothing was timed|before anything was timed"):
        Stopping(phase).run(request)


@pytest.mark.parametrize(("number", "repeats", "figures"), [(2, 0, 1), (3, 1, 2), (4, 1, 2)])
def test_stopped_while_timing_it_keeps_what_was_timed(
    tmp_path: Path, number: int, repeats: int, figures: int
) -> None:
    request = tiny.asked(tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), repeats=3)
    report = Stopping("timing", number).run(request)
    assert not report.complete
    assert not report.summary.complete
    assert "stopped" in report.ended
    assert report.verdict.startswith("Incomplete (stopped")
    assert report.repeats == repeats
    assert {len(stage.values_ms) for stage in report.stages} == {figures}
    assert report.operators == ()
    assert len(report.predictions) == min(number - 1, 2)


@pytest.mark.parametrize("number", [1, 2])
def test_stopped_at_the_operators_it_keeps_all_times(tmp_path: Path, number: int) -> None:
    request = tiny.asked(tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"))
    report = Stopping("operators", number).run(request)
    assert (report.complete, report.repeats, report.operators) == (False, 2, ())
    assert report.ttft_ms is not None


def test_stopped_at_the_report_there_is_nothing_left_to_leave_out(tmp_path: Path) -> None:
    request = tiny.asked(tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), repeats=1)
    assert Stopping("report").run(request).complete


def test_a_model_larger_than_the_memory_is_refused_before_any_of_it_is_made(tmp_path: Path) -> None:
    vast = {**tiny.TEXT, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 999}
    model = tiny.written(tmp_path / "m", vast)
    with pytest.raises(NoMemoryError, match=r"its weights are \d+\.\d GB in fp32, and [\d.]+ GB"):
        profile(tiny.asked(model, tiny.prompts(tmp_path / "in")))


LITTLE_MEMORY = """
    import json, resource, sys
    from pathlib import Path
    import torch
    from headrace.bench.profile.run import profile
    from headrace.contracts.errors import LLMError
    from headrace.contracts.profiling import LLMProfileRequest

    torch.set_num_threads(1)
    request = LLMProfileRequest(
        model_path=sys.argv[1], input_dir=sys.argv[2], device="cpu", random_weights=True, warmup=0,
        repeats=1, max_new_tokens=2, attention="eager",
    )

    def limit(phase, done, words):
        # What is mapped already counts, so the limit is set when all libraries are there.
        if phase == sys.argv[3] and words.endswith(sys.argv[4]):
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            more = mapped + int(sys.argv[5]) * 1_000_000
            resource.setrlimit(resource.RLIMIT_AS, (more, more))

    import transformers.models.auto.modeling_auto, transformers.models.llama.modeling_llama
    try:
        report = profile(request, on_progress=limit)
    except LLMError as error:
        print(json.dumps({"raised": type(error).__name__, "said": str(error)}))
    else:
        print(json.dumps({"ended": report.ended, "complete": report.complete,
                          "kept": [each.input for each in report.predictions]}))
"""


def with_little_memory(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LITTLE_MEMORY), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


needs_limits = pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="only Linux holds a process to RLIMIT_AS here"
)


@needs_limits
def test_a_model_that_does_not_fit_is_told(tmp_path: Path) -> None:
    large = {**tiny.TEXT, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 8}
    model = tiny.written(tmp_path / "m", large)
    found = with_little_memory(model, tiny.prompts(tmp_path / "in"), "loading", "m", 500)
    assert found["raised"] == "NoMemoryError"
    assert "out of memory while loading m" in found["said"]
    assert "smaller dtype" in found["said"]


@needs_limits
def test_an_input_that_does_not_fit_leaves_what_was_timed_before(tmp_path: Path) -> None:
    inputs = tiny.prompts(tmp_path / "in", "short", "long " * 1600)
    found = with_little_memory(
        tiny.llama(tmp_path / "m"), inputs, "timing", "1.txt, repeat 1 of 1", 300
    )
    assert "out of memory while timing 1.txt" in found["ended"]
    assert found["complete"] is False
    assert found["kept"] == ["0.txt"]


INTERRUPTED = """
    import signal, sys

    words = sys.argv.pop(1)

    class Told:
        def write(self, text):
            if words in text:
                signal.raise_signal(signal.SIGINT)
            return sys.__stderr__.write(text)

        def flush(self):
            sys.__stderr__.flush()

        def isatty(self):
            return False

    sys.stderr = Told()
    from headrace.cli.main import main
    main()
"""


@pytest.mark.parametrize(
    ("words", "status", "kept", "said"),
    [
        ("loading m", 1, None, "stopped while loading"),
        ("warming up with", 1, None, "before anything was timed"),
        ("timing 0.txt, repeat 2", 1, (1, False), "stopped before its end"),
        ("measuring what", 1, (3, False), "stopped before its end"),
        ("looking at operators", 1, (3, False), "stopped before its end"),
        ("putting the figures", 0, (3, True), ""),
    ],
)
def test_ctrl_c_ends_the_command_and_keeps_what_there_is(
    tmp_path: Path, words: str, status: int, kept: tuple[int, bool] | None, said: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arguments = (
        *(words, "profile", tiny.llama(tmp_path / "m"), "--input", tiny.prompts(tmp_path / "in")),
        *("--random-weights", "--device", "cpu", "--max-new-tokens", "3", "--out", out),
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert said in done.stderr.splitlines()[-1]
    mark = out / "INCOMPLETE.txt"
    assert mark.exists() == (status != 0)
    if status:
        assert "stopped" in mark.read_text()
    if kept is None:
        assert not (out / "report.json").exists()
        return
    report = read_file(out)
    assert (report.repeats, report.complete) == kept
    assert (out / "predictions" / "0.txt.txt").exists()
    assert ("Incomplete" in (out / "report.md").read_text()) == (status != 0)
