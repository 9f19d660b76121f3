"""``headrace load --hosts``: senders that Ray places, of which one may lack something, or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.load.scripted import answering, serving
from bench.load.test_command import held, interrupted, ran, started, until

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed here; `make test-ray` runs these"
)


def processes(pattern: str) -> list[int]:
    """Those of whose command line ``pattern`` is a part."""
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def offspring(pid: int) -> dict[int, str]:
    """All processes below ``pid``, with their command lines."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        level = {int(row[0]): row[-1] for row in rows if int(row[1]) in parents}
        found |= level
        parents = set(level)
    return found


class Nodes:
    """A Ray cluster whose nodes all are on this machine."""

    def __init__(self, count: int, processors: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.nodes = [self.cluster.add_node(num_cpus=processors) for _ in range(count)]
        self.cluster.wait_for_nodes()
        self.address = self.cluster.address

    def alive(self) -> list[str]:
        table = self.cluster.global_state.node_table()
        return [node["NodeID"] for node in table if node["Alive"]]


@pytest.fixture(scope="module")
def nodes():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Nodes(3)
    yield made
    made.cluster.shutdown()


@pytest.mark.skipif(find_spec("ray") is not None, reason="this is about not having Ray")
def test_without_ray_one_line_says_what_to_install():
    with serving(answering) as server:
        status, out, err = ran(server.url, "--requests", "4", "--hosts", "2")
    assert (status, out) == (1, "")
    assert "pip install 'headrace[ray]'" in err
    assert not server.requests


def test_more_hosts_than_callers_are_refused_with_what_would_be_right():
    status, _, err = ran("http://127.0.0.1:1", "--requests", "4", "--hosts", "6")
    assert status == 1
    assert "requests is 4, too few for 6 hosts; lower --hosts to 4" in err
    status, _, err = ran("http://127.0.0.1:1", "--requests", "5", "--hosts", "3", "--workers", "2")
    assert status == 1
    assert "too few for 3 hosts of 2 workers; lower --hosts to 2" in err


def test_an_address_without_hosts_is_refused():
    status, _, err = ran("http://127.0.0.1:1", "--ray-address", "127.0.0.1:6379")
    assert status == 1
    assert "--ray-address is for --hosts" in err


@needs_ray
def test_a_ray_of_our_own_carries_the_whole_load_and_is_gone_afterwards(tmp_path):
    calls = tmp_path / "calls.jsonl"
    with serving(answering) as server:
        process = started(
            *(server.url, "--rate", "40", "--arrivals", "constant", "--duration", "2"),
            *("--hosts", "2", "--workers", "2", "--records", str(calls), "--json"),
        )
        until(lambda: len(server.requests) > 4, "some requests")
        below = offspring(process.pid)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 or "SUSPECT" in out, err
    assert "ray" not in err.lower(), err
    report = json.loads(out)
    assert report["figures"]["counts"]["ok"] == len(server.requests) == 80
    assert sorted(report["requests"]["index"]) == list(range(80))
    # The senders' own records are the second judge of what was added up.
    records = [json.loads(line) for line in calls.read_text().splitlines()]
    assert len(records) == 80
    tokens = sum(each["usage"]["completion_tokens"] for each in records)
    assert tokens == 80 * report["figures"]["output_tokens"]["mean"]
    assert any("4 senders on 1 machine" in note for note in report["notes"])
    assert any("gcs_server" in line for line in below.values())
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "Ray's end")


@needs_ray
def test_each_host_is_a_node_of_its_own_while_there_are_as_many(nodes):
    with serving(answering) as server:
        status, out, err = ran(
            *(server.url, "--requests", "30", "--concurrency", "3", "--hosts", "3", "--json"),
            *("--ray-address", nodes.address),
        )
    assert status == 0, err
    report = json.loads(out)
    assert report["figures"]["counts"]["ok"] == len(server.requests) == 30
    assert any("3 senders on 3 machines" in note for note in report["notes"])


@needs_ray
def test_more_hosts_than_the_cluster_has_processors_are_refused(nodes):
    with serving(answering) as server:
        status, _, err = ran(
            *(server.url, "--requests", "50", "--concurrency", "50", "--hosts", "7"),
            RAY_ADDRESS=nodes.address,
        )
    assert status == 1
    assert "--hosts is 7, and the Ray cluster has 6 processors" in err
    assert not server.requests


@needs_ray
def test_a_cluster_that_is_not_there_is_told():
    with serving(answering) as server:
        status, _, err = ran(
            server.url, "--requests", "4", "--hosts", "2", "--ray-address", "127.0.0.1:1025"
        )
    assert status == 1
    assert "--ray-address is '127.0.0.1:1025'" in err


@needs_ray
def test_a_host_that_lacks_the_key_is_named_and_the_key_does_not_travel(nodes):
    with serving(answering) as server:
        status, _, err = ran(
            *(server.url, "--requests", "40", "--hosts", "2", "--key-env", "ONLY_HERE"),
            *("--ray-address", nodes.address),
            ONLY_HERE="sk-only-here",
        )
    assert status == 1
    assert "on host " in err
    assert "key_env is 'ONLY_HERE'" in err
    assert "sk-only-here" not in err
    assert not server.requests


def killed_midway(nodes, kill) -> tuple[int, dict[str, object], str]:
    with serving(answering) as server:
        process = started(
            *(server.url, "--rate", "40", "--duration", "5", "--hosts", "2", "--json"),
            *("--ray-address", nodes.address),
        )
        until(lambda: len(server.requests) > 10, "some requests")
        kill()
        out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out), err


@needs_ray
@pytest.mark.parametrize(
    ("which", "why"),
    [("ray::Host", "died"), ("bench.load.workers import main", "killed by signal 9")],
)
def test_a_host_whose_sender_or_actor_is_killed_is_told_and_the_rest_is_reported(nodes, which, why):
    def kill() -> None:
        below = {
            pid
            for node in nodes.nodes
            for pid in offspring(node.all_processes["raylet"][0].process.pid)
        }
        os.kill(next(pid for pid in processes(which) if pid in below), signal.SIGKILL)

    status, report, err = killed_midway(nodes, kill)
    assert status == 4, err
    assert report["trust"]["verdict"] == "INVALID"
    assert any("was lost: " in note and why in note for note in report["notes"]), report["notes"]
    assert any("1 of 2" in note for note in report["notes"])
    assert report["figures"]["counts"]["ok"] > 10


@needs_ray
def test_an_interrupt_gives_a_whole_report(nodes):
    with serving(answering) as server:
        process = started(
            *(server.url, "--rate", "40", "--duration", "2000", "--hosts", "2", "--json"),
            *("--ray-address", nodes.address),
        )
        until(lambda: len(server.requests) > 20, "some requests")
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    counts = report["figures"]["counts"]
    assert counts["ok"] + counts["cut"] == len(server.requests)
    assert counts["failed"] == 0


@needs_ray
def test_a_second_interrupt_ends_it_at_once(nodes):
    with serving(held) as server:
        process = started(
            *(server.url, "--requests", "4", "--concurrency", "2", "--hosts", "2", "--json"),
            *("--ray-address", nodes.address),
        )
        until(lambda: len(server.requests) == 2, "both requests")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    assert report["figures"]["counts"]["cut"] == 2


@needs_ray
@pytest.mark.skipif(
    sys.platform != "linux"
    or subprocess.run(
        ["unshare", "--time", "--fork", "--monotonic", "9", "true"],
        check=False,
        capture_output=True,
    ).returncode,
    reason="a machine whose clock shows something else is made with a time namespace, as root",
)
def test_hosts_whose_clocks_differ_begin_together():
    nodes = Nodes(1)
    other = subprocess.Popen(
        [
            *("unshare", "--time", "--fork", "--kill-child", "--monotonic", "5000"),
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "2"),
            *("--address", nodes.address),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: len(nodes.alive()) == 2, "a second node")
        with serving(answering) as server:
            _, out, err = ran(
                *(server.url, "--rate", "50", "--arrivals", "constant", "--duration", "2"),
                *("--hosts", "2", "--json", "--ray-address", nodes.address),
            )
    finally:
        other.kill()  # unshare takes no other end, and its child goes with it
        other.wait()
        nodes.cluster.shutdown()
    report = json.loads(out)
    assert any("2 senders on 2 machines" in note for note in report["notes"]), report["notes"]
    assert report["figures"]["counts"]["ok"] == len(server.requests) == 100, err
    assert max(report["requests"]["latency_ms"]) < 1000.0


@needs_ray
def test_a_node_that_goes_away_is_told_and_the_rest_is_reported(nodes):  # the last one to use them
    status, report, err = killed_midway(nodes, lambda: kill_a_node_with_a_sender(nodes))
    assert status == 4, err
    assert report["trust"]["verdict"] == "INVALID"
    assert any("was lost: " in note for note in report["notes"]), report["notes"]


def kill_a_node_with_a_sender(nodes) -> None:
    for node in nodes.nodes[1:]:
        below = offspring(node.all_processes["raylet"][0].process.pid)
        if any("ray::Host" in line for line in below.values()):
            nodes.cluster.remove_node(node, allow_graceful=False)
            return
    raise AssertionError("no node but the head has a sender")
