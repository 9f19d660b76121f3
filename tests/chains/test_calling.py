"""Chains called from Python, with and without an event loop around."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.chains import Apply, Chain, Step, arun, run, run_iter
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

from .answering import answering
from .test_run_command import CHAIN

LOUD = Chain(Apply(id="loud", function=lambda row: row["text"].upper(), version="1"))
ROWS: list[dict[str, Any]] = [{"id": f"r{i}", "text": f"t{i}"} for i in range(9)]


def test_results_come_in_the_order_of_the_rows_and_know_them():
    results = run(LOUD, ROWS)
    assert [(each.id, each.value, each.error) for each in results] == [
        (f"r{i}", f"T{i}", None) for i in range(9)
    ]


def test_what_failed_is_an_error_in_its_rows_place():
    good, bad = run(LOUD, [{"text": "a"}, {"id": 2}])
    assert (good.value, good.error) == ("A", None)
    assert (bad.id, bad.value) == (2, None)
    assert bad.error is not None
    assert (bad.error.node, bad.error.error) == ("loud", "KeyError")


def test_it_runs_where_a_loop_runs_already():
    async def inside() -> tuple[list[Any], list[Any]]:
        blocking = [each.value for each in run(LOUD, ROWS)]
        return blocking, [each.value async for each in arun(LOUD, ROWS)]

    blocking, awaited = asyncio.run(inside())
    assert blocking == awaited == [f"T{i}" for i in range(9)]


def test_rows_of_an_endless_iterator_are_taken_as_they_are_needed():
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield {"text": "t"}

    results = run_iter(LOUD, endless(), concurrency=2)
    assert next(results).value == "T"
    results.close()
    assert taken < 5000


def test_a_chain_and_rows_may_be_files_and_what_was_done_is_kept_in_its_folder(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with answering() as server:
        (tmp_path / "chain.yaml").write_text(CHAIN.format(url=server.url))
        for _ in range(2):
            results = run(tmp_path / "chain.yaml", tmp_path / "in.jsonl", run_dir=tmp_path / "run")
            assert results[3].value == "<two r3 <one t3>>"
            assert (results[3].used.prompt_tokens, results[3].used.usd) == (6, None)
        assert set(server.asked.values()) == {1}


def test_a_chain_in_python_may_bring_its_engines():
    with answering() as server:
        engine = EngineConfig(
            name="mine", backend="openai-compatible", model="m", endpoint=server.url
        )
        chain = Chain(Step(id="only", engine="mine", user="say {{ text }}"))
        results = run(chain, ROWS[:2], engines=(engine,))
    assert [each.value for each in results] == ["<say t0>", "<say t1>"]


def test_a_function_may_call_a_client_or_a_chain_and_wait_for_it():
    with answering() as server:
        asked = Client(
            engine=EngineConfig(
                name="mine", backend="openai-compatible", model="m", endpoint=server.url
            )
        )

        def both(row: dict[str, Any]) -> list[str]:
            return [asked.chat(row["text"]).text, run(LOUD, [row])[0].value]

        (result,) = run(Chain(Apply(id="both", function=both, version="1")), ROWS[:1])
        asked.close()
    assert result.error is None, result.error
    assert result.value == ["<t0>", "T0"]


def test_settings_are_given_in_one_way(tmp_path: Path):
    from headrace.chains import RunSettings

    with pytest.raises(LLMInvalidRequestError, match="'concurrency' was given beside settings"):
        run(LOUD, ROWS, settings=RunSettings(run_dir=tmp_path), concurrency=3)
