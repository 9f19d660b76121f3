"""What a run tells while it goes on and afterwards, to people and to programs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .answering import Answering, answering
from .test_run_command import CHAIN, ROWS, command, expected, run, write_chain, written

KEYED = CHAIN.replace("    endpoint", "    api_key: sk-very-secret\n    endpoint")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def headrace(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def slowly(prompt: str, before: int) -> str:
    time.sleep(0.02)
    return f"<{prompt}>"


def wait_for(server: Answering, asked: int) -> None:
    while sum(server.asked.values()) < asked:
        time.sleep(0.01)


def test_events_are_lines_of_json_without_prompts_and_keys(folder):
    def refusing(prompt: str, before: int) -> object:
        return 400 if "row 7>" in prompt else f"<{prompt}>"

    with answering(refusing) as server:
        write_chain(folder, server, KEYED)
        done = run(folder, "--json")
    assert done.returncode == 3
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert events[0]["nodes"] == ["first", "second"]
    assert {"event": "row_error", "id": 7, "row": 7, "node": "second"}.items() <= next(
        each for each in events if each["event"] == "row_error"
    ).items()
    end = events[-1]
    assert (end["status"], end["rows"], end["failed"], end["made"]) == (3, ROWS, 1, 2 * ROWS)
    told = done.stderr + (folder / "out.jsonl.run" / "run.json").read_text()
    assert "sk-very-secret" not in told
    assert "one row" not in told


def test_data_on_standard_output_has_nothing_else_in_it(folder):
    with answering() as server:
        write_chain(folder, server)
        done = headrace(folder, "run", "chain.yaml", "in.jsonl", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected()


def test_on_a_terminal_there_is_a_bar_for_each_node_and_a_line_for_each_engine(folder):
    with answering(slowly) as server:
        write_chain(folder, server)
        words = [each for each in command("--concurrency", "4") if each != "--no-progress"]
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            words,
            cwd=folder,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # how Linux tells that nobody has the other end any more
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        assert process.wait() == 0
    text = shown.decode()
    assert f"/{ROWS}" in text
    assert "of 4 asked now" in text
    assert "tok/s" in text
    assert text.rstrip().splitlines()[-1].count(f"{ROWS} of {ROWS} rows") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_end_says_the_command_that_goes_on(folder, number, status):
    with answering(slowly) as server:
        write_chain(folder, server)
        process = subprocess.Popen(
            command("--concurrency", "4"), cwd=folder, stderr=subprocess.PIPE, text=True
        )
        wait_for(server, 20)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == status
        goes_on = "headrace run chain.yaml in.jsonl -o out.jsonl --no-progress --concurrency 4"
        assert goes_on in said
        told = json.loads((folder / "out.jsonl.run" / "run.json").read_text())
        assert (told["now"]["state"], told["now"]["reason"]) == ("stopped", "interrupt")
        assert run(folder).returncode == 0
        assert set(server.asked.values()) == {1}
    assert written(folder) == expected()


def test_a_second_interrupt_does_not_wait_for_what_is_under_way(folder):
    def hanging(prompt: str, before: int) -> str:
        if "row 9" in prompt and not before:
            hung.append(prompt)
            released.wait(60)
        return f"<{prompt}>"

    hung: list[str] = []
    released = threading.Event()
    with answering(hanging) as server:
        write_chain(folder, server)
        process = subprocess.Popen(
            command("--concurrency", "4"), cwd=folder, stderr=subprocess.PIPE, text=True
        )
        while not hung:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "the same command goes on from there: headrace run" in said
        released.set()
        assert run(folder).returncode == 0
    assert written(folder) == expected()


def test_runs_are_listed_with_how_they_stand(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder).returncode == 0
        (listed,) = json.loads(headrace(folder, "runs", "list", "--json").stdout)
        assert (listed["folder"], listed["chain"], listed["rows"]) == (
            "out.jsonl.run",
            "chain",
            None,
        )
        assert listed["now"]["state"] == "finished"
        assert listed["now"]["spent"]["by_engine"]["small"]["calls"] == 2 * ROWS
        shown = headrace(folder, "runs", "show").stdout
        assert f"{ROWS} rows, {ROWS} results, 0 failed" in shown
        assert headrace(folder, "runs", "errors").stdout == "nothing failed\n"
        assert headrace(folder, "runs", "tail").stdout.startswith("finished: 120 rows")


def test_a_run_that_was_killed_is_known_as_such(folder):
    over = threading.Event()

    def stuck(prompt: str, before: int) -> str:
        if sum(server.asked.values()) > 20:
            over.wait(60)
        return f"<{prompt}>"

    with answering(stuck) as server:
        write_chain(folder, server)
        process = subprocess.Popen(command("--concurrency", "4"), cwd=folder)
        wait_for(server, 22)
        (running,) = json.loads(headrace(folder, "runs", "list", "--json").stdout)
        process.kill()
        process.wait()
        (killed,) = json.loads(headrace(folder, "runs", "list", "--json").stdout)
        over.set()
    assert (running["now"]["state"], killed["now"]["state"]) == ("running", "killed")


def test_a_run_of_another_process_is_followed_until_it_ends(folder):
    def refusing(prompt: str, before: int) -> object:
        time.sleep(0.02)
        return 400 if "row 7>" in prompt else f"<{prompt}>"

    with answering(refusing) as server:
        write_chain(folder, server)
        process = subprocess.Popen(command("--concurrency", "4"), cwd=folder)
        wait_for(server, 20)
        done = headrace(folder, "runs", "tail", "out.jsonl.run", "--json")
        assert process.wait() == 3
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["id"] for e in events if e["event"] == "row_error"] == [7]
    assert events[-1]["now"]["state"] == "finished"


def test_what_failed_is_grouped_by_node_and_reason(folder):
    def refusing(prompt: str, before: int) -> object:
        return 400 if prompt.startswith("two 1") else f"<{prompt}>"

    with answering(refusing) as server:
        write_chain(folder, server)
        assert run(folder).returncode == 3
    groups = json.loads(headrace(folder, "runs", "errors", "--json", "--examples", "2").stdout)
    (group,) = groups
    failing = sum(str(i).startswith("1") for i in range(ROWS))
    assert (group["node"], group["count"], len(group["examples"])) == ("second", failing, 2)


def test_a_folder_without_a_run_is_a_clear_error(folder):
    done = headrace(folder, "runs", "show", ".")
    assert done.returncode == 1
    assert "there is no run in '.'" in done.stderr


def test_a_sample_is_the_same_for_the_same_seed_and_in_the_order_of_the_input(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder, "--sample", "10", "--seed", "3").returncode == 0
        first = [each["id"] for each in written(folder)]
        assert run(folder, "--sample", "10", "--seed", "3").returncode == 0
        assert [each["id"] for each in written(folder)] == first
        assert run(folder, "--sample", "10", "--seed", "4").returncode == 0
        assert [each["id"] for each in written(folder)] != first
    assert len(first) == 10
    assert first == sorted(first)
    assert first != list(range(10))


def test_a_dry_run_reckons_with_what_was_seen_before(folder):
    priced = CHAIN.replace(
        "    endpoint", "    input_price_usd: 1\n    output_price_usd: 2\n    endpoint"
    )
    with answering() as server:
        write_chain(folder, server, priced)
        before = json.loads(run(folder, "--dry-run").stdout)
        assert run(folder, "--limit", "20").returncode == 0
        server.asked.clear()
        after = json.loads(run(folder, "--dry-run").stdout)
        assert not server.asked
    assert (before["rows"], before["estimate"]["requests"]) == (ROWS, 2 * ROWS)
    assert before["estimate"]["seconds"] is None
    assert before["steps"][0]["first"][0]["user"] == "one row 0"
    assert before["steps"][1]["first"] == []
    assert after["estimate"]["completion_tokens"] == 2 * 2 * ROWS
    assert after["estimate"]["seconds"] is not None
    assert any("20 seen before" in each for each in after["assumed"])
