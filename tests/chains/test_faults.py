"""Servers that fail: no row is lost, none is asked more often than its faults made necessary."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from headrace.chains import Chain, Step
from headrace.chains.calling import Result, arun
from headrace.chains.pace import PaceSettings
from headrace.chains.running import RunSettings
from headrace.contracts.engines import EngineConfig

from .answering import Answer, Answering, answering

ROWS = 400
WORD = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
FAULTS = (((429, 0.2), 0.05), ("truncated", 0.02), ("cut", 0.01), ("reset", 0.01), (500, 0.01))
CHAIN = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: "{url}"}}
steps:
  - {{id: first, engine: small, user: "one {{{{ text }}}}"}}
"""


def chain_of_two() -> Chain:
    first = Step(id="first", engine="small", user="one {{ text }}", output=WORD)
    return Chain(first >> Step(id="second", engine="small", user="two {{ word }}", output=WORD))


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    return [{"id": i, "text": f"row {i}"} for i in range(count)]


def results(server: Answering, chain: Chain, folder: Path, **settings: Any) -> list[Result]:
    engine = EngineConfig(name="small", backend="openai-compatible", model="m", endpoint=server.url)

    async def main() -> list[Result]:
        made = RunSettings(run_dir=folder, engines=(engine,), **{"concurrency": 16, **settings})
        return [each async for each in arun(chain, rows(), settings=made)]

    return asyncio.run(main())


def faulty(shares: Any = FAULTS, met: Counter[Any] | None = None) -> Answer:
    """Faults by chance, and else an object with the prompt in it."""
    chance = Random(7)

    def answer(prompt: str, before: int) -> Any:
        draw = chance.random()
        for fault, share in shares:
            draw -= share
            if draw < 0:
                if met is not None:
                    met[fault] += 1
                return '{"word": "' if fault == "truncated" else fault
        return json.dumps({"word": f"<{prompt[-40:]}>"})

    return answer


def test_under_faults_no_row_is_lost_and_each_fault_costs_one_request(tmp_path):
    met: Counter[Any] = Counter()
    with answering(faulty(met=met)) as server:
        made = results(server, chain_of_two(), tmp_path)
    assert [each.id for each in made] == list(range(ROWS))
    assert all(each.values and each.values[0]["word"] for each in made)
    assert not any(each.errors for each in made)
    assert set(met) == {fault for fault, _ in FAULTS}
    least = 2 * ROWS + sum(met.values())
    assert sum(server.asked.values()) <= 1.01 * least


def test_answers_that_never_come_are_given_up_and_asked_for_again(tmp_path):
    met: Counter[Any] = Counter()
    with answering(faulty((("hang", 0.01),), met)) as server:
        made = results(server, chain_of_two(), tmp_path, pace=PaceSettings(least_cut_s=1.0))
    assert met["hang"]
    assert [len(each.values) for each in made] == [1] * ROWS
    assert sum(server.asked.values()) <= 1.01 * (2 * ROWS + met["hang"])


def test_asking_again_ends_with_its_tokens_and_the_row_says_so(tmp_path):
    step = Step(id="first", engine="small", user="one {{ text }}", output=WORD, ask_tokens=0)
    with answering(lambda prompt, before: "no object") as server:
        made = results(server, Chain(step), tmp_path)
    assert all(each.errors[0].error == "LLMOutputError" for each in made)
    assert "budget_tokens=0" in made[0].errors[0].message
    assert set(server.asked.values()) == {1}


def test_a_steps_time_begins_with_its_request_and_not_with_its_wait_for_a_place(tmp_path):
    def slow(prompt: str, before: int) -> Any:
        time.sleep(0.05)
        return "done"

    step = Step(id="first", engine="small", user="one {{ text }}", timeout_s=2.0)
    with answering(slow) as server:
        made = results(server, Chain(step), tmp_path, concurrency=2)
    assert [each.values for each in made] == [("done",)] * ROWS


def test_a_step_whose_time_is_over_ends_the_row(tmp_path):
    step = Step(id="first", engine="small", user="one {{ text }}", timeout_s=0.5)
    with answering(lambda prompt, before: "hang" if prompt == "one row 3" else "done") as server:
        made = results(server, Chain(step), tmp_path)
    assert [each.id for each in made if each.errors] == [3]
    assert made[3].errors[0].error == "LLMTimeoutError"


def run(folder: Path, url: str | None, *more: str) -> subprocess.CompletedProcess[str]:
    if url is not None:
        (folder / "chain.yaml").write_text(CHAIN.format(url=url))
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    (folder / "in.jsonl").write_text(lines)
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HEADRACE_STATE": str(folder / "state")},
    )


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_target_that_refuses_everybody_stops_the_run_and_the_next_one_goes_on(tmp_path, status):
    with answering(lambda prompt, before: status) as server:
        stopped = run(tmp_path, server.url)
        asked = sum(server.asked.values())
    assert stopped.returncode == 1
    assert "engine 'small' cannot be used any more" in stopped.stderr
    assert "Check its" in stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert asked <= 64
    assert not (tmp_path / "out.jsonl").exists()
    with answering() as server:
        assert run(tmp_path, server.url).returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == ROWS


def test_a_key_that_is_taken_back_midway_keeps_what_was_done(tmp_path):
    asked: Counter[str] = Counter()

    def answer(prompt: str, before: int) -> Any:
        asked[prompt] += 1
        return 401 if len(asked) > ROWS // 2 else f"<{prompt}>"

    with answering(answer) as server:
        stopped = run(tmp_path, server.url)
    assert stopped.returncode == 1
    assert (tmp_path / "out.jsonl.run" / "errors.jsonl").exists() is False
    with answering() as server:
        done = run(tmp_path, server.url)
        again = len(server.asked)
    assert done.returncode == 0, done.stderr
    assert again <= ROWS - ROWS // 2


def test_nobody_listening_stops_the_run(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        stopped = run(tmp_path, f"http://127.0.0.1:{port}/v1", "--retries", "0")
    assert stopped.returncode == 1
    assert "Connection refused" in stopped.stderr
    assert "Check that it runs" in stopped.stderr


def test_an_engine_that_does_not_start_stops_the_run(tmp_path):
    (tmp_path / "chain.yaml").write_text(
        """
engines:
  - {name: local, backend: command, model: m, command: [no-such-program, --port, "{port}"]}
steps:
  - {id: first, engine: local, user: "{{ text }}"}
"""
    )
    stopped = run(tmp_path, None)
    assert stopped.returncode == 1
    assert "engine 'local' cannot be used any more" in stopped.stderr
    assert "no-such-program" in stopped.stderr


def test_limits_of_one_key_that_differ_are_refused(tmp_path):
    (tmp_path / "chain.yaml").write_text(
        """
engines:
  - {name: one, backend: openai, model: a, api_key: k, requests_per_minute: 100}
  - {name: two, backend: openai, model: b, api_key: k, requests_per_minute: 200}
steps:
  - {id: first, engine: one, user: "{{ text }}"}
  - {id: second, engine: two, user: "{{ first }}"}
"""
    )
    done = run(tmp_path, None)
    assert done.returncode != 0
    assert "'one' and 'two'" in done.stderr
    assert "requests_per_minute are 100 and 200" in done.stderr
