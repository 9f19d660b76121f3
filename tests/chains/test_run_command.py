"""``headrace run``: no row is lost, none is done twice, whatever happens on the way."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .answering import Answering, answering

ROWS = 120
CHAIN = """
engines:
  - name: small
    backend: openai-compatible
    model: m
    endpoint: {url}
steps:
  - id: first
    engine: small
    user: "one {{{{ text }}}}"
  - id: second
    engine: small
    user: "two {{{{ row.id }}}} {{{{ first }}}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def write_chain(folder: Path, server: Answering, text: str = CHAIN) -> None:
    (folder / "chain.yaml").write_text(text.format(url=server.url))


def command(*more: str) -> list[str]:
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    return [sys.executable, "-m", "headrace", *words]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*more), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def expected() -> list[dict[str, object]]:
    return [
        {
            "id": i,
            "input": {"id": i, "text": f"row {i}"},
            "output": f"<two {i} <one row {i}>>",
        }
        for i in range(ROWS)
    ]


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_every_row_has_its_answer_in_the_order_of_the_input(folder):
    with answering() as server:
        write_chain(folder, server)
        done = run(folder)
    assert done.returncode == 0, done.stderr
    assert written(folder) == expected()
    assert set(server.asked.values()) == {1}


def test_a_finished_run_that_is_run_again_asks_nobody_and_writes_the_same(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder).returncode == 0
        first = (folder / "out.jsonl").read_bytes()
        server.asked.clear()
        assert run(folder).returncode == 0
        assert not server.asked
    assert (folder / "out.jsonl").read_bytes() == first


def test_a_changed_last_step_asks_nothing_again_of_the_one_before(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder).returncode == 0
        server.asked.clear()
        write_chain(folder, server, CHAIN.replace('"two ', '"then '))
        assert run(folder).returncode == 0
        assert {prompt.split()[0] for prompt in server.asked} == {"then"}


def test_killed_anywhere_it_goes_on_to_the_same_output_with_little_done_twice(folder):
    chance, twice = random.Random(7), 0

    def slowly(prompt: str, before: int) -> str:
        time.sleep(0.01)
        return f"<{prompt}>"

    with answering(slowly) as server:
        write_chain(folder, server)
        for _ in range(4):
            process = subprocess.Popen(command("--concurrency", "4"), cwd=folder)
            time.sleep(0.5 + chance.random() * 0.4)
            process.kill()
            process.wait()
        done = run(folder, "--concurrency", "4")
        assert done.returncode == 0, done.stderr
        twice = sum(server.asked.values()) - 2 * ROWS
    assert written(folder) == expected()
    # What was asked in the last tenth of a second before each kill, and what was under way.
    assert twice <= 4 * 40


def test_one_interrupt_finishes_what_is_under_way_and_the_same_command_goes_on(folder):
    def slowly(prompt: str, before: int) -> str:
        time.sleep(0.02)
        return f"<{prompt}>"

    with answering(slowly) as server:
        write_chain(folder, server)
        process = subprocess.Popen(
            command("--concurrency", "4"), cwd=folder, stderr=subprocess.PIPE, text=True
        )
        while sum(server.asked.values()) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the same command goes on from there" in said
        assert not (folder / "out.jsonl").exists()
        assert run(folder).returncode == 0
        assert set(server.asked.values()) == {1}
    assert written(folder) == expected()


def test_what_fails_for_a_moment_is_asked_again_and_no_row_is_lost(folder):
    def faulty(prompt: str, before: int) -> object:
        fault = sum(map(ord, prompt)) % 10
        if before == 0 and fault == 0:
            return 429
        if before == 0 and fault == 1:
            return "reset"
        return f"<{prompt}>"

    with answering(faulty) as server:
        write_chain(folder, server)
        done = run(folder)
    assert done.returncode == 0, done.stderr
    assert written(folder) == expected()


def test_a_row_that_is_refused_is_told_of_and_all_others_go_on(folder):
    def refusing(prompt: str, before: int) -> object:
        return 400 if "row 7>" in prompt else f"<{prompt}>"

    with answering(refusing) as server:
        write_chain(folder, server)
        done = run(folder)
        assert done.returncode == 3
        assert "errors.jsonl" in done.stderr
        (error,) = [
            json.loads(line)
            for line in (folder / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()
        ]
        assert (error["id"], error["node"]) == (7, "second")
        assert "not now" in error["message"]
        assert written(folder) == [each for each in expected() if each["id"] != 7]
        server.asked.clear()
        assert run(folder).returncode == 3
        assert not server.asked


def test_who_did_not_answer_is_asked_again_by_the_next_run(folder):
    def down(prompt: str, before: int) -> object:
        return 503 if "row 3>" in prompt else f"<{prompt}>"

    with answering(down) as server:
        write_chain(folder, server)
        assert run(folder, "--retries", "1").returncode == 3
        server.answer = lambda prompt, before: f"<{prompt}>"
        done = run(folder)
        assert done.returncode == 0, done.stderr
    assert written(folder) == expected()


def test_rows_that_cannot_be_read_are_told_of_and_all_others_go_on(folder):
    with (folder / "in.jsonl").open("ab") as file:
        file.write(b'{"id": "no text"}\n\xff\xfe\n[1, 2]\n{"id": "cut", "te\n')
    with answering() as server:
        write_chain(folder, server)
        assert run(folder).returncode == 3
    lines = (folder / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()
    told = [(each["row"], each["node"]) for each in map(json.loads, lines)]
    assert told == [
        (ROWS, "first"),
        (ROWS + 1, "input"),
        (ROWS + 2, "input"),
        (ROWS + 3, "input"),
    ]
    assert written(folder) == expected()


def test_a_step_that_takes_too_long_is_told_of_and_tried_again_by_the_next_run(folder):
    def slow(prompt: str, before: int) -> str:
        time.sleep(6.0 if "row 5>" in prompt and not before else 0.0)
        return f"<{prompt}>"

    with answering(slow) as server:
        write_chain(folder, server, CHAIN + "    timeout_s: 3\n")
        assert run(folder, "--concurrency", "4").returncode == 3
        (error,) = (folder / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()
        assert json.loads(error)["error"] == "LLMTimeoutError"
        assert "timeout_s of 3 s ran out" in error
        assert run(folder).returncode == 0
    assert written(folder) == expected()


def test_lines_of_a_table_that_cannot_be_read_are_told_of_and_all_others_go_on(folder):
    table = "id,text\n0,row 0\n1,row 1,more\n2\n3,row 3\n"
    (folder / "in.csv").write_text(table)
    with answering() as server:
        write_chain(folder, server)
        words = ["run", "chain.yaml", "in.csv", "-o", "out.csv", "--no-progress"]
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 3, done.stderr
    lines = (folder / "out.csv.run" / "errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [1, 2]
    assert (folder / "out.csv").read_text() == (
        "id,text,output\n0,row 0,<two 0 <one row 0>>\n3,row 3,<two 3 <one row 3>>\n"
    )


def test_two_runs_on_one_folder_exclude_each_other(folder):
    def slowly(prompt: str, before: int) -> str:
        time.sleep(0.05)
        return f"<{prompt}>"

    with answering(slowly) as server:
        write_chain(folder, server)
        process = subprocess.Popen(command("--concurrency", "2"), cwd=folder)
        while not server.asked:
            time.sleep(0.01)
        second = run(folder)
        assert second.returncode == 1
        assert "another process works on" in second.stderr
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CHAIN.replace("engine: small", "engine: smal", 1), "did you mean 'small'?"),
        (CHAIN.replace("id: second", "id: first"), "two nodes have the id 'first'"),
        (CHAIN.replace("  - id: first", "  - ids: first"), "did you mean 'id'?"),
        (CHAIN.replace("{{{{ text }}}}", "{{{{ text"), "first.user, line 1"),
        (CHAIN.replace("    user:", "    output: Nobody\n    user:", 1), "must be one of models"),
        (CHAIN + "    timeout_s: 0\n", "timeout_s is 0.0; it must be > 0"),
        (CHAIN + "    asks: many\n", "asks is 'many'; a whole number is needed"),
        (
            CHAIN + "    sampling: {{tool_choice: auto}}\n",
            "a step has its tools and its output as fields of its own",
        ),
        (CHAIN + "  - {{id: x, apply: 'os:getcwd', how: twice}}\n", "how is 'twice'"),
        ("steps: []", "steps must be a list of at least one"),
        ("steps: [", "not YAML"),
    ],
)
def test_a_chain_that_cannot_run_is_refused_by_file_and_field(folder, text, said):
    with answering() as server:
        write_chain(folder, server, text)
        done = run(folder)
        assert not server.asked
    assert done.returncode == 1
    assert "chain.yaml" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_shows_the_first_prompts_and_asks_nobody(folder):
    with answering() as server:
        write_chain(folder, server)
        done = run(folder, "--dry-run")
        assert not server.asked
    assert json.loads(done.stdout)["first"][0] == {"id": 0, "system": None, "user": "one row 0"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(folder):
    (folder / "out.jsonl.run").write_text("a file")
    with answering() as server:
        write_chain(folder, server)
        done = run(folder)
        assert not server.asked
    assert done.returncode == 1
    assert "run_dir is 'out.jsonl.run', which cannot be made" in done.stderr
    assert "Traceback" not in done.stderr


PYTHON_CHAIN = """
import headrace
from headrace.chains import Chain, Step

headrace.register_engine(
    name="small", backend="openai-compatible", model="m", endpoint={url!r}
)
chain = Chain(
    Step(id="first", engine="small", user="one {{{{ text }}}}")
    >> Step(id="second", engine={engine!r}, user="two {{{{ row.id }}}} {{{{ first }}}}")
)
"""


def test_a_chain_in_python_has_the_engines_that_it_registers(folder):
    with answering() as server:
        (folder / "mine.py").write_text(PYTHON_CHAIN.format(url=server.url, engine="small"))
        words = command()
        words[words.index("chain.yaml")] = "mine:chain"
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    assert written(folder) == expected()


def test_a_chain_in_python_that_names_no_registered_engine_is_refused_with_near_ones(folder):
    (folder / "mine.py").write_text(PYTHON_CHAIN.format(url="http://127.0.0.1:1/v1", engine="smal"))
    words = command()
    words[words.index("chain.yaml")] = "mine:chain"
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "there is no engine 'smal'; did you mean 'small'?" in done.stderr


def test_what_an_engine_cannot_carry_out_is_left_out_and_told_of(folder):
    said = CHAIN.replace("openai-compatible", "openai").replace(
        "    engine: small", "    engine: small\n    sampling: {{top_k: 3}}", 1
    )
    with answering() as server:
        write_chain(folder, server, said.replace("model: m", "model: m\n    api_key: k"))
        done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "first: top_k is left out: openai has no such setting" in done.stderr
    assert written(folder) == expected()
