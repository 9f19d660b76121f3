"""How full the engines behind a gateway are: in the snapshot, in the metrics, and in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.far import NO_MODEL, far
from gateway.served import Served, until

PAGES = Path(__file__).parents[1] / "wire" / "engine_pages"
FAMILIES = {
    "requests_running": 4,
    "requests_waiting": 2,
    "cache_usage": 0.5,
    "prefix_hit_rate": 0.25,
    "prompt_tokens_total": 400,
    "generation_tokens_total": 75,
}


@pytest.fixture(scope="module")
def far_engines():
    with far("tells", "hangs", "hosted") as found:
        found[0].metrics = (PAGES / "written/vllm-0.8.txt").read_bytes()
        yield {each.name: each for each in found}


@pytest.fixture(scope="module")
def watched(far_engines, tmp_path_factory):
    """A gateway before an engine that tells how full it is, one that hangs, and one unasked."""
    config = {
        **NO_MODEL,
        "backends": [
            far_engines["tells"].backend(provider="vllm", models=["m"]),
            far_engines["hangs"].backend(
                models=["other"], metrics_url=f"{far_engines['hangs'].url}/metrics"
            ),
            far_engines["hosted"].backend(models=["third"]),
        ],
    }
    served = Served(tmp_path_factory.mktemp("watched"), config)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


def metrics_of(served, name):
    (lane,) = [each for each in served.get("/snapshot").json["lanes"] if each["name"] == name]
    return lane["metrics"]


def test_the_snapshot_has_what_an_engine_tells(watched):
    (told,) = metrics_of(watched, "tells")
    assert told == {
        "engine": "vllm",
        "running": 4,
        "queued": 2,
        "batch_size": None,
        "batch_occupancy": None,
        "cache_usage": 0.5,
        "prefix_hit_rate": 0.25,
        "prompt_tokens": 400,
        "completion_tokens": 75,
        "loaded": None,
    }


def test_the_metrics_have_it_with_the_backends_name(watched):
    for name, value in FAMILIES.items():
        found = watched.metric(f"headrace_engine_{name}", backend="tells", engine="vllm")
        assert found == value, name
    samples = [each for each in watched.samples() if each.name.startswith("headrace_engine_")]
    assert {each.labels["backend"] for each in samples} == {"tells"}
    text = watched.get("/metrics").body.decode()
    assert "# HELP headrace_engine_cache_usage " in text
    assert "# TYPE headrace_engine_prompt_tokens_total counter" in text


def test_an_engine_that_does_not_say_is_unknown_and_answers_all_the_same(watched):
    assert metrics_of(watched, "hangs") == []
    assert watched.chat(model="other").status == 200


def test_who_tells_nothing_by_its_providers_row_is_not_asked(watched):
    assert metrics_of(watched, "hosted") == []


def test_who_watches_sees_it_change(watched, far_engines):
    page = far_engines["tells"].metrics
    try:
        far_engines["tells"].metrics = b"vllm:num_requests_running 7\nvllm:num_requests_waiting 1\n"
        until(lambda: [each["running"] for each in metrics_of(watched, "tells")] == [7])
        far_engines["tells"].metrics = b"<html>gone</html>"
        until(lambda: metrics_of(watched, "tells") == [])
    finally:
        far_engines["tells"].metrics = page


def test_the_engine_in_the_box_tells_what_it_does(gateway):
    assert gateway.chat("Tell me of rivers.", max_tokens=3).status == 200

    def llamacpp():
        (lane, *_) = gateway.get("/snapshot").json["lanes"]
        return next(each for each in lane["metrics"] if each["engine"] == "llama.cpp")

    told = llamacpp()
    assert told["prompt_tokens"] > 0
    assert 0 <= told["batch_occupancy"] <= 1
    assert told["queued"] == 0


def test_a_route_by_load_asks_the_engine_that_says_that_it_is_free(tmp_path):
    full, free = (
        b"vllm:num_requests_running %d\nvllm:num_requests_waiting 0\n" % n for n in (9, 0)
    )
    with far("one", "two") as found:
        config = {
            **NO_MODEL,
            "backends": [each.backend(provider="vllm", models=[]) for each in found],
            "routes": [
                {
                    "name": "either",
                    "policy": "least_busy",
                    "backends": [{"backend": each.name, "model": "m"} for each in found],
                }
            ],
        }
        found[0].metrics, found[1].metrics = full, free
        served = Served(tmp_path, config)
        try:
            served.wait_until_ready()

            def answered():
                reply = served.chat(model="either")
                return reply.json["choices"][0]["message"]["content"].split()[0]

            until(lambda: all(metrics_of(served, name) for name in ("one", "two")))
            assert [answered() for _ in range(4)] == ["two"] * 4
            found[0].metrics, found[1].metrics = free, full
            until(lambda: [each["running"] for each in metrics_of(served, "two")] == [9])
            until(lambda: [each["running"] for each in metrics_of(served, "one")] == [0])
            assert [answered() for _ in range(4)] == ["one"] * 4
        finally:
            served.stop()
