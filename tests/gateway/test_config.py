"""Where settings come from, which goes first, and what a wrong one is told."""

from __future__ import annotations

import pytest
import yaml

from gateway.served import MODEL, Served, run_headrace
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.config import Config, load


def written(tmp_path, text):
    path = tmp_path / "headrace.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path, text, **variables):
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(written(tmp_path, text), environment=variables)
    return str(caught.value)


def test_without_anything_the_defaults_hold():
    config = load(environment={})
    assert config == Config()
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.batching.max_batch_size == 32
    assert config.batching.timeout_ms == 30_000
    assert config.inference.max_tokens == 2048
    assert config.inference.temperature == 0.7
    assert config.inference.context_length == 8192
    assert config.engine.model == MODEL


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}", "server:\n"])
def test_an_empty_file_is_the_defaults(tmp_path, text):
    assert load(written(tmp_path, text), environment={}) == Config()


def test_the_environment_goes_before_the_file_and_the_command_line_before_both(tmp_path):
    path = written(tmp_path, "server: {port: 1111, host: localhost}\nbatching: {max_batch_size: 3}")
    config = load(path, environment={})
    assert (config.server.port, config.server.host) == (1111, "localhost")
    environment = {"HEADRACE_PORT": "2222"}
    config = load(path, environment=environment)
    assert (config.server.port, config.server.host) == (2222, "localhost")
    config = load(path, environment=environment, overrides={("server", "port"): 3333})
    assert (config.server.port, config.server.host) == (3333, "localhost")
    assert config.batching.max_batch_size == 3


def test_every_field_has_a_variable_of_its_own(tmp_path):
    config = load(
        environment={
            "HEADRACE_BATCHING__TIMEOUT_MS": "77",
            "HEADRACE_INFERENCE__TEMPERATURE": "0.5",
            "HEADRACE_SERVER__ALLOW_ANONYMOUS": "yes",
            "HEADRACE_ENGINE__ALIASES": "gpt-*, tiny",
            "HEADRACE_LOG_LEVEL": "warning",
            "HEADRACE_MODEL": "/a/model.gguf",
            "HEADRACE_CACHE": "/not/ours/to/read/here",
            "PATH": "/bin",
        }
    )
    assert config.batching.timeout_ms == 77
    assert config.inference.temperature == 0.5
    assert config.server.allow_anonymous is True
    assert config.engine.aliases == ("gpt-*", "tiny")
    assert config.logging.level == "warning"
    assert config.engine.model == "/a/model.gguf"


def test_an_empty_variable_is_as_good_as_none():
    assert load(environment={"HEADRACE_PORT": ""}).server.port == 8000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {prot: 1}", ["unknown field 'prot'", "$.server", "'port'"]),
        ("servre: {port: 1}", ["unknown field 'servre'", "'server'"]),
        ("batching: {max_batchsize: 1}", ["'max_batchsize'", "$.batching", "'max_batch_size'"]),
        ("server: {port: eighty}", ["$.server.port", "'eighty'", "whole number"]),
        ("server: {port: 99999}", ["$.server.port", "99999", "65535"]),
        ("server: {port: 1.5}", ["$.server.port", "1.5"]),
        ("server: {allow_anonymous: 1}", ["$.server.allow_anonymous", "true or false"]),
        ("server: [1]", ["$.server", "object", "list"]),
        ("server: 5", ["$.server", "object"]),
        ("batching: {max_batch_size: 0}", ["$.batching.max_batch_size", "0", "1 to 256"]),
        ("inference: {temperature: hot}", ["$.inference.temperature", "'hot'", "number"]),
        ("logging: {level: loud}", ["$.logging.level", "'loud'", "'debug'"]),
        ("backends: {}", ["$.backends", "list"]),
        ("backends: [{}]", ["$.backends[0].name", "missing"]),
        ("backends: [{name: a, url: x}]", ["$.backends[0]", "'url'"]),
        ("- a list", ["list", "sections"]),
        ("just words", ["sections"]),
    ],
)
def test_a_wrong_file_is_told_where_and_what_would_be_right(tmp_path, text, words):
    said = refusal(tmp_path, text)
    assert "headrace.yaml" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "text",
    [
        "server: {port: 1",
        "a: b: c",
        "\t",
        "server: &a [*a]",
        "!!python/object:os.system {}",
        "\x00",
    ],
)
def test_what_is_no_yaml_is_refused_as_such(tmp_path, text):
    assert "headrace.yaml" in refusal(tmp_path, text)


def test_a_key_that_comes_twice_is_refused(tmp_path):
    assert "port" in refusal(tmp_path, "server:\n  port: 1\n  port: 2\n")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LLMInvalidRequestError, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml", environment={})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HEADRACE_PROT", "1", ["HEADRACE_PROT", "HEADRACE_PORT"]),
        ("HEADRACE_BATCHING__MAX_BATCHSIZE", "1", ["HEADRACE_BATCHING__MAX_BATCH_SIZE"]),
        ("HEADRACE_PORT", "eighty", ["HEADRACE_PORT", "'eighty'", "whole number"]),
        ("HEADRACE_SERVER__ALLOW_ANONYMOUS", "maybe", ["'maybe'", "true or false"]),
        ("HEADRACE_INFERENCE__TEMPERATURE", "hot", ["'hot'", "number"]),
    ],
)
def test_a_wrong_variable_is_told_what_would_be_right(variable, value, words):
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(environment={variable: value})
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_value_of_a_variable_names_the_variable_or_its_field():
    with pytest.raises(LLMInvalidRequestError, match=r"\$\.server\.port"):
        load(environment={"HEADRACE_PORT": "70000"})


def test_a_secret_is_not_in_the_complaint_about_it(tmp_path):
    said = refusal(tmp_path, "server: {api_keys: [hush-hush, 5]}")
    assert "hush-hush" not in said
    said = refusal(tmp_path, "backends: [{name: a, api_key: {hush: hush}}]")
    assert "hush" not in said.replace("api_key", "")


def test_check_says_that_all_is_right(tmp_path):
    done = run_headrace("serve", str(written(tmp_path, "server: {port: 1}")), "--check")
    assert done.returncode == 0
    assert "right" in done.stdout


def test_check_says_what_is_wrong_in_one_line(tmp_path):
    done = run_headrace("serve", str(written(tmp_path, "server: {prot: 1}")), "--check")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "prot" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configured_model_answers_as_configured(box_model, tmp_path):
    served = Served(
        tmp_path,
        {
            "engine": {"kv_tokens": 1024, "name": "little", "aliases": ["gpt-*"]},
            "inference": {"system_prompt": "You are terse.", "max_tokens": 80},
        },
        ["--model", str(box_model.path)],
    )
    try:
        assert served.get("/v1/models").json["data"][0]["id"] == "little"
        for name in ("little", "gpt-4o"):
            reply = served.chat(model=name, max_tokens=1)
            assert reply.status == 200
            assert reply.json["model"] == "little"
        assert served.chat(model=MODEL).status == 404
        # The file was named by its path, so no preset shortens its answers.
        long = served.chat("Count to a million.", max_tokens=None, ignore_eos=True)
        assert long.status == 200, long.body
        assert long.json["usage"]["completion_tokens"] == 80
    finally:
        served.stop()


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        ({"backend": "vlm"}, r"did you mean 'vllm'.*@ \$\.engines\[0\]\.backend"),
        (
            {"input_price_usd": 1, "output_price_usd": 2},
            r"where a route names it.*@ \$\.engines\[0\]\.input_price_usd",
        ),
        ({"name": "far"}, r"'far' is the name of another backend.*@ \$\.engines\[0\]\.name"),
        ({"backend": "command"}, r"command is empty"),
        ({"port": 70000}, r"port is 70000.*@ \$\.engines\[0\]\.port"),
        ({"nam": "x"}, r"nam"),
        ({"backend": "openai", "dtype": "half"}, r"dtype is given.*@ \$\.engines\[0\]\.dtype"),
    ],
)
def test_a_wrong_engine_is_refused_by_its_field(tmp_path, engine, complaint):
    path = tmp_path / "gateway.yaml"
    far = {"name": "far", "base_url": "http://127.0.0.1:1/v1"}
    path.write_text(
        yaml.safe_dump({"backends": [far], "engines": [{"name": "e", "model": "m", **engine}]})
    )
    with pytest.raises(LLMInvalidRequestError, match=complaint):
        load(path, environment={})


def test_engines_are_read_in_either_form_and_routes_may_name_them(tmp_path):
    path = tmp_path / "gateway.yaml"
    engine = {"model": "m", "backend": "vllm", "env": {"N": 1}, "persistent": True}
    route = {"name": "r", "backends": [{"backend": "e"}]}
    path.write_text(yaml.safe_dump({"engines": {"e": engine}, "routes": [route]}))
    (found,) = load(path, environment={}).engines
    assert (found.name, found.lazy, found.extra_env) == ("e", False, {"N": "1"})
