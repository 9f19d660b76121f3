"""``headrace run --on ray``: the output of a run on one machine, whichever workers come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from bench.load.test_hosts import offspring
from headrace.chains.cluster.reports import Report, report_from_plain, report_to_plain, sum_of
from headrace.chains.standing import BatchStanding, NodeStanding, Standing

from .answering import Answering, answering
from .test_engines_in_turn import left_over, starts
from .test_engines_in_turn import write_chain as write_engines

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed here; `make test-ray` runs these"
)
ROWS = 90
BROKEN = 33
CHAIN = """
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
    user_file: first.txt
  - {{id: words, apply: "rules:words", how: many}}
  - id: second
    engine: small
    user: "two {{{{ row.id }}}} {{{{ value }}}}"
"""
RULES = """
import os

def words(value):
    if "row 7>" in value:
        raise ValueError("no sevens")
    return [value, value.upper()]

def deadly(value):
    if "row 7>" in value:
        os._exit(3)
    return [value]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes, a processor each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster()
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    made.wait_for_nodes()
    yield made.address
    nodes = [node.all_processes["raylet"][0].process.pid for node in made.worker_nodes]
    nodes.append(made.head_node.all_processes["raylet"][0].process.pid)
    below = {pid for node in nodes for pid in offspring(node)}
    made.shutdown()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "the workers' end")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in range(ROWS)]
    lines[BROKEN] = "{no json"
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "first.txt").write_text("one {{ text }}")
    (tmp_path / "rules.py").write_text(RULES)
    return tmp_path


def write_chain(folder: Path, server: Answering, text: str = CHAIN) -> None:
    (folder / "chain.yaml").write_text(text.format(url=server.url))


def command(*more: str) -> list[str]:
    words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
    return [sys.executable, "-m", "headrace", *words]


def run(folder: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **env},
    )


def here(folder: Path, *more: str) -> tuple[bytes, bytes]:
    """What a run on this machine alone writes: results and errors."""
    done = run(folder, *more, "-o", "here.jsonl")
    assert done.returncode in (0, 3), done.stderr
    return (folder / "here.jsonl").read_bytes(), (
        folder / "here.jsonl.run" / "errors.jsonl"
    ).read_bytes()


def there(folder: Path) -> tuple[bytes, bytes]:
    """What the run on the cluster wrote."""
    return (folder / "out.jsonl").read_bytes(), (
        folder / "out.jsonl.run" / "errors.jsonl"
    ).read_bytes()


def slowly(prompt: str, before: int) -> Any:
    time.sleep(0.05)
    return f"<{prompt}>"


def until(true: Callable[[], object], what: str) -> None:
    for _ in range(2400):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within two minutes")


def workers_of(folder: Path) -> list[int]:
    """The processes that work on partitions: those that hold a journal of the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            files = [each.readlink() for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(folder / "out.jsonl.run" / "partitions" in each.parents for each in files):
            found.append(int(process.name))
    return found


@pytest.mark.skipif(find_spec("ray") is not None, reason="this is about not having Ray")
def test_without_ray_one_line_says_what_to_install(folder):
    with answering() as server:
        write_chain(folder, server)
        done = run(folder, "--on", "ray")
    assert done.returncode == 1
    assert "pip install 'headrace[ray]'" in done.stderr
    assert not server.asked


def test_a_run_goes_on_only_where_it_was_begun(folder):
    with answering() as server:
        write_chain(folder, server)
        assert run(folder).returncode == 3
        server.asked.clear()
        done = run(folder, "--on", "ray")
        assert not server.asked
    assert done.returncode == 1
    assert "was begun without --on" in done.stderr


def test_what_a_cluster_cannot_do_is_refused_before_anything_starts(folder):
    with answering() as server:
        write_chain(folder, server)
        alone = run(folder, "--workers", "2")
        write_chain(
            folder,
            server,
            "engines:\n"
            "  - {{name: a, backend: command, model: m, command: [x, '{{port}}']}}\n"
            "  - {{name: b, backend: command, model: m, command: [x, '{{port}}']}}\n"
            "steps:\n"
            "  - {{id: one, engine: a, user: hi}}\n"
            "  - {{id: two, engine: b, user: ho}}\n",
        )
        turns = run(folder, "--on", "ray")
        write_chain(
            folder,
            server,
            "engines:\n"
            "  - {{name: a, backend: openai-compatible, model: m, endpoint: {url}}}\n"
            "steps:\n"
            "  - {{id: one, engine: a, user: hi, mode: batch}}\n",
        )
        batches = run(folder, "--on", "ray")
    assert (alone.returncode, turns.returncode, batches.returncode) == (1, 1, 1)
    assert "one is asked in batches" in batches.stderr
    assert "say --on ray too" in alone.stderr
    assert "engines 'a' and 'b' take turns" in turns.stderr


def test_what_partitions_tell_arrives_and_is_added_up():
    batch = BatchStanding(
        step="one", provider="openai", id="b", phase="begun", total=3, done=1, failed=0
    )
    counts = {f.name: 2 for f in fields(Standing) if f.name not in ("nodes", "batches")}
    standing = Standing(**counts, nodes={"one": NodeStanding(3, 2, 1)}, batches={"b": batch})
    report = Report(standing=standing, usd_at_most=Decimal("0.25"))
    assert report_from_plain(report_to_plain(report)) == report
    twice = {name: 2 * count for name, count in counts.items()}
    assert sum_of([standing, standing]) == Standing(
        **twice, nodes={"one": NodeStanding(6, 4, 2)}, batches={"b": batch}
    )


@needs_ray
def test_the_output_is_that_of_a_run_on_one_machine_and_once_more_asks_nobody(folder):
    with answering() as server:
        write_chain(folder, server)
        expected = here(folder)
        asked = dict(server.asked)
        server.asked.clear()
        # Without an address: a Ray of its own, which is gone afterwards.
        first = run(folder, "--on", "ray", "--workers", "2", "--json")
        assert first.returncode == 3, first.stderr
        assert there(folder) == expected
        assert dict(server.asked) == asked
        end = json.loads(first.stderr.splitlines()[-1])
        assert (end["event"], end["rows"], end["results"]) == ("end", ROWS, 2 * (ROWS - 2))
        usage = {"prompt_tokens": 3 * len(asked), "completion_tokens": 2 * len(asked)}
        assert {name: end[name] for name in usage} == usage
        assert float(end["usd"]) == pytest.approx(len(asked) * (3 + 2 * 2) / 1e6)
        assert end["nodes"][0]["done"] == ROWS - 1
        server.asked.clear()
        second = run(folder, "--on", "ray", "--workers", "1")
        assert second.returncode == 3, second.stderr
        assert not server.asked
    assert there(folder) == expected
    listed = subprocess.run(
        [sys.executable, "-m", "headrace", "runs", "list", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    runs = {Path(each["folder"]).name: each for each in json.loads(listed.stdout)}
    assert set(runs) == {"out.jsonl.run", "here.jsonl.run"}  # partitions are no runs of their own


@needs_ray
def test_the_work_of_a_worker_that_is_killed_is_taken_up_by_another(folder, cluster):
    with answering(slowly) as server:
        write_chain(folder, server)
        expected = here(folder)
        asked = len(server.asked)
        server.asked.clear()
        words = ("--on", "ray", "--ray-address", cluster, "--concurrency", "4")
        process = subprocess.Popen(command(*words), cwd=folder, stderr=subprocess.PIPE, text=True)
        killed = 0
        for share in (0.2, 0.5):
            until(lambda s=share: len(server.asked) > s * asked, "some requests")
            for pid in workers_of(folder)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        _, said = process.communicate(timeout=300)
        assert process.returncode == 3, said
        assert killed == 2
        assert there(folder) == expected
        # What was under way, and what a journal had not written yet.
        assert sum(server.asked.values()) - asked <= killed * (2 + 8)


@needs_ray
def test_a_command_that_is_killed_goes_on_where_it_was(folder, cluster):
    with answering(slowly) as server:
        write_chain(folder, server)
        expected = here(folder)
        asked = len(server.asked)
        server.asked.clear()
        words = ("--on", "ray", "--ray-address", cluster, "--concurrency", "4")
        process = subprocess.Popen(command(*words), cwd=folder, stderr=subprocess.DEVNULL)
        until(lambda: len(server.asked) > 0.4 * asked, "some requests")
        process.kill()
        process.wait()
        done = run(folder, *words)
        assert done.returncode == 3, done.stderr
        assert there(folder) == expected
        assert sum(server.asked.values()) - asked <= 2 * (2 + 8)


@needs_ray
def test_one_interrupt_finishes_what_is_under_way_and_the_same_command_goes_on(folder, cluster):
    with answering(slowly) as server:
        write_chain(folder, server)
        words = ("--on", "ray", "--ray-address", cluster, "--concurrency", "4")
        process = subprocess.Popen(
            command(*words),
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until(lambda: len(server.asked) > 20, "some requests")
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert "the same command goes on from there" in said
        assert not (folder / "out.jsonl").exists()
        before = len(server.asked)
        done = run(folder, *words)
        assert done.returncode == 3, done.stderr
        assert len(server.asked) > before
        assert set(server.asked.values()) == {1}
        assert there(folder) == here(folder)


@needs_ray
def test_a_second_interrupt_ends_it_though_nobody_answers(folder, cluster):
    with answering(lambda prompt, before: "hang") as server:
        write_chain(folder, server)
        process = subprocess.Popen(
            command("--on", "ray", "--ray-address", cluster),
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: len(server.asked) > 4, "some requests")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said


@needs_ray
def test_workers_share_the_concurrency_of_the_run(folder, cluster):
    running = most = 0
    lock = threading.Lock()

    def counted(prompt: str, before: int) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return f"<{prompt}>"

    with answering(counted) as server:
        write_chain(folder, server)
        done = run(folder, "--on", "ray", "--ray-address", cluster, "--concurrency", "5")
        assert done.returncode == 3, done.stderr
    assert 2 <= most <= 4


@needs_ray
def test_a_budget_is_not_passed_and_with_more_the_run_goes_on(folder, cluster):
    bounded = CHAIN.replace(
        "    user_file", "    sampling: {{max_tokens: 4}}\n    user_file"
    ).replace('    user: "two', '    sampling: {{max_tokens: 4}}\n    user: "two')
    words = ("--on", "ray", "--ray-address", cluster, "--concurrency", "4", "--json")
    with answering() as server:
        write_chain(folder, server, bounded)
        expected = here(folder)
        whole = len(server.asked) * (3 + 2 * 2) / 1e6
        server.asked.clear()
        first = run(folder, *words, "--max-cost", f"{whole / 2:.6f}")
        assert first.returncode == 4, first.stderr
        spent = sum(server.asked.values()) * (3 + 2 * 2) / 1e6
        assert 0 < spent <= whole / 2
        end = json.loads(first.stderr.splitlines()[-1])
        assert float(end["usd"]) == pytest.approx(spent)
        assert "with more it goes on" in end["goes_on"]
        second = run(folder, *words, "--max-cost", "1")
        assert second.returncode == 3, second.stderr
        assert set(server.asked.values()) == {1}
    assert there(folder) == expected


@needs_ray
def test_an_engine_that_workers_start_is_gone_at_the_end(folder, cluster):
    write_engines(folder, steps='steps:\n  - {id: first, engine: one, user: "1 {{ text }}"}\n')
    state = {"HEADRACE_STATE": str(folder / "state")}
    done = run(folder, "--on", "ray", "--ray-address", cluster, "--workers", "1", **state)
    assert done.returncode == 3, done.stderr
    assert starts(folder) == ["one"]
    until(lambda: not left_over(), "the engine's end")


@needs_ray
def test_what_a_worker_lacks_is_told_with_its_host(folder, cluster, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "rules.py").rename(elsewhere / "rules.py")
    with answering() as server:
        write_chain(folder, server)
        module = run(
            folder,
            "--on",
            "ray",
            "--ray-address",
            cluster,
            PYTHONPATH=os.pathsep.join([str(elsewhere), os.environ.get("PYTHONPATH", "")]),
        )
        (elsewhere / "rules.py").rename(folder / "rules.py")
        key = CHAIN.replace("model: m\n", "model: m\n    api_key_env: ONLY_HERE\n")
        write_chain(folder, server, key)
        lacks = run(folder, "--on", "ray", "--ray-address", cluster, ONLY_HERE="sk-only-here")
        assert not server.asked
    assert (module.returncode, lacks.returncode) == (1, 1)
    assert "on host " in module.stderr
    assert "No module named 'rules'" in module.stderr
    assert "importable on each machine" in module.stderr
    assert "on host " in lacks.stderr
    assert "ONLY_HERE" in lacks.stderr
    assert "sk-only-here" not in lacks.stderr


@needs_ray
def test_a_row_that_ends_each_worker_ends_the_run_and_is_told(folder, cluster):
    with answering() as server:
        write_chain(folder, server, CHAIN.replace("rules:words", "rules:deadly"))
        done = run(folder, "--on", "ray", "--ray-address", cluster)
    assert done.returncode == 1
    assert "partition 0 ended 3 workers" in done.stderr


@needs_ray
def test_a_cluster_that_is_not_there_or_too_small_is_told(folder, cluster):
    with answering() as server:
        write_chain(folder, server)
        nobody = run(folder, "--on", "ray", "--ray-address", "127.0.0.1:1025")
        small = run(folder, "--on", "ray", "--ray-address", cluster, "--workers", "3")
        assert not server.asked
    assert (nobody.returncode, small.returncode) == (1, 1)
    assert "--ray-address is '127.0.0.1:1025'" in nobody.stderr
    assert "--workers is 3, and the Ray cluster has 2 processors" in small.stderr
