"""What a run costs: every call is counted, it is told to whoever asks, and a budget is never passed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.chains.budget import Budget, OutOfBudget
from headrace.chains.spending import Bill, Spending, Spent

from .answering import Answering, answering
from .test_run_command import expected, run, written

ROWS = 120
A_CALL = Decimal("0.000007")
"""Three tokens of prompt at $1 for a million, and two of answer at $2."""
PRICED = """
engines:
  - name: small
    backend: openai-compatible
    model: m
    endpoint: {url}
    input_price_usd: 1
    output_price_usd: 2
steps:
  - id: first
    engine: small
    user: "one {{{{ text }}}}"
    sampling: {{max_tokens: 10}}
  - id: second
    engine: small
    user: "two {{{{ row.id }}}} {{{{ first }}}}"
    sampling: {{max_tokens: 10}}
"""
TYPED = """
engines:
  - name: small
    backend: openai-compatible
    model: m
    endpoint: {url}
    input_price_usd: 1
    output_price_usd: 2
steps:
  - id: only
    engine: small
    user: "one {{{{ text }}}}"
    asks: 2
    output: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def write_chain(folder: Path, server: Answering, text: str = PRICED) -> None:
    (folder / "chain.yaml").write_text(text.format(url=server.url))


def note(folder: Path) -> dict[str, object]:
    return json.loads((folder / "out.jsonl.run" / "run.json").read_text())


def test_an_answer_that_had_to_be_asked_for_again_costs_both_asks(folder):
    def wrong_first(prompt: str, before: int) -> str:
        return '{"n": 1}' if "not" in prompt or "valid" in prompt else '{"n": "no"}'

    with answering(wrong_first) as server:
        write_chain(folder, server, TYPED)
        done = run(folder, "--limit", "4", "--with-usage")
        asked = sum(server.asked.values())
    assert done.returncode == 0, done.stderr
    assert asked == 8
    spent = note(folder)["now"]["spent"]["only"]
    assert (spent["calls"], spent["prompt_tokens"]) == (8, 24)
    assert Decimal(spent["usd"]) == 8 * A_CALL
    assert written(folder)[0]["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 4,
        "usd": float(2 * A_CALL),
    }


def test_what_failed_in_the_end_was_paid_too(folder):
    with answering(lambda prompt, before: '{"n": "no"}') as server:
        write_chain(folder, server, TYPED)
        done = run(folder, "--limit", "3")
        asked = sum(server.asked.values())
    assert done.returncode == 3
    assert asked == 6
    assert Decimal(note(folder)["now"]["spent"]["only"]["usd"]) == 6 * A_CALL


def test_the_usage_of_a_row_is_the_same_when_the_run_went_on_later(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder, "--with-usage").returncode == 0
        at_once = (folder / "out.jsonl").read_bytes()
        assert run(folder, "--with-usage").returncode == 0
        assert (folder / "out.jsonl").read_bytes() == at_once
        told = note(folder)
    assert told["now"]["spent"] == {}
    assert told["earlier"]["attempts"] == 1
    assert Decimal(told["earlier"]["spent"]["first"]["usd"]) == ROWS * A_CALL


def test_a_flat_row_has_its_usage_in_columns(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder, "--with-usage", "--shape", "flat", "--limit", "1").returncode == 0
    assert written(folder)[0]["usage.prompt_tokens"] == 6


def test_a_run_stops_before_its_budget_is_passed_and_goes_on_with_more(folder):
    limit = 60 * A_CALL
    with answering() as server:
        write_chain(folder, server)
        done = run(folder, "--max-cost", f"{limit:f}")
        assert done.returncode == 4, done.stderr
        paid = sum(server.asked.values()) * A_CALL
        assert paid <= limit
        assert paid > limit / 4  # it is not only the worst case that is spent
        assert "with more it goes on from there: headrace run chain.yaml" in done.stderr
        assert f"--max-cost {2 * limit:f}" in done.stderr
        assert not (folder / "out.jsonl").exists()
        assert (note(folder)["now"]["state"], note(folder)["now"]["reason"]) == (
            "stopped",
            "max_cost",
        )

        before = Counter(server.asked)
        again = run(folder, "--max-cost", f"{paid:f}")
        assert again.returncode == 4
        assert server.asked == before

        done = run(folder, "--max-cost", "1")
        assert done.returncode == 0, done.stderr
        assert set(server.asked.values()) == {1}
    assert written(folder) == expected()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PRICED.replace("    input_price_usd: 1\n    output_price_usd: 2\n", ""),
            "the price of the engine 'small' of step 'first' is not known; give input_price_usd",
        ),
        (PRICED.replace("    sampling: {{max_tokens: 10}}\n", "", 1), "give max_tokens"),
        (PRICED.replace("    output_price_usd: 2\n", ""), "output_price_usd is left out"),
        (
            PRICED.replace("    sampling:", "    tools: ['textwrap:dedent']\n    sampling:", 1),
            "how much the tools of step 'first' have to tell",
        ),
    ],
)
def test_a_budget_that_could_not_be_kept_is_refused_before_anything_is_asked(folder, text, said):
    with answering() as server:
        write_chain(folder, server, text)
        done = run(folder, "--max-cost", "1")
        assert not server.asked
    assert done.returncode == 1
    assert said in done.stderr


@given(
    costs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40),
    limit=st.integers(0, 60),
)
def test_no_budget_is_passed_in_whatever_order_requests_end(costs, limit):
    """Each request has a worst case and costs at most that; pauses shuffle their ends."""

    async def all_of_them() -> tuple[Decimal, int, int]:
        ends = []
        budget = Budget(Decimal(limit), Decimal(0), lambda: ends.append(1))
        refused = 0

        async def ask(place: int, most: int, pauses: int) -> None:
            nonlocal refused
            bill = Bill("s", Spent(), Spent())
            try:
                async with budget.aside(Decimal(most), Decimal(most), bill):
                    for _ in range(pauses):
                        await asyncio.sleep(0)
                    bill.spent.usd = Decimal(most if place % 2 else most // 2)
            except OutOfBudget:
                refused += 1

        await asyncio.gather(*(ask(at, *each) for at, each in enumerate(costs)))
        assert len(ends) == (1 if refused else 0)
        return (
            budget.spent,
            refused,
            sum(m if at % 2 else m // 2 for at, (m, _) in enumerate(costs)),
        )

    spent, refused, wanted = asyncio.run(all_of_them())
    assert spent <= limit
    if not refused:
        assert spent == wanted


def test_bills_of_works_beside_one_another_do_not_mix():
    async def both() -> Spending:
        spending = Spending()

        async def work(step: str, calls: int) -> int:
            with spending.bill(step) as bill:
                for _ in range(calls):
                    await asyncio.sleep(0)
                    bill.spent.calls += 1
                return bill.spent.calls

        assert await asyncio.gather(work("a", 3), work("b", 5)) == [3, 5]
        return spending

    assert set(asyncio.run(both()).running.values()) == {0}
