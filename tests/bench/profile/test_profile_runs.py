"""A profile from its request to its report, of models small enough to run here."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from bench.profile import tiny
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.loading import load
from headrace.bench.profile.operators import TRACE
from headrace.bench.profile.passes import Runner
from headrace.bench.profile.run import profile
from headrace.contracts.convert import from_json, to_json
from headrace.contracts.profile_report import ProfileReport
from headrace.stores.models import ModelFile

# The warnings of torch and transformers are about themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def of_text(tmp_path_factory: pytest.TempPathFactory) -> ProfileReport:
    folder = tmp_path_factory.mktemp("text")
    request = tiny.asked(tiny.llama(folder / "model"), tiny.prompts(folder / "inputs"), repeats=3)
    return profile(request, artifacts_dir=folder / "out", run_id="a-run")


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory: pytest.TempPathFactory) -> ProfileReport:
    folder = tmp_path_factory.mktemp("pictures")
    request = tiny.asked(
        tiny.llava(folder / "model"), tiny.pictures(folder / "inputs"), random_weights=False
    )
    return profile(request, artifacts_dir=folder / "out")


@pytest.fixture(params=["of_text", "of_pictures"])
def report(request: pytest.FixtureRequest) -> ProfileReport:
    found: ProfileReport = request.getfixturevalue(request.param)
    return found


def test_the_stages_of_every_pass_add_up_to_its_whole(report: ProfileReport) -> None:
    outer = [stage for stage in report.stages if stage.inside is None]
    assert report.total_ms is not None
    assert sum(stage.time_ms.mean for stage in outer) == pytest.approx(
        report.total_ms.mean, rel=0.02
    )
    assert sum(stage.share or 0 for stage in outer) == pytest.approx(1, rel=0.02)


def test_every_figure_is_one_an_input_and_repeat(report: ProfileReport) -> None:
    count = len(report.inputs) * report.repeats
    assert count > 0
    for stage in report.stages:
        assert len(stage.values_ms) == stage.time_ms.count == count
    for name in ("ttft_ms", "tpot_ms", "prefill_tokens_per_s", "decode_tokens_per_s"):
        assert report.summary.aggregates[name].count == count
    for stage in report.stages:
        assert report.summary.aggregates[f"{stage.stage}_ms"] == stage.time_ms


def test_each_stage_that_computes_says_how_near_it_comes(report: ProfileReport) -> None:
    (peak,) = report.peaks
    assert peak.flops_per_s is not None
    for stage in report.stages:
        if stage.stage == "preprocess":
            assert (stage.flops, stage.mfu) == (None, None)
            continue
        assert stage.flops is not None
        assert stage.mfu is not None
        seconds = stage.time_ms.mean / 1e3 * len(report.inputs)
        assert stage.mfu == pytest.approx(stage.flops / peak.flops_per_s / seconds)
        assert report.summary.mfu_per_stage[stage.stage] == stage.mfu
        assert (stage.of_floor or 0) > 0
    assert "preprocess" not in report.summary.mfu_per_stage
    assert report.summary.mfu_model_level is not None


def test_the_cache_is_as_large_as_the_model_says(report: ProfileReport) -> None:
    assert report.kv_bytes is not None
    assert report.kv_bytes == report.kv_bytes_needed


def test_memory_is_seen_over_time_and_never_above_its_peak(report: ProfileReport) -> None:
    if not report.memory:
        pytest.skip("this system does not tell what a process holds")
    assert report.peak_memory == max(moment.allocated for moment in report.memory)
    assert report.peak_memory > (report.weight_bytes or 0)


def test_operators_are_told_by_stage_with_their_own_time(report: ProfileReport) -> None:
    stages = {"prefill", "decode"} | ({"vision"} & {s.stage for s in report.stages})
    assert {operator.stage for operator in report.operators} == stages
    assert all(operator.cuda_time_ms == 0 for operator in report.operators)
    products = [o for o in report.operators if o.op_name in {"aten::mm", "aten::addmm"}]
    assert products
    for operator in products:
        assert operator.flops
        assert operator.bytes
        assert operator.share_of_roof
    assert report.summary.top_operators == list(report.operators[:10])
    assert report.overhead is not None
    assert report.overhead.prefill
    assert report.overhead.counting_decode


def test_what_is_told_as_uncounted_did_work_of_its_own(report: ProfileReport) -> None:
    """Neither views nor operators that only call others, whose work is counted with these."""
    named = {line.partition(": no FLOP")[0] for line in report.uncounted if "no FLOP" in line}
    assert "aten::mul" in named
    assert not named & {"aten::linear", "aten::matmul", "aten::view", "aten::transpose", "aten::t"}
    assert not named & {"aten::mm", "aten::addmm", "aten::bmm"}


def test_a_report_is_the_same_after_it_was_written_and_read(report: ProfileReport) -> None:
    assert from_json(to_json(report), ProfileReport) == report


def test_a_report_says_in_sentences_what_was_found(report: ProfileReport) -> None:
    assert report.complete
    assert report.verdict.endswith(".")
    assert report.verdict in report.summary.notes
    assert report.noise.text in report.summary.notes
    assert all(any(c.isdigit() for c in each.because) for each in report.recommendations)


def test_looking_at_pictures_is_within_prefill_and_counted_once(of_pictures: ProfileReport) -> None:
    stages = {stage.stage: stage for stage in of_pictures.stages}
    assert stages["vision"].inside == "prefill"
    for vision, prefill in zip(
        stages["vision"].values_ms, stages["prefill"].values_ms, strict=True
    ):
        assert 0 < vision < prefill
    assert 0 < (stages["vision"].flops or 0) < (stages["prefill"].flops or 0)


def test_what_the_model_said_to_each_picture_is_kept(of_pictures: ProfileReport) -> None:
    assert [each.input for each in of_pictures.predictions] == [f"{i:02}.png" for i in range(12)]
    assert all(each.output_tokens for each in of_pictures.predictions)


def test_random_weights_are_told_and_never_end_an_answer(of_text: ProfileReport) -> None:
    assert any("weights are random" in note for note in of_text.notes)
    assert {each.output_tokens for each in of_text.predictions} == {6}
    assert of_text.run_id == of_text.summary.run_id == "a-run"


def test_the_trace_of_the_operators_lies_beside(tmp_path: Path) -> None:
    request = tiny.asked(tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), repeats=1)
    report = profile(request, artifacts_dir=tmp_path / "out")
    assert (tmp_path / "out" / TRACE).read_bytes()[:2] == b"\x1f\x8b"
    assert report.noise.verdict != "clean"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_report_says_which_attention_ran(tmp_path: Path, attention: str) -> None:
    request = tiny.asked(
        tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), repeats=1, attention=attention
    )
    assert profile(request).attention.startswith(attention)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
def test_a_compiled_model_is_looked_at_as_it_was_compiled(tmp_path: Path) -> None:
    request = tiny.asked(
        tiny.llama(tmp_path / "m"), tiny.prompts(tmp_path / "in"), repeats=1, compile=True
    )
    report = profile(request)
    assert report.compiled
    assert any("Compiled" in operator.op_name for operator in report.operators)
    assert not any("--compile" in each.text for each in report.recommendations)


def test_vision_parts_without_a_formula_are_counted_by_torch(tmp_path: Path) -> None:
    config = {
        "model_type": "llava",
        "text_config": tiny.TEXT,
        "vision_config": {**tiny.EYE, "model_type": "siglip_vision_model"},
        "image_token_index": tiny.IMAGE_TOKEN,
        "vision_feature_select_strategy": "full",
        "dtype": "float32",
    }
    request = tiny.asked(
        tiny.written(tmp_path / "m", config), tiny.pictures(tmp_path / "in", 2), repeats=1
    )
    report = profile(request)
    vision = next(stage for stage in report.stages if stage.stage == "vision")
    assert vision.flops
    assert vision.mfu
    assert any("torch counted" in note for note in report.notes)


def test_times_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """In processor time, the quietest of several, so that other programs do not decide."""
    torch = tiny.torch
    loaded = load(tiny.asked(tiny.llama(tmp_path / "m"), tmp_path))
    runner = Runner(loaded)
    given = Given(name="one", text="a prompt of some length, for a loop of some steps")
    ids = torch.tensor([[(b * 31 + 7) % 300 for b in given.text.encode()]])

    def plain() -> list[int]:
        with torch.inference_mode():
            out = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
            tokens = [int(out.logits[0, -1].argmax())]
            while len(tokens) < 24:
                step = torch.tensor([[tokens[-1]]])
                out = loaded.model(input_ids=step, cache=out.cache, use_cache=True)
                tokens.append(int(out.logits[0, -1].argmax()))
        return tokens

    ours, theirs = [], []
    for _ in range(7):
        began = time.thread_time()
        timed = runner.once(given, 24)
        between = time.thread_time()
        assert list(timed.tokens) == plain()
        ours.append(between - began)
        theirs.append(time.thread_time() - between)
    assert min(ours) < 1.5 * min(theirs)


def test_the_model_in_the_box_says_what_transformers_generates(
    box_model: ModelFile, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed: make test-profile")
    inputs = tiny.prompts(tmp_path / "in", "What is the capital of France?")
    request = tiny.asked(
        box_model.path, inputs, random_weights=False, max_new_tokens=8, repeats=1, warmup=0
    )
    report = profile(request)
    loaded = load(request)
    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with tiny.torch.inference_mode():
        made = loaded.model.generate(ids, max_new_tokens=8, do_sample=False)
    expected = loaded.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert report.predictions[0].text == expected
    assert "Paris" in expected
    assert report.parameters == 134_515_008
    assert report.kv_bytes_per_token == 2 * 30 * 3 * 64 * 4
