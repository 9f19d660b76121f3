"""What the configuration says of providers, remote backends and records holds in a real gateway."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import threading

import pytest

from backends.upstream import upstream
from gateway.served import PATIENCE_S, Served, run_headrace, until
from headrace.backends.providers import PROVIDERS
from headrace.contracts.convert import from_json
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import CallRecord
from headrace.gateway.config import load

KEY = "u9f3kd82hhq71zzm40"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}
BACKENDS = {
    "asked_twice_more": {
        "behaviour": "broken",
        "max_retries": 2,
        "retry_on": "transient",
        "initial_retry_delay": 0,
        "breaker_failures": 0,
    },
    "asked_once": {"behaviour": "closing", "max_retries": 0},
    "left_alone": {"behaviour": "closing", "max_retries": 0, "breaker_failures": 1},
    "rated": {"behaviour": "good", "requests_per_minute": 1, "queue_timeout_ms": 30},
    "rated_by_tokens": {"behaviour": "good", "tokens_per_minute": 1, "queue_timeout_ms": 30},
    "one_at_once": {"behaviour": "hanging", "max_concurrent_requests": 1, "queue_size": 0},
    "impatient": {"behaviour": "hanging", "timeout_ms": 60},
    "impatient_for_a_token": {"behaviour": "hanging", "first_token_timeout_ms": 60},
}


@pytest.fixture(scope="module")
def far():
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("settings")


@pytest.fixture(scope="module")
def front(far, folder):
    """A gateway whose backends differ in their settings alone; each is at a path of its own."""
    backends = [
        {
            "name": name,
            "provider": "corp",
            "base_url": f"{far.url}/{said['behaviour']}/{name}/v1",
            **{field: value for field, value in said.items() if field != "behaviour"},
        }
        for name, said in BACKENDS.items()
    ]
    served = Served(
        folder,
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "records": {"file": str(folder / "calls.jsonl"), "log": True},
            "providers": [
                {"name": "corp", "key_env": ["CORP_KEY"], "headers": {"x-team": "rivers"}},
                {"name": "corp-plain", "like": "corp", "base_url": f"{far.url}/good/plain/v1"},
            ],
            "backends": [*backends, {"name": "plain", "provider": "corp-plain"}],
        },
        CORP_KEY=KEY,
    )
    try:
        yield served
    finally:
        served.stop()


def times_asked(far, name):
    return sum(f"/{name}/" in path for path, _, _ in far.seen)


def test_a_backend_is_asked_as_its_providers_row_in_the_file_says(front, far):
    reply = front.chat(model="plain")
    assert reply.json["choices"][0]["message"]["content"] == "far away"
    (headers,) = [headers for path, headers, _ in far.seen if "/plain/" in path]
    assert headers["x-team"] == "rivers"
    assert headers["authorization"] == f"Bearer {KEY}"


def test_a_failure_that_may_pass_is_asked_again_as_often_as_configured(front, far):
    assert front.chat(model="asked_twice_more").status == 502
    assert times_asked(far, "asked_twice_more") == 3


def test_without_retries_a_backend_is_asked_once(front, far):
    assert front.chat(model="asked_once").status == 503
    assert times_asked(far, "asked_once") == 1


def test_a_backend_that_fails_as_often_as_configured_is_left_alone(front, far):
    assert front.chat(model="left_alone").status == 503
    assert front.chat(model="left_alone").error["code"] == "circuit_open"
    assert times_asked(far, "left_alone") == 1


@pytest.mark.parametrize("name", ["rated", "rated_by_tokens"])
def test_a_limit_a_minute_holds_the_second_request_back(front, far, name):
    assert front.chat(model=name).status == 200
    reply = front.chat(model=name)
    assert (reply.status, reply.error["code"]) == (429, "queue_timeout")
    assert times_asked(far, name) == 1


def test_a_full_queue_refuses_the_next_request(front, far):
    first = threading.Thread(target=front.chat, kwargs={"model": "one_at_once"})
    first.start()
    until(lambda: times_asked(far, "one_at_once"))
    reply = front.chat(model="one_at_once")
    assert (reply.status, reply.error["code"]) == (429, "queue_full")
    far.released.set()
    first.join()
    far.released.clear()


@pytest.mark.parametrize("name", ["impatient", "impatient_for_a_token"])
def test_an_answer_that_takes_too_long_is_a_timeout(front, name):
    assert front.chat(model=name).status == 504


def test_every_request_leaves_a_line_in_the_file_and_in_the_log(front, folder):
    reply = front.chat("a secret question", model="plain")
    path = folder / "calls.jsonl"

    def written():
        records = [from_json(line, CallRecord) for line in path.read_bytes().splitlines()]
        wanted = reply.headers["x-request-id"]
        return next((each for each in records if each.request_id == wanted), None)

    record = until(written)
    assert (record.backend, record.provider, record.status) == ("plain", "corp-plain", 200)
    assert record.request is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = [line for line in front.log_lines if line["logger"] == "headrace.calls"]
    assert record.call_id in {line["call_id"] for line in said}
    assert "secret" not in front.log + path.read_text()
    assert KEY not in front.log + path.read_text()


def refusal(tmp_path, text):
    path = tmp_path / "headrace.yaml"
    path.write_text(text)
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(path, environment={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("max_concurrent_requests", "0", "at least 1"),
        ("max_concurrent_requests", "many", "a whole number"),
        ("queue_size", "-1", "at least 0"),
        ("queue_timeout_ms", "0", "at least 1"),
        ("requests_per_minute", "0", "at least 1"),
        ("tokens_per_minute", "none", "a number"),
        ("max_retries", "101", "0 to 100"),
        ("retry_on", "always", "'unavailable', 'transient'"),
        ("initial_retry_delay", "-1", "0 to 3600"),
        ("backoff_factor", "0.5", "1 to 100"),
        ("max_retry_delay", "99999", "0 to 3600"),
        ("retry_jitter", "1.5", "0 to 1"),
        ("retry_ratio", "2", "0 to 1"),
        ("breaker_failures", "-1", "at least 0"),
        ("breaker_open_ms", "0", "at least 1"),
        ("timeout_ms", "0", "at least 1"),
        ("base_url", "ftp://x", "known: http, https"),
    ],
)
def test_a_wrong_setting_names_its_place_its_value_and_what_is_right(tmp_path, field, value, right):
    said = refusal(tmp_path, f"backends:\n- name: far\n  {field}: {value}\n")
    for word in ("headrace.yaml", f"$.backends[0].{field}", value.partition("://")[0], right):
        assert word in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: {name: corp}", ["list of mappings", "$.providers"]),
        ("providers: [{name: corp, base-url: x}]", ["'base-url'", "$.providers[0]", "'base_url'"]),
        ("providers: [{name: corp, key_env: KEY}]", ["$.providers[0].key_env", "a list", "'KEY'"]),
        ("providers: [{name: groq}]", ["'groq' already", "like: groq", "$.providers[0].name"]),
        (
            "providers: [{name: a, like: grok}]",
            ["'grok'", "known: anthropic, azure", "$.providers[0].like"],
        ),
        ("providers: [{name: a}, {name: a}]", ["two providers 'a'", "$.providers[1].name"]),
        (
            "providers: [{name: corp}]\nbackends: [{name: x, provider: crop}]",
            ["'crop'", "mean 'corp'", "$.backends[0].provider"],
        ),
        ("records: {max_bytes: -1}", ["$.records.max_bytes", "-1", "at least 0"]),
        ("records: {keep: -1}", ["$.records.keep", "-1", "0 to 1000"]),
        ("records: {fiel: x}", ["'fiel'", "$.records", "'file'"]),
    ],
)
def test_a_wrong_section_names_its_place_and_what_is_right(tmp_path, text, words):
    said = refusal(tmp_path, text)
    for word in ("headrace.yaml", *words):
        assert word in said


def test_a_provider_of_the_files_stays_in_the_file(tmp_path):
    path = tmp_path / "headrace.yaml"
    path.write_text("providers: [{name: only-here, base_url: https://x.example/v1}]")
    assert load(path, environment={}).providers[0].base_url == "https://x.example/v1"
    assert "only-here" not in PROVIDERS


def test_a_file_of_records_that_cannot_be_written_ends_the_start(tmp_path):
    path = tmp_path / "headrace.yaml"
    place = tmp_path / "nowhere" / "calls.jsonl"
    path.write_text(
        "engine: {enabled: false}\nserver: {port: 0}\n"
        f"backends: [{{name: x, base_url: 'http://127.0.0.1:9/v1'}}]\nrecords: {{file: {place}}}\n"
    )
    done = run_headrace("serve", str(path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "records.file" in line
    assert str(place) in line


def test_as_many_requests_reach_a_backend_at_once_as_its_limit_allows(tmp_path):
    many = 140
    with socket.create_server(("127.0.0.1", 0), backlog=many) as far:
        far.settimeout(PATIENCE_S)
        backend = {"name": "m", "base_url": f"http://127.0.0.1:{far.getsockname()[1]}/v1"}
        served = Served(
            tmp_path,
            {
                "engine": {"enabled": False},
                "embeddings": {"enabled": False},
                "server": {"drain_timeout_ms": 0},
                "backends": [{**backend, "max_concurrent_requests": many}],
            },
        )
        try:
            with contextlib.ExitStack() as open_yet:
                for _ in range(many):
                    caller = open_yet.enter_context(contextlib.closing(served.connect()))
                    caller.request("POST", "/v1/chat/completions", json.dumps(HELLO))
                for _ in range(many):
                    open_yet.enter_context(far.accept()[0])
        finally:
            served.stop()
