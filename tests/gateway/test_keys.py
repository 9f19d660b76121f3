"""API keys: who may come in, and that the keys stay secret."""

from __future__ import annotations

import hashlib

import openai
import pytest

from gateway.served import MODEL, Served, run_headrace
from headrace.gateway.config import load

KEY, OTHER = "hr-secret-number-one", "hr-secret-number-two"


@pytest.fixture(scope="module")
def guarded(box_model, tmp_path_factory):
    """A gateway with two keys, one of them known by its hash alone."""
    hashed = "sha256:" + hashlib.sha256(OTHER.encode()).hexdigest()
    served = Served(
        tmp_path_factory.mktemp("guarded"),
        {"server": {"api_keys": [KEY, hashed]}, "engine": {"kv_tokens": 512}},
        HEADRACE_LOG_LEVEL="debug",
    )
    try:
        yield served
    finally:
        served.stop()


def test_on_loopback_no_key_is_needed(gateway):
    assert gateway.get("/v1/models").status == 200


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_the_right_key_lets_in(guarded, key):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as client:
        assert client.models.list().data[0].id == MODEL
        hello = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model=MODEL, messages=hello, max_tokens=1)
    assert answer.usage.completion_tokens == 1


def test_the_scheme_is_read_in_any_case(guarded):
    assert guarded.get("/v1/models", authorization=f"bearer {KEY}").status == 200


@pytest.mark.parametrize(
    "shown", ["Bearer wrong", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ", "Bearer", KEY]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/nothing"])
def test_a_wrong_key_is_401_everywhere(guarded, shown, path):
    reply = guarded.get(path, authorization=shown)
    assert reply.status == 401
    assert reply.error["type"] == "authentication_error"
    assert reply.error["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert KEY not in reply.body.decode()


def test_another_scheme_is_told_the_right_one(guarded):
    reply = guarded.get("/v1/models", authorization=f"Basic {KEY}")
    assert reply.status == 401
    assert "Bearer" in reply.error["message"]


def test_no_key_is_told_how_to_show_one(guarded):
    reply = guarded.chat()
    assert reply.status == 401
    assert "Authorization: Bearer" in reply.error["message"]


def test_the_sdk_says_authentication(guarded):
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_needs_no_key(guarded, path):
    assert guarded.get(path).status == 200


def test_no_key_is_ever_logged(guarded):
    guarded.get("/v1/models", authorization=f"Bearer {KEY}")
    last = guarded.get("/v1/models", authorization="Bearer hr-wrong-guess")
    guarded.line_of(last.headers["x-request-id"])
    assert KEY not in guarded.log
    assert "hr-wrong-guess" not in guarded.log


def test_the_configuration_does_not_hold_a_key_that_could_be_shown():
    config = load(environment={"HEADRACE_API_KEYS": f"{KEY}, {OTHER}"})
    assert len(config.server.api_keys) == 2
    assert KEY not in repr(config)
    assert KEY not in str(config.server.api_keys)


def test_an_empty_key_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text('server: {api_keys: [""]}')
    done = run_headrace("serve", str(path), "--check")
    assert done.returncode == 1
    assert "empty key" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_listening_beyond_loopback_without_keys_is_refused_with_what_to_do(host):
    done = run_headrace("serve", "--host", host, "--check")
    assert done.returncode == 1
    assert "HEADRACE_API_KEYS" in done.stderr
    assert "allow_anonymous" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_listening_beyond_loopback_is_allowed_with_a_key_or_on_purpose():
    given = ("serve", "--host", "0.0.0.0", "--check")
    assert run_headrace(*given, HEADRACE_API_KEYS=KEY).returncode == 0
    assert run_headrace(*given, HEADRACE_SERVER__ALLOW_ANONYMOUS="true").returncode == 0
