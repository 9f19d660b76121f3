"""Models that bring their code, in the manner of DeepSeek-OCR: small, random, over pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.profile import tiny
from gateway.served import run_headrace
from headrace.bench.profile.brought import handed_over, infers
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.loading import load
from headrace.bench.profile.run import profile
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.profile_report import ProfileReport

pytest.importorskip(
    "transformers.models.unlimited_ocr", reason="this transformers has no model of that make"
)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where transformers copies the code before it runs it: not among that of other models."""
    from transformers import dynamic_module_utils

    folder = tmp_path_factory.mktemp("modules")
    before = dynamic_module_utils.HF_MODULES_CACHE
    dynamic_module_utils.HF_MODULES_CACHE = str(folder)
    yield folder
    dynamic_module_utils.HF_MODULES_CACHE = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ocr")
    tiny.ocr(made / "model")
    tiny.pictures(made / "pages")
    (made / "pages" / "prompt.txt").write_text("What does it say?")
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> ProfileReport:
    return profile(tiny.asked(folder / "model", folder / "pages", trust_remote_code=True))


def test_without_leave_its_code_is_not_run(folder: Path) -> None:
    with pytest.raises(LLMInvalidRequestError, match="--trust-remote-code") as raised:
        profile(tiny.asked(folder / "model", folder / "pages"))
    assert raised.value.param == "trust_remote_code"


def test_its_stages_are_timed_as_those_of_any_other_model(report: ProfileReport) -> None:
    stages = {stage.stage: stage for stage in report.stages}
    assert list(stages) == ["preprocess", "vision", "prefill", "decode"]
    for vision, prefill in zip(
        stages["vision"].values_ms, stages["prefill"].values_ms, strict=True
    ):
        assert 0 < vision < prefill
    assert report.complete
    assert any("DeepseekOCRForCausalLM.infer" in note for note in report.notes)
    assert report.kv_bytes == report.kv_bytes_needed


def test_its_flops_are_those_that_torch_counts(report: ProfileReport) -> None:
    """The analytic model knows its shape by its file; torch counts one picture's operators."""
    stages = {stage.stage: stage for stage in report.stages}
    counted = {
        stage: sum(o.flops or 0 for o in report.operators if o.stage == stage)
        for stage in ("vision", "prefill")
    }
    pictures = len(report.inputs)
    assert pictures == 12
    assert stages["vision"].flops == counted["vision"] * pictures
    assert stages["prefill"].flops == (counted["vision"] + counted["prefill"]) * pictures


def test_a_picture_is_as_many_tokens_as_its_shape_says(report: ProfileReport) -> None:
    # 256 px are 4 x 4 cells with a newline a row and one separator; a first token and one word.
    assert {each.input_tokens for each in report.predictions} == {4 * 5 + 1 + 1 + 1}


def test_its_first_token_is_the_one_of_what_its_infer_hands_to_generate(folder: Path) -> None:
    request = tiny.asked(folder / "model", folder / "pages", trust_remote_code=True, repeats=1)
    loaded = load(request)
    given = Given(name="05.png", text="What does it say?", picture=folder / "pages" / "05.png")
    taken = handed_over(loaded.model, loaded.tokenizer, given, name="ocr", device="cpu", side=256)
    images = [tuple(each.float() for each in taken.pop("images")[0])]
    mine = {**taken, "images": images}
    tokens = mine.pop("input_ids")
    with tiny.torch.inference_mode():
        first = loaded.model(input_ids=tokens, use_cache=True, **mine).logits[0, -1].argmax()
    report = profile(request)
    said = next(each.text for each in report.predictions if each.input == "05.png")
    assert said.split()[0] == loaded.tokenizer.decode([int(first)])


def test_the_command_writes_what_was_said_to_each_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_headrace(
        *("profile", str(folder / "model"), "--input", str(folder / "pages"), "--device", "cpu"),
        *("--random-weights", "--trust-remote-code", "--repeats", "1", "--max-new-tokens", "3"),
        *("--out", str(out), "--json"),
        OMP_NUM_THREADS="1",
        HF_HOME=str(tmp_path / "hf"),
    )
    assert done.returncode == 0, done.stderr
    # What its infer() prints is not among the report's JSON.
    printed = json.loads(done.stdout)
    assert "BASE: 256" in done.stderr
    assert [each["input"] for each in printed["predictions"]] == [f"{i:02}.png" for i in range(12)]
    for each in printed["predictions"]:
        assert (out / "predictions" / f"{each['input']}.txt").read_text() == each["text"] + "\n"


def _changed(folder: Path, to: Path, change: Callable[[str], str]) -> Path:
    shutil.copytree(folder / "model", to)
    code = to / "modeling_deepseekocr.py"
    code.write_text(change(code.read_text()))
    return to


def test_what_its_code_needs_and_is_not_here_is_named(folder: Path, tmp_path: Path) -> None:
    model = _changed(folder, tmp_path / "m", lambda code: code + "\nimport no_such_package\n")
    with pytest.raises(LLMCapabilityError, match="no_such_package"):
        profile(tiny.asked(model, folder / "pages", trust_remote_code=True))


def test_a_name_that_this_transformers_has_no_more_is_told_with_its_version(
    folder: Path, tmp_path: Path
) -> None:
    line = "\nfrom transformers.models.llama.modeling_llama import LlamaFlashAttention2\n"
    model = _changed(folder, tmp_path / "m", lambda code: code + line)
    with pytest.raises(LLMCapabilityError, match=r"transformers is \d.*LlamaFlashAttention2"):
        profile(tiny.asked(model, folder / "pages", trust_remote_code=True))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("ids = [0]\n", "raise KeyError('a page')\n", "failed on 00.png: KeyError: 'a page'"),
        ("ids = [0]\n", "return None\n", r"never called generate\(\) for 00.png"),
    ],
)
def test_an_infer_that_fails_is_named_with_its_input(
    folder: Path, tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    model = _changed(folder, tmp_path / "m", lambda code: code.replace(was, becomes))
    with pytest.raises(LLMCapabilityError, match=said):
        profile(tiny.asked(model, folder / "pages", trust_remote_code=True))


def test_without_a_tokenizer_its_infer_cannot_be_asked(folder: Path, tmp_path: Path) -> None:
    model = _changed(folder, tmp_path / "m", str)
    for file in model.glob("*token*"):
        file.unlink()
    with pytest.raises(LLMInvalidRequestError, match="no tokenizer"):
        profile(tiny.asked(model, folder / "pages", trust_remote_code=True))


def test_it_is_left_as_it_was(folder: Path) -> None:
    loaded = load(tiny.asked(folder / "model", folder / "pages", trust_remote_code=True))
    before = (tiny.torch.Tensor.cuda, loaded.model.generate.__func__)
    given = Given(name="page", text="word7", picture=folder / "pages" / "00.png")
    assert infers(loaded.model)
    handed_over(loaded.model, loaded.tokenizer, given, name="ocr", device="cpu", side=256)
    assert (tiny.torch.Tensor.cuda, loaded.model.generate.__func__) == before
