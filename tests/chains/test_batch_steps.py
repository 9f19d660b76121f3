"""Steps in batches: handed in once, whatever happens; matched by id, in order, for all vendors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from typer.testing import CliRunner

from headrace.chains import Step
from headrace.cli.main import app_of
from headrace.contracts.errors import LLMError

from .batch_vendors import Vendors, vendors

ROWS = 12
VENDORS = ("openai", "anthropic", "mistral")
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-0", "mistral": "m"}
BEGIN = {
    "openai": "POST batches",
    "anthropic": "POST messages/batches",
    "mistral": "POST batch/jobs",
}
ENGINE = """
engines:
  - {{name: cheap, backend: {backend}, model: {model}, endpoint: "{url}", api_key: k}}
"""
CHAIN = """
steps:
  - {{id: first, engine: cheap, user: "one {{{{ text }}}}", mode: batch{more}}}
  - {{id: second, engine: cheap, user: "two {{{{ first }}}}"}}
"""


@pytest.fixture
def server() -> Iterator[Vendors]:
    with vendors() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"id": i, "text": f"t{i % (ROWS - 2)}"} for i in range(ROWS)]  # the last two are equal
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def write_chain(
    folder: Path, server: Vendors, vendor: str, chain: str = CHAIN, more: str = ""
) -> None:
    engine = ENGINE.format(backend=vendor, model=MODELS[vendor], url=server.url(vendor))
    (folder / "chain.yaml").write_text(engine + chain.format(more=more))


def begin(folder: Path, *more: str) -> subprocess.Popen[str]:
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


@frozen
class Ended:
    returncode: int
    stderr: str


def run(folder: Path, *more: str) -> Ended:
    """The same in this process, which is over sooner."""
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    with chdir(folder):
        done = CliRunner().invoke(app_of(("run", "engines")), words)
    if isinstance(done.exception, SystemExit | None):
        return Ended(done.exit_code, done.stderr)
    assert isinstance(done.exception, LLMError), done.exception
    return Ended(done.exit_code, str(done.exception))


def outputs(folder: Path) -> list[Any]:
    return [json.loads(line)["output"] for line in (folder / "out.jsonl").read_text().splitlines()]


def errors(folder: Path) -> list[dict[str, Any]]:
    path = folder / "out.jsonl.run" / "errors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def wanted() -> list[str]:
    return [f"<two <one t{i % (ROWS - 2)}>>" for i in range(ROWS)]


def until(holds: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("vendor", VENDORS)
def test_rows_go_through_one_batch_and_come_out_in_their_order(server, folder, vendor):
    write_chain(folder, server, vendor)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1
    assert all(count == 1 for count in server.asked.values())
    assert not any(prompt.startswith("one") for prompt in server.live)
    assert run(folder).returncode == 0
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("vendor", "moment"),
    [
        (vendor, moment)
        for vendor in VENDORS
        for moment in ("upload", "begin", "wait", "results", "after")
        if (vendor, moment) != ("anthropic", "upload")  # nothing is uploaded there
    ],
)
def test_a_run_that_is_killed_at_any_moment_begins_no_second_batch(server, folder, vendor, moment):
    call = {
        "upload": r"POST files",
        "begin": BEGIN[vendor],
        "wait": r"GET \S*batch\S*_0",
        "results": r"GET (files/.*/content|.*/results)",
        "after": r"POST (chat/completions|messages)",
    }[moment]
    write_chain(folder, server, vendor)
    running: list[subprocess.Popen[str]] = []

    def kill(seen: str) -> None:
        if running and re.fullmatch(call, seen):
            process = running.pop()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    server.before = kill
    process = begin(folder)
    running.append(process)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1
    assert server.calls("POST files") <= 2
    assert all(count == 1 for name, count in server.asked.items() if name.startswith("one"))


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_batch_whose_beginning_was_not_heard_of_is_found_again(server, folder, vendor):
    server.reset = [BEGIN[vendor]]
    write_chain(folder, server, vendor)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_calls_that_are_refused_for_now_are_made_again(server, folder, vendor):
    server.refuse = {BEGIN[vendor]: [429, 503], "POST files": [500]}
    write_chain(folder, server, vendor)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1


def test_results_that_were_cut_short_are_read_again(server, folder):
    server.cut = ["GET files/file-1/content"]
    write_chain(folder, server, "openai")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert server.calls("GET files/file-1/content") == 2
    assert not any(prompt.startswith("one") for prompt in server.live)


def test_somebody_elses_batch_of_the_same_size_is_not_taken_for_ours(server, folder):
    params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}

    def another(call: str) -> None:
        if call == BEGIN["anthropic"] and not server.batches:
            server.make("anthropic", [(f"other-{n}", params) for n in range(ROWS - 2)])

    server.before = another
    server.refuse = {BEGIN["anthropic"]: [503]}
    write_chain(folder, server, "anthropic")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 2


def test_ctrl_c_leaves_the_batch_running_and_the_next_run_picks_it_up(server, folder):
    server.ready.clear()
    write_chain(folder, server, "openai")
    process = begin(folder)
    until(lambda: server.calls(r"GET batches/batch_0") > 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "batch_0" in told
    assert "first" in told
    server.ready.set()
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1
    assert server.batches["batch_0"]["status"] == "completed"


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_failed_in_the_batch_is_asked_live(server, folder, vendor):
    def answer(prompt: str, before: int) -> Any:
        if before == 0 and prompt == "one t3":
            return 500
        return "expired" if before == 0 and prompt == "one t4" else f"<{prompt}>"

    server.answer = answer
    write_chain(folder, server, vendor)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert len(server.batches) == 1
    assert {prompt for prompt in server.live if prompt.startswith("one")} == {"one t3", "one t4"}


def test_or_in_one_more_batch_and_then_told_of_as_failed(server, folder):
    def answer(prompt: str, before: int) -> Any:
        if prompt == "one t3":
            return 500
        return "expired" if before == 0 and prompt == "one t4" else f"<{prompt}>"

    server.answer = answer
    write_chain(folder, server, "openai", more=", batch_retry: batch")
    done = run(folder)
    assert done.returncode == 3
    assert [len(each["requests"]) for each in server.batches.values()] == [ROWS - 2, 2]
    assert not any(prompt.startswith("one") for prompt in server.live)
    assert [each["node"] for each in errors(folder)] == ["first"]
    server.answer = lambda prompt, before: f"<{prompt}>"
    assert run(folder).returncode == 0
    assert outputs(folder) == wanted()
    assert [len(each["requests"]) for each in server.batches.values()] == [ROWS - 2, 2, 1]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_request_that_is_refused_for_good_is_asked_once(server, folder, vendor):
    server.answer = lambda prompt, before: 400 if prompt == "one t3" else f"<{prompt}>"
    write_chain(folder, server, vendor)
    assert run(folder).returncode == 3
    assert [each["node"] for each in errors(folder)] == ["first"]
    assert server.asked["one t3"] == 1
    assert run(folder).returncode == 3
    assert server.asked["one t3"] == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_answer_that_is_no_object_is_asked_for_again_live(server, folder, vendor):
    def answer(prompt: str, before: int) -> Any:
        if prompt.startswith("one t3"):
            return "nonsense"
        return '{"n": 7}'

    server.answer = answer
    chain = """
models:
  Number: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}
steps:
  - {{id: first, engine: cheap, user: "one {{{{ text }}}}", mode: batch, output: Number{more}}}
"""
    write_chain(folder, server, vendor, chain)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == [{"n": 7}] * ROWS
    (batch,) = server.batches.values()
    way = "tool_choice" if vendor == "anthropic" else "response_format"
    assert all(way in body for _, body in batch["requests"])
    assert server.asked["one t3"] == 1
    assert sum(server.live.values()) == 1


def test_a_batch_that_takes_too_long_is_cancelled_and_the_rest_is_asked_live(server, folder):
    server.ready.clear()
    write_chain(folder, server, "openai", more=", max_wait_s: 0.5")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert server.batches["batch_0"]["status"] == "cancelled"
    assert sum(1 for prompt in server.live if prompt.startswith("one")) == (ROWS - 2) / 2


def test_a_batch_that_somebody_cancelled_is_not_asked_live(server, folder):
    server.ready.clear()
    write_chain(folder, server, "openai")
    process = begin(folder)
    until(lambda: server.calls(r"GET batches/batch_0") > 1)
    server.batches["batch_0"]["status"] = "cancelling"
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert not any(prompt.startswith("one") for prompt in server.live)
    server.ready.set()
    assert run(folder).returncode == 0
    assert outputs(folder) == wanted()


def test_a_batch_that_fails_as_a_whole_ends_the_run_with_the_reason(server, folder):
    server.problem = "Enqueued token limit reached."
    write_chain(folder, server, "openai")
    done = run(folder)
    assert done.returncode not in (0, 3)
    assert "Enqueued token limit reached." in done.stderr
    assert "first" in done.stderr
    server.problem = None
    assert run(folder).returncode == 0
    assert outputs(folder) == wanted()


def test_a_batch_that_its_provider_does_not_know_any_more_is_told_of(server, folder):
    server.ready.clear()
    write_chain(folder, server, "openai")
    process = begin(folder)
    until(lambda: server.calls(r"GET batches/batch_0") > 1)
    process.kill()
    process.communicate(timeout=60)
    server.batches["batch_0"]["vendor"] = "another"
    done = run(folder)
    assert done.returncode == 1
    assert "batch_0" in done.stderr
    assert "batches.sqlite" in done.stderr
    (folder / "out.jsonl.run" / "batches.sqlite").unlink()
    server.ready.set()
    assert run(folder).returncode == 0
    assert outputs(folder) == wanted()


def test_a_step_that_was_changed_meanwhile_is_asked_anew(server, folder):
    server.ready.clear()
    write_chain(folder, server, "openai")
    process = begin(folder)
    until(lambda: server.calls(r"GET batches/batch_0") > 1)
    process.kill()
    process.communicate(timeout=60)
    server.ready.set()
    write_chain(folder, server, "openai", CHAIN.replace("one ", "One "))
    assert run(folder).returncode == 0
    assert outputs(folder) == [f"<two <One t{i % (ROWS - 2)}>>" for i in range(ROWS)]
    assert len(server.batches) == 2


def test_two_steps_in_batches_behind_one_another_have_one_each(server, folder):
    write_chain(
        folder,
        server,
        "mistral",
        CHAIN.replace('{{{{ first }}}}"', '{{{{ first }}}}", mode: batch'),
    )
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == wanted()
    assert [len(each["requests"]) for each in server.batches.values()] == [ROWS - 2, ROWS - 2]
    assert not server.live


def test_batches_beside_one_another_run_at_the_same_time(server, folder):
    chain = """
steps:
  - parallel:
      - {{id: left, engine: cheap, user: "left {{{{ text }}}}", mode: batch}}
      - {{id: right, engine: cheap, user: "right {{{{ text }}}}", mode: batch}}
  - join: both
  - {{id: last, engine: cheap, user: "last {{{{ both.left }}}} {{{{ both.right }}}}", mode: batch{more}}}
"""
    server.ready.clear()
    write_chain(folder, server, "openai", chain)
    process = begin(folder)
    until(lambda: len(server.batches) == 2)
    server.ready.set()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert outputs(folder) == [f"<last <left t{i % 10}> <right t{i % 10}>>" for i in range(ROWS)]
    assert len(server.batches) == 3


def test_a_step_is_done_in_batches_or_live_and_both_know_what_the_other_did(server, folder):
    write_chain(folder, server, "openai", more=", batch_retry: live")
    assert run(folder).returncode == 0
    asked = sum(server.asked.values())
    write_chain(folder, server, "openai", CHAIN.replace("mode: batch", "mode: live"))
    assert run(folder).returncode == 0
    assert sum(server.asked.values()) == asked


def test_a_batch_is_begun_only_where_it_keeps_within_the_budget(server, folder):
    chain = """
steps:
  - {{id: first, engine: cheap, user: "one {{{{ text }}}}", mode: batch, sampling: {{max_tokens: 9}}{more}}}
"""
    write_chain(folder, server, "openai", chain)
    text = (folder / "chain.yaml").read_text()
    priced = text.replace("api_key: k", "api_key: k, input_price_usd: 1, output_price_usd: 1")
    (folder / "chain.yaml").write_text(priced)
    done = run(folder, "--max-cost", "0.0001")
    assert done.returncode == 4, done.stderr
    assert server.batches == {}
    done = run(folder, "--max-cost", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == [f"<one t{i % (ROWS - 2)}>" for i in range(ROWS)]
    end = json.loads(done.stderr.splitlines()[-1])
    assert Decimal(end["usd"]) == (ROWS - 2) * 5 * Decimal("0.000001")
    assert end["spent"]["first"]["calls"] == ROWS - 2


def test_what_a_reduce_brings_together_is_asked_in_a_batch_as_well(server, folder):
    chain = """
steps:
  - {{id: first, engine: cheap, user: "one {{{{ text }}}}", mode: batch}}
  - {{id: all, reduce: "builtins:len", by: row.text}}
  - {{id: told, engine: cheap, user: "of {{{{ all }}}}", mode: batch{more}}}
"""
    write_chain(folder, server, "openai", chain)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert sorted(outputs(folder)) == ["<of 1>"] * (ROWS - 4) + ["<of 2>"] * 2
    assert [len(each["requests"]) for each in server.batches.values()] == [ROWS - 2, 2]


def test_tools_and_batches_do_not_go_together():
    def look_up(word: str) -> str:
        """What it means."""
        return word

    with pytest.raises(ValueError, match="mode is 'batch', and tools are given"):
        Step(id="s", engine="e", user="x", mode="batch", tools=(look_up,))


def test_an_engine_without_a_batch_api_is_refused_before_anything_is_asked(server, folder):
    write_chain(folder, server, "openai")
    text = (folder / "chain.yaml").read_text().replace("backend: openai", "backend: lmstudio")
    (folder / "chain.yaml").write_text(text)
    done = run(folder)
    assert done.returncode not in (0, 3)
    assert "first" in done.stderr
    assert "batch" in done.stderr
    assert not server.seen
