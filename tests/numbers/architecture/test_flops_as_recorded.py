"""FLOPs and parameters of many models, against what torch counted and against published values."""

from __future__ import annotations

import json

import pytest

from architecture.cases import CASES, DEEPSEEK_OCR, LLAMA_3_8B, OCR_PASSES
from architecture.judge import RECORDED
from headrace.numbers.architecture import (
    Conventions,
    decode,
    forward,
    memory_bytes,
    model_from_config,
    prefill,
    size,
    total,
)

TORCH = json.loads(RECORDED.read_text())
EACH_PASS = [
    pytest.param(name, i, id=f"{name}: {run.tokens} after {run.past}, batch {run.batch}")
    for name, case in CASES.items()
    for i, run in enumerate(case.passes)
]


def test_every_case_is_recorded() -> None:
    assert list(TORCH["cases"]) == list(CASES)
    assert TORCH["transformers"]


@pytest.mark.parametrize(("name", "i"), EACH_PASS)
def test_flops_are_those_that_torch_counted(name: str, i: int) -> None:
    case = CASES[name]
    found = forward(model_from_config(case.config), case.passes[i], case.rules)
    assert found.total.flops == TORCH["cases"][name]["flops"][i]


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_the_model_that_transformers_builds(name: str) -> None:
    model = model_from_config(CASES[name].config)
    assert size(model).parameters == TORCH["cases"][name]["parameters"]


@pytest.mark.parametrize("i", range(len(OCR_PASSES)))
def test_the_parts_of_deepseek_ocr_are_those_that_torch_counted(i: int) -> None:
    tree = forward(model_from_config(DEEPSEEK_OCR), OCR_PASSES[i]).tree
    assert {part.name: total(part).flops for part in tree.parts} == TORCH["deepseek-ocr"][i]


def test_llama_3_8b_is_as_published() -> None:
    model = model_from_config(LLAMA_3_8B)
    last = Conventions(logits="last")
    assert forward(model, prefill(512)).total.flops == 7_822_209_187_840
    assert forward(model, prefill(512), last).total.flops == 7_285_315_207_168
    one = forward(model, decode(512)).total
    assert one.flops == 15_278_276_608
    assert memory_bytes(one) == 15_076_564_992


def test_smollm2_135m_is_as_published() -> None:
    model = model_from_config(CASES["smollm2-135m"].config)
    assert forward(model, prefill(512)).total.flops == 155_826_782_208
    assert forward(model, decode(512)).total.flops == 304_418_304


def test_deepseek_ocrs_encoders_are_as_published() -> None:
    tree = forward(model_from_config(DEEPSEEK_OCR), prefill(300)).tree
    found = {part.name: round(total(part).flops / 1e9, 2) for part in tree.parts}
    assert round(found["SAM encoder"], 1) == 976.9
    assert round(found["CLIP encoder"], 1) == 161.7
    assert found["projector"] == 1.34
