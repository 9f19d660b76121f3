"""``headrace doctor``: what is found, which backends answer, and what to do about the rest."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from backends.tiny_llama import write_tiny_llama
from gateway.served import MODEL, free_port, run_headrace
from headrace.backends.local.folders.rows import FOLDER_ENGINES
from headrace.backends.providers import provider, providers
from headrace.backends.remote import Remote
from headrace.cli.checkup import implementation_type
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.net.scripted import ScriptedTransport
from headrace.stores.credentials import OTHER_KEYS

KEY = "sk-the-right-key-000000000000000"


class Listing(ThreadingHTTPServer):
    """Lists one model: at /open for anybody, at /keyed for who shows KEY, at /silent never."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Listing

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        shown = self.headers.get("authorization")
        self.server.seen.append((self.path, shown))
        if self.path.startswith("/silent/"):
            self.server.released.wait()
            return
        if self.path.startswith("/keyed/") and shown != f"Bearer {KEY}":
            body = {"error": {"message": f"wrong key {shown}", "type": "auth"}}
            return self._answer(401, body)
        self._answer(200, {"data": [{"id": "far-1", "object": "model", "owned_by": "afar"}]})

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def listing():
    server = Listing()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path):
    """Variables of a user who has no keys, and at whose usual addresses nothing listens."""
    folder = tmp_path / "home"
    folder.mkdir()
    names = [name for row in providers().values() for name in row.key_env]
    names += [name for names in OTHER_KEYS.values() for name in names]
    names += [name for row in providers().values() for name in row.base_url_env]
    return {"HOME": str(folder), "XDG_CONFIG_HOME": "", **dict.fromkeys(names, "")}


def examined(*backends, **variables):
    """The exit status, and the report, of which only ``backends`` are asked."""
    chosen = [word for name in backends for word in ("--backend", name)]
    done = run_headrace("doctor", "--json", *chosen, **variables)
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def finding(report, name):
    (found,) = [each for each in report["backends"] if each["name"] == name]
    return found


def test_the_engine_in_the_box_answers_a_real_question(box_model):
    status, report = examined(MODEL)
    found = finding(report, MODEL)
    assert status == 0
    assert found["implementation_type"] == "real"
    assert found["state"] == "works"
    assert "Paris" in found["message"]
    assert found["took_ms"] > 0


def test_the_engine_for_embeddings_answers_with_a_vector(embedding_model):
    status, report = examined("all-minilm-l6-v2")
    found = finding(report, "all-minilm-l6-v2")
    assert status == 0
    assert (found["implementation_type"], found["state"]) == ("real", "works")
    assert "384 numbers" in found["message"]


def test_a_model_that_is_not_here_is_not_fetched(home, empty_cache):
    status, report = examined(MODEL, **{**home, "HEADRACE_CACHE": str(empty_cache)})
    found = finding(report, MODEL)
    assert status == 1
    assert found["state"] == "not asked"
    assert "93 MB" in found["remedy"]
    assert report["cache"] == {
        "path": str(empty_cache),
        "size_bytes": 0,
        "models": {MODEL: False, "all-minilm-l6-v2": False, "llama-3.3-8b-instruct": False},
    }
    assert list(empty_cache.iterdir()) == []


def test_a_provider_whose_key_is_right_works(home, listing):
    there = {"OPENAI_BASE_URL": f"{listing.url}/keyed/v1", "OPENAI_API_KEY": KEY}
    status, report = examined("openai", **{**home, **there})
    found = finding(report, "openai")
    assert status == 0
    assert (found["implementation_type"], found["state"]) == ("remote", "works")
    assert found["models"] == ["far-1"]
    assert found["remedy"] is None
    assert "not known" not in found["message"]


def test_a_list_that_is_open_to_all_is_told_to_prove_nothing_of_the_key(home, listing):
    there = {"OPENAI_BASE_URL": f"{listing.url}/open/v1", "OPENAI_API_KEY": KEY}
    status, report = examined("openai", **{**home, **there})
    assert status == 0
    assert "whether the key is right is not known" in finding(report, "openai")["message"]
    assert [key for _, key in listing.seen] == [f"Bearer {KEY}", None]


@pytest.mark.parametrize("form", [("--json",), ()])
def test_a_wrong_key_is_told_by_its_name_and_place_and_never_shown(home, listing, form):
    wrong = "sk-a-wrong-key-0000000000000000"
    there = {"OPENAI_BASE_URL": f"{listing.url}/keyed/v1", "OPENAI_API_KEY": wrong}
    done = run_headrace("doctor", "--backend", "openai", *form, **{**home, **there})
    assert done.returncode == 1
    assert "fails" in done.stdout
    assert "OPENAI_API_KEY (the environment)" in done.stdout
    assert wrong not in done.stdout + done.stderr


def test_nobody_is_contacted_without_a_key(home, listing):
    status, report = examined("openai", **{**home, "OPENAI_BASE_URL": f"{listing.url}/open/v1"})
    found = finding(report, "openai")
    assert status == 1
    assert found["state"] == "not asked"
    assert "OPENAI_API_KEY" in found["remedy"]
    assert listing.seen == []


def test_a_server_of_ones_own_needs_no_key(home, gateway):
    status, report = examined("vllm", **{**home, "VLLM_BASE_URL": f"{gateway.url}/v1"})
    found = finding(report, "vllm")
    assert status == 0
    assert MODEL in found["models"]
    # It is told that another answers there than was asked.
    assert "owned by headrace" in found["message"]


def test_a_server_that_was_configured_and_is_not_there_fails_with_what_to_do(home):
    address = f"http://127.0.0.1:{free_port()}/v1"
    status, report = examined("vllm", **{**home, "VLLM_BASE_URL": address})
    found = finding(report, "vllm")
    assert status == 1
    assert (found["state"], found["address"]) == ("fails", address)
    assert "VLLM_BASE_URL" in found["remedy"]


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/v1", "http://u:p@127.0.0.1/v1"])
def test_an_address_that_is_none_fails_by_itself(home, address):
    status, report = examined("vllm", **{**home, "VLLM_BASE_URL": address})
    found = finding(report, "vllm")
    assert status == 1
    assert found["state"] == "fails"
    assert "URL" in found["message"]
    assert "u:p" not in json.dumps(report)


def test_a_server_that_speaks_something_else_fails_with_what_to_do(home, gateway):
    status, report = examined("vllm", **{**home, "VLLM_BASE_URL": f"{gateway.url}/metrics"})
    found = finding(report, "vllm")
    assert status == 1
    assert found["state"] == "fails"
    assert found["remedy"]


def test_a_model_file_that_is_broken_fails_with_what_to_do(home, empty_cache):
    folder = empty_cache / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / f"{MODEL}.Q8_0.gguf").write_bytes(b"GGUF and then nothing of the kind")
    status, report = examined(MODEL, **{**home, "HEADRACE_CACHE": str(empty_cache)})
    found = finding(report, MODEL)
    assert status == 1
    assert found["state"] == "fails"
    assert str(folder) in found["remedy"]


def test_a_server_that_never_answers_is_given_up(home, listing):
    there = {"VLLM_BASE_URL": f"{listing.url}/silent/v1"}
    status, report = examined("vllm", **{**home, **there})
    assert status == 1
    assert finding(report, "vllm")["state"] == "fails"


def test_without_a_backend_all_are_told_of_and_the_exit_status_is_0(home, empty_cache):
    status, report = examined(**{**home, "HEADRACE_CACHE": str(empty_cache)})
    assert status == 0
    placed = {row.name for row in providers().values() if row.base_url or row.base_url_env}
    assert {each["name"] for each in report["backends"]} >= {MODEL, *placed}
    assert {each["implementation_type"] for each in report["backends"]} == {"real", "remote"}
    for each in report["backends"]:
        assert each["state"] == "works" or each["remedy"], each


def test_several_backends_are_asked_and_one_that_fails_counts(home, listing):
    there = {
        "OPENAI_BASE_URL": f"{listing.url}/keyed/v1",
        "OPENAI_API_KEY": KEY,
        "VLLM_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
    }
    status, report = examined("openai", "vllm", **{**home, **there})
    assert status == 1
    assert [(each["name"], each["state"]) for each in report["backends"]] == [
        ("openai", "works"),
        ("vllm", "fails"),
    ]


def test_what_is_installed_is_told(home, empty_cache):
    _, report = examined(MODEL, **{**home, "HEADRACE_CACHE": str(empty_cache)})
    installed = report["installed"]
    assert installed["headrace"] == version("headrace")
    assert installed["engine"] == {"xllamacpp": version("xllamacpp")}
    assert set(installed["local_engines"]) == {"transformers", "onnx"}
    for engine, extra in (("transformers", "torch"), ("onnx", "onnx")):
        is_here = all(find_spec(each) for each in FOLDER_ENGINES[engine].packages)
        remedy = None if is_here else f"pip install 'headrace[{extra}]'"
        assert installed["local_engines"][engine] == remedy
    assert set(installed["extras"]) == set(metadata("headrace").get_all("Provides-Extra") or ())


def test_keys_are_told_with_their_place_and_files_that_others_can_read_are_refused(
    home, empty_cache
):
    folder = Path(home["HOME"]) / ".config" / "headrace"
    folder.mkdir(parents=True)
    file = folder / "credentials"
    file.write_text(f"MISTRAL_API_KEY={KEY}\n")
    variables = {**home, "HEADRACE_CACHE": str(empty_cache), "ANTHROPIC_API_KEY": KEY}

    def keys():
        report = examined(MODEL, **variables)[1]
        assert KEY not in json.dumps(report)
        return {each["provider"]: each for each in report["keys"]}

    file.chmod(0o600)
    found = keys()
    assert found["anthropic"]["source"] == "the environment"
    assert (found["mistral"]["name"], found["mistral"]["source"]) == ("MISTRAL_API_KEY", str(file))
    assert found["openai"]["source"] is None
    file.chmod(0o644)
    found = keys()
    assert found["mistral"]["source"] is None
    assert found["mistral"]["remedies"] == [f"chmod 600 {file}"]
    status, report = examined("mistral", **variables)
    assert status == 1
    assert "0600" in finding(report, "mistral")["message"]


def test_an_unknown_backend_is_said_in_one_line_with_the_nearest_known_one():
    done = run_headrace("doctor", "--backend", "opnai")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "'openai'" in done.stderr


def test_a_backend_is_scripted_where_its_transport_is():
    def over(transport):
        row = provider("vllm")
        return Remote(
            name="v", provider=row, base_url="http://v/v1", world=World(transport=transport)
        )

    assert implementation_type(over(ScriptedTransport([]))) == "scripted"
    assert implementation_type(over(PooledTransport())) == "remote"


@pytest.fixture
def configured(listing, tmp_path):
    """A configuration whose backends do and do not work."""
    path = tmp_path / "headrace.yaml"
    path.write_text(
        "engine: {enabled: false}\nembeddings: {enabled: false}\n"
        f"providers: [{{name: corp, base_url: '{listing.url}/keyed/v1', key_env: [CORP_KEY]}}]\n"
        "backends:\n"
        "- {name: good, provider: corp, models: [far-1, 'far-*']}\n"
        "- {name: wrong-key, provider: corp, api_key_env: OTHER_KEY}\n"
        "- {name: no-key, provider: corp, api_key_env: NO_KEY}\n"
        f"- {{name: other-model, base_url: '{listing.url}/open/v1', models: [big]}}\n"
        f"- {{name: nobody, base_url: 'http://127.0.0.1:{free_port()}/v1'}}\n"
        "- {name: nowhere}\n"
    )
    return {"HEADRACE_CONFIG": str(path), "CORP_KEY": KEY, "OTHER_KEY": "sk-wrong-0000000000000000"}


def test_a_configurations_backends_are_asked_one_live_call_each(home, configured, listing):
    _, report = examined(**home, **configured)
    told = {each["name"]: each for each in report["backends"]}
    assert {name: told[name]["state"] for name in ("good", "corp", "other-model")} == dict.fromkeys(
        ("good", "corp", "other-model"), "works"
    )
    for name in ("wrong-key", "no-key", "nobody", "nowhere"):
        assert told[name]["state"] == "fails", name
        assert told[name]["remedy"], name
    assert {told[name]["implementation_type"] for name in told} == {"remote"}
    assert told["good"]["models"] == ["far-1"]
    assert "not big" in told["other-model"]["message"]
    assert "far-1" in told["other-model"]["remedy"]
    assert "OTHER_KEY" in told["wrong-key"]["remedy"]
    assert "NO_KEY" in told["no-key"]["remedy"]
    assert "base_url" in told["nowhere"]["remedy"]
    asked = [path for path, _ in listing.seen]
    assert asked.count("/open/v1/models") == 1
    keys = {each["provider"]: each for each in report["keys"]}
    assert keys["corp"]["source"] == keys["backend wrong-key"]["source"] == "the environment"
    assert keys["backend no-key"]["source"] is None
    said = json.dumps(report)
    assert KEY not in said
    assert configured["OTHER_KEY"] not in said


@pytest.mark.parametrize(("name", "status"), [("good", 0), ("nowhere", 1)])
def test_one_backend_of_a_configuration_may_be_asked_alone(home, configured, name, status):
    told, report = examined(name, **home, **configured)
    assert told == status
    assert [each["name"] for each in report["backends"]] == [name]


def test_a_configurations_own_model_is_started_and_asked(home, tmp_path):
    tiny = write_tiny_llama(tmp_path / "tiny.gguf")
    path = tmp_path / "headrace.yaml"
    path.write_text(f"engine: {{model: {tiny}, name: little}}")
    status, report = examined("little", **home, HEADRACE_CONFIG=str(path))
    found = finding(report, "little")
    assert (status, found["state"], found["implementation_type"]) == (0, "works", "real")


def test_a_configurations_model_that_is_not_there_fails_with_what_to_do(home, tmp_path):
    path = tmp_path / "headrace.yaml"
    path.write_text("engine: {model: /nowhere/tiny.gguf}")
    status, report = examined("tiny", **home, HEADRACE_CONFIG=str(path))
    assert status == 1
    assert "engine.model" in finding(report, "tiny")["remedy"]


def test_a_wrong_configuration_is_told_in_one_line(home, tmp_path):
    path = tmp_path / "headrace.yaml"
    path.write_text("backends: [{name: a, provider: grok}]")
    done = run_headrace("doctor", "--config", str(path), **home)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "$.backends[0].provider" in line
