"""The analytic model, torch's FlopCounterMode and our own counter, of one and the same pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.profile import tiny
from headrace.bench.profile.counting import counter
from headrace.bench.profile.formulas import formulas
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.loading import load
from headrace.bench.profile.passes import Runner
from headrace.bench.profile.preparing import prepare
from headrace.bench.profile.work import account_of, work_of

pytestmark = pytest.mark.filterwarnings("ignore")


def judged(run: Any) -> int:
    """What FlopCounterMode counts while ``run`` runs."""
    from torch.utils.flop_counter import FlopCounterMode

    judge = FlopCounterMode(display=False, custom_mapping=formulas())
    with tiny.torch.no_grad(), judge:
        run()
    return int(judge.get_total_flops())


@pytest.fixture(params=["text", "picture", "text for a model that sees"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Runner, Given]:
    picture = None
    if request.param == "text":
        model = tiny.llama(tmp_path / "m")
    else:
        model = tiny.llava(tmp_path / "m")
        if request.param == "picture":
            picture = tiny.pictures(tmp_path / "in", 1) / "00.png"
    loaded = load(tiny.asked(model, tmp_path))
    return Runner(loaded), Given(name="one", text="word5 word6 word7", picture=picture)


def test_a_pass_needs_the_flops_that_torch_counts(case: tuple[Runner, Given]) -> None:
    runner, given = case
    loaded = runner.loaded
    timed = runner.once(given, 5)
    account = account_of(
        loaded.config, name="tiny", dtype="fp32", last_logits_only=runner.last_logits_only
    )
    work = work_of(account, [timed])
    inputs = prepare(loaded, given)

    def whole() -> None:
        token, cache = runner.prefill(inputs)
        for _ in timed.steps_s:
            token, cache = runner.step(token, cache)

    first = judged(lambda: runner.prefill(inputs))
    assert work["prefill"].flops == first
    assert work["decode"].flops == judged(whole) - first


def test_our_counter_counts_what_torch_counts(case: tuple[Runner, Given]) -> None:
    runner, given = case
    inputs = prepare(runner.loaded, given)
    counts = counter(lambda: "vision" if runner.watch.inside else "prefill")
    with tiny.torch.no_grad(), counts:
        runner.prefill(inputs)
    found = counts.found
    assert sum(each.flops for each in found.values()) == judged(lambda: runner.prefill(inputs))
    seen = sum(each.flops for (stage, _), each in found.items() if stage == "vision")
    assert (seen > 0) == (given.picture is not None)


def test_bytes_are_those_of_the_tensors_and_views_move_none() -> None:
    torch = tiny.torch
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    table, rows = torch.ones(1000, 16), torch.tensor([1, 2])
    counts = counter(lambda: "here")
    with torch.no_grad(), counts:
        a.view(8, 4).transpose(0, 1)
        torch.mm(a, b)
        torch.nn.functional.embedding(rows, table)
        torch.ones(1, 8).expand(1000, 8).sum()
    moved = {name: each.bytes for (_, name), each in counts.found.items()}
    assert moved["aten::view"] == moved["aten::transpose"] == 0
    assert moved["aten::mm"] == 4 * (4 * 8 + 8 * 2 + 4 * 2)
    assert moved["aten::embedding"] == 2 * 2 * 16 * 4 + 2 * 8
    assert moved["aten::sum"] == 8 * 4 + 4
