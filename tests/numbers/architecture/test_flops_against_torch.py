"""FLOPs of many models against torch itself, on the meta device; needs torch and transformers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from architecture import judge
from architecture.cases import CASES, DEEPSEEK_OCR, OCR_PASSES
from headrace.bench.profile.formulas import formulas
from headrace.numbers.architecture import (
    Conventions,
    Pass,
    decode,
    forward,
    model_from_config,
    prefill,
    size,
    total,
)

torch: Any = pytest.importorskip("torch", reason="torch is not installed: make test-profile")
pytest.importorskip("transformers", reason="transformers is not installed: make test-profile")
pytestmark = pytest.mark.filterwarnings("ignore")

built = cache(lambda name: judge.built(CASES[name]))


@pytest.mark.parametrize(
    ("name", "run"),
    [
        pytest.param(name, run, id=f"{name}: {run.tokens} after {run.past}, batch {run.batch}")
        for name, case in CASES.items()
        for run in case.passes
    ],
)
def test_flops_are_those_that_torch_counts(name: str, run: Pass) -> None:
    case = CASES[name]
    ours = forward(model_from_config(case.config), run, case.rules)
    assert ours.total.flops == judge.counted(built(name), case, run)


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_as_transformers_writes_it_reads_the_same(name: str) -> None:
    full = built(name).config.to_dict()
    short = CASES[name].config
    full = {**full, "architectures": short["architectures"]}
    if name == "flan-t5-base":  # transformers 5 writes down that it ties what the file has apart
        full["tie_word_embeddings"] = False
    for run in CASES[name].passes:
        assert (
            forward(model_from_config(full), run).total.flops
            == forward(model_from_config(short), run).total.flops
        )
    assert size(model_from_config(full)).parameters == size(model_from_config(short)).parameters


@pytest.mark.parametrize("run", OCR_PASSES)
def test_deepseek_ocrs_parts_are_those_that_torch_counts(run: Pass) -> None:
    tree = forward(model_from_config(DEEPSEEK_OCR), run).tree
    assert {part.name: total(part).flops for part in tree.parts} == judge.ocr_counted(run)


TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "dtype": "float32",
    "vocab_size": 300,
}
TINY_MIXTURE = {
    **TINY,
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "sliding_window": None,
}


@pytest.mark.parametrize("config", [TINY, TINY_MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_real_run_on_the_cpu_counts_the_same(config: dict[str, Any], attention: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {k: v for k, v in config.items() if k != "model_type"}
    made = AutoConfig.for_model(config["model_type"], **settings)
    model = AutoModelForCausalLM.from_config(made, attn_implementation=attention).eval()
    ours = model_from_config(config)
    with torch.no_grad():
        with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            done = model(torch.zeros(2, 33, dtype=torch.long), use_cache=True)
        assert counter.get_total_flops() == forward(ours, prefill(33, 2)).total.flops
        cache = done.past_key_values
        with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            model(torch.zeros(2, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
        assert counter.get_total_flops() == forward(ours, decode(33, 2)).total.flops


def test_the_three_ways_of_latent_attention_are_those_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = CASES["deepseek-v2-lite"].config
    heads, plain, rotary, value = 16, 128, 64, 128
    latent, width, past = 512, 2048, 300
    model = model_from_config(config)

    def ours(way: Any) -> float:
        tree = forward(model, decode(past, batch=2), Conventions(latent=way)).tree
        stack = next(part for part in tree.parts if part.name == "stack")
        attention = stack.parts[0].parts[0]
        assert attention.name == "latent attention"
        return total(attention).flops

    def torchs(way: str) -> int:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            new = torch.zeros(2, 1, width)
            new @ torch.zeros(width, heads * (plain + rotary))
            new @ torch.zeros(width, latent + rotary)
            keys = past + 1
            if way == "absorbed":
                q = torch.zeros(2, heads, 1, plain) @ torch.zeros(heads, plain, latent)
                scores = torch.cat([q, torch.zeros(2, heads, 1, rotary)], -1) @ torch.zeros(
                    2, heads, latent + rotary, keys
                )
                out = scores @ torch.zeros(2, heads, keys, latent)
                out = out @ torch.zeros(heads, latent, value)
            else:
                rows = keys if way == "latent" else 1
                torch.zeros(2, rows, latent) @ torch.zeros(latent, heads * (plain + value))
                scores = torch.zeros(2, heads, 1, plain + rotary) @ torch.zeros(
                    2, heads, plain + rotary, keys
                )
                out = scores @ torch.zeros(2, heads, keys, value)
            out.transpose(1, 2).reshape(2, 1, heads * value) @ torch.zeros(heads * value, width)
        return counter.get_total_flops()

    for way in ("expanded", "latent", "absorbed"):
        assert ours(way) == torchs(way)
