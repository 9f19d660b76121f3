"""A gateway in front of other servers, good and bad."""

from __future__ import annotations

import json

import pytest

from backends.upstream import upstream
from gateway.served import MODEL, Served, free_port, run_headrace, until

# Of no form that a filter for well-known kinds of keys would know.
KEY = "u9f3kd82hhq71zzm40"
FRANCE = "What is the capital of France?"
BEHAVIOURS = (
    *("good", "unstreaming", "hanging", "silent_later", "cut", "closing", "no_http", "no_json"),
    *("no_answer", "no_events", "empty_stream", "broken", "broken_in_html", "limited"),
    *("refusing", "indiscreet", "failing_later"),
)


@pytest.fixture(scope="module")
def far():
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def front(far, tmp_path_factory):
    """A gateway without an engine of its own; one backend for each way to behave."""
    backends = [
        {
            "name": name,
            "base_url": f"{far.url}/{name}/v1",
            "api_key": KEY,
            "model": "far",
            "first_token_timeout_ms": 300,
            "idle_timeout_ms": 300,
        }
        for name in BEHAVIOURS
    ]
    backends.append({"name": "nowhere", "base_url": f"http://127.0.0.1:{free_port()}/v1"})
    served = Served(
        tmp_path_factory.mktemp("front"),
        {"engine": {"enabled": False}, "backends": backends, "logging": {"level": "debug"}},
    )
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def twin(gateway, tmp_path_factory):
    """A gateway in front of the gateway with the real model."""
    backend = {"name": "near", "base_url": f"{gateway.url}/v1", "models": [MODEL, "near-*"]}
    served = Served(
        tmp_path_factory.mktemp("twin"),
        {
            "engine": {"enabled": False},
            "backends": [{**backend, "model": MODEL}],
        },
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


def test_an_answer_is_the_same_through_two_gateways(gateway, twin):
    ours, theirs = (
        served.chat(FRANCE, max_tokens=24, temperature=0, model=MODEL).json
        for served in (twin, gateway)
    )
    assert "Paris" in ours["choices"][0]["message"]["content"]
    assert ours["choices"] == theirs["choices"]
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ours["usage"][count] == theirs["usage"][count]
    assert ours["model"] == MODEL


def test_a_stream_is_the_same_through_two_gateways(gateway, twin):
    def text(served):
        with served.streaming(
            messages=[{"role": "user", "content": FRANCE}],
            max_tokens=24,
            temperature=0,
            model=MODEL,
        ) as response:
            events = [line.strip() for line in response if line.startswith(b"data: ")]
        assert events.pop() == b"data: [DONE]"
        pieces = [json.loads(event.removeprefix(b"data: ")) for event in events]
        return "".join(c["delta"].get("content") or "" for p in pieces for c in p["choices"])

    assert text(twin) == text(gateway)
    assert "Paris" in text(twin)


def test_a_completion_goes_through_two_gateways(twin):
    reply = twin.post(
        "/v1/completions",
        {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, "model": MODEL},
    )
    assert "Paris" in reply.json["choices"][0]["text"]


def test_a_pattern_reaches_its_backend(twin):
    reply = twin.chat(model="near-and-dear", max_tokens=1)
    assert reply.status == 200
    assert reply.json["model"] == "near-and-dear"


def test_a_refusal_of_the_far_gateway_comes_back_as_it_was(gateway, twin):
    for settings in ({"temprature": 1}, {"max_tokens": 9000}):
        ours = twin.chat(model=MODEL, **settings)
        theirs = gateway.chat(model=MODEL, **settings)
        assert ours.status == theirs.status == 400
        for part in ("type", "param", "code"):
            assert ours.error[part] == theirs.error[part]


def test_a_caller_that_leaves_frees_the_far_engine(gateway, twin):
    until(gateway.quiet)
    with twin.streaming(model=MODEL, max_tokens=4000, ignore_eos=True):
        assert gateway.metric("vllm:num_requests_running") == 1
    until(gateway.quiet)
    until(twin.quiet)


def test_what_is_said_comes_through(front, far):
    reply = front.chat(model="good", temperature=0.5)
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "far away"
    assert reply.json["model"] == "good"
    _, headers, body = far.asked("good")[-1]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["model"] == "far"
    assert body["temperature"] == 0.5


def test_a_backend_of_several_models_is_asked_for_the_one_that_the_caller_named(far, tmp_path):
    backend = {"name": "many", "base_url": f"{far.url}/good/v1", "models": ["many-*"]}
    served = Served(tmp_path, {"engine": {"enabled": False}, "backends": [backend]})
    try:
        reply = served.chat(model="many-and-more")
    finally:
        served.stop()
    assert reply.json["model"] == "many-and-more"
    assert far.asked("good")[-1][2]["model"] == "many-and-more"


def test_a_server_that_does_not_stream_is_read_all_the_same(front):
    reply = front.chat(model="unstreaming")
    assert reply.json["choices"][0]["message"]["content"] == "all at once"
    assert reply.json["usage"]["total_tokens"] == 7
    with front.streaming(model="unstreaming") as response:
        assert b"all at once" in response.read()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ("nowhere", 503),
        ("hanging", 504),
        ("closing", 503),
        ("no_http", 502),
        ("no_json", 502),
        ("no_answer", 502),
        ("no_events", 502),
        ("empty_stream", 502),
        ("broken", 502),
        ("broken_in_html", 502),
        ("limited", 429),
        ("refusing", 400),
        ("indiscreet", 502),
    ],
)
def test_what_goes_wrong_far_away_has_a_status_of_its_own(front, behaviour, status, stream):
    reply = front.chat(model=behaviour, stream=stream)
    assert reply.headers["content-type"] == "application/json"
    assert reply.status == status, reply.body
    assert reply.error["message"]
    if behaviour == "indiscreet":  # it refuses our key, which is no fault of the caller's
        assert reply.error["code"] == "backend_credentials"
    if behaviour == "limited":
        assert reply.headers["retry-after"] == "7"
        assert "slow down" in reply.error["message"]
    if behaviour == "refusing":
        assert "too hot for me" in reply.error["message"]


@pytest.mark.parametrize("behaviour", ["silent_later", "cut", "failing_later"])
def test_what_goes_wrong_within_a_stream_ends_it_without_done(front, behaviour):
    with front.streaming(model=behaviour) as response:
        rest = response.read()
    events = [line for line in rest.split(b"\n") if line.startswith(b"data: ")]
    assert b"once " in b"".join(events)
    assert b"data: [DONE]" not in rest
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["message"]


@pytest.mark.parametrize(("behaviour", "status"), [("silent_later", 504), ("cut", 502)])
def test_what_goes_wrong_within_an_answer_that_was_asked_whole_is_an_error(
    front, behaviour, status
):
    assert front.chat(model=behaviour).status == status


def test_the_upstream_key_is_in_no_answer_and_no_log_line(front, far):
    replies = [front.chat(model=name) for name in ("indiscreet", "broken", "good")]
    assert KEY in far.asked("indiscreet")[-1][1]["authorization"]
    front.line_of(replies[-1].headers["x-request-id"])
    for reply in replies:
        assert KEY not in reply.body.decode()
        assert KEY not in str(reply.headers)
    assert KEY not in front.log
    for path in ("/ready", "/metrics", "/v1/models", "/openapi.json"):
        assert KEY not in front.get(path).body.decode()


def test_the_caller_s_own_key_does_not_travel_on(front, far):
    front.chat(model="good", headers={"authorization": "Bearer the-callers-own"})
    assert "the-callers-own" not in str(far.asked("good")[-1])


def test_a_front_is_not_ready_while_a_backend_does_not_answer(front):
    reply = front.get("/ready")
    assert reply.status == 503
    assert reply.json["backends"]["nowhere"]["ok"] is False


def test_every_backend_is_listed_by_its_name(front):
    listed = [model["id"] for model in front.get("/v1/models").json["data"]]
    assert listed[: len(BEHAVIOURS) + 1] == [*BEHAVIOURS, "nowhere"]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ({"name": "a"}, ["base_url", "'a'"]),
        ({"name": "a", "provider": "opnai"}, ["opnai", "openai"]),
        ({"name": "a", "base_url": "ftp://x"}, ["base_url", "'ftp'"]),
        ({"name": "a", "provider": "openai"}, ["OPENAI_API_KEY", "'a'"]),
        ({"name": "a", "base_url": "http://x", "api_key_env": "NO_SUCH_KEY"}, ["NO_SUCH_KEY"]),
    ],
)
def test_a_backend_that_cannot_work_ends_the_start_with_a_reason(tmp_path, backend, words):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"engine": {"enabled": False}, "backends": [backend]}))
    done = run_headrace("serve", str(path), "--port", "0", OPENAI_API_KEY="")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
