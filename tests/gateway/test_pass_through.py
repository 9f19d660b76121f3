"""The paths of OpenAI's API that are handed on: to whom, with what, and what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from gateway.far import NO_MODEL
from gateway.kept import Keeper, Says, keeper
from gateway.served import Served, raw_exchange, until
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.config import load
from headrace.wire.openai_paths import GROUPS

OURS = "sk-caller-5d1f0a7be2"
PASSES = ["assistants", "vector_stores", "uploads", "stored_completions", "videos"]


@pytest.fixture(scope="module")
def kept() -> Iterator[Keeper]:
    with keeper() as made:
        yield made


@pytest.fixture(scope="module")
def served(kept: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with a key, before a provider that has more than models."""
    folder = tmp_path_factory.mktemp("pass")
    served = Served(
        folder,
        {
            **NO_MODEL,
            "server": {"api_keys": [OURS], "max_body_bytes": 100_000},
            "records": {"file": str(folder / "calls.jsonl")},
            "backends": [
                kept.backend(passes=PASSES),
                {
                    "name": "claude",
                    "provider": "anthropic",
                    "base_url": kept.url,
                    "api_key": "sk-claude",
                    "models": ["claude-*"],
                },
                {**kept.backend(model="theirs"), "name": "renamed", "models": ["mine"]},
            ],
        },
    )
    served.show_key(OURS)
    served.records = folder / "calls.jsonl"
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture
def sdk(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key=OURS, max_retries=0) as client:
        yield client


KEY = {"authorization": f"Bearer {OURS}"}


def last_record(served: Served) -> dict:
    def found():
        if not served.records.is_file():
            return None
        lines = served.records.read_text().splitlines()
        return json.loads(lines[-1]) if lines else None

    return until(found)


def test_the_sdk_reaches_a_path_that_is_marked(sdk, kept, served):
    body = {"id": "vs_1", "object": "vector_store", "name": "Ours", "usage": {"total_tokens": 7}}
    kept.says["/v1/vector_stores"] = Says(json.dumps(body).encode())
    store = sdk.vector_stores.create(name="Ours", extra_headers={"OpenAI-Organization": "org-x"})
    assert store.id == "vs_1"
    assert kept.last.method == "POST"
    assert kept.last.target == "/v1/vector_stores"
    assert kept.last.json == {"name": "Ours"}
    assert kept.last.headers["openai-beta"] == "assistants=v2"
    record = until(lambda: (r := last_record(served))["operation"] == "pass_through" and r)
    assert record["backend"] == "kept"
    assert record["status"] == 200
    assert record["usage"]["total_tokens"] == 7


def test_no_key_of_the_callers_goes_along(served, kept):
    headers = {
        **KEY,
        "x-api-key": OURS,
        "cookie": f"session={OURS}",
        "proxy-authorization": f"Basic {OURS}",
        "openai-organization": OURS,
        "openai-project": OURS,
        "x-custom": OURS,
        "connection": "x-custom",
    }
    assert served.ask("GET", "/v1/assistants?limit=2&after=a%20b", headers=headers).status == 200
    assert kept.last.headers["authorization"] == "Bearer sk-theirs"
    assert kept.last.target == "/v1/assistants?limit=2&after=a+b"
    assert OURS not in json.dumps([kept.last.target, dict(kept.last.headers)])


def test_a_form_arrives_byte_for_byte(sdk, kept):
    part = {"id": "part_1", "object": "upload.part", "created_at": 1, "upload_id": "u"}
    kept.says["/v1/uploads/u/parts"] = Says(json.dumps(part).encode())
    data = bytes(range(256)) * 100
    assert sdk.uploads.parts.create("u", data=data).id == "part_1"
    assert data in kept.last.body
    assert kept.last.headers["content-type"].startswith("multipart/form-data; boundary=")


def test_events_come_as_they_are_sent(served, kept):
    events = (b'event: thread.run.created\ndata: {"id":"r"}\n\n', b"data: [DONE]\n\n")
    kept.says["/v1/threads/t/runs"] = Says(content_type="text/event-stream", chunks=events)
    body = {"assistant_id": "a", "stream": True}
    reply = served.post("/v1/threads/t/runs", body, KEY)
    assert reply.body == b"".join(events)
    assert reply.headers["content-type"] == "text/event-stream"
    assert until(lambda: (r := last_record(served))["stream"] and r)["status"] == 200


def test_what_is_no_json_comes_back_with_its_type(served, kept):
    film = bytes(range(256)) * 1000
    kept.says["/v1/videos/v/content"] = Says(film, "video/mp4")
    reply = served.get("/v1/videos/v/content?variant=video", **KEY)
    assert reply.body == film
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.headers["content-length"] == str(len(film))
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_id_with_strange_letters_stays_one_id(served, kept):
    assert served.get("/v1/threads/a%3Fb%23c%20d", **KEY).status == 200
    assert kept.last.target == "/v1/threads/a%3Fb%23c%20d"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_stored_completions_lie_beside_the_gateways_own_path(served, kept, method):
    path = "/v1/chat/completions/c-1"
    assert served.ask(method, path, headers=KEY).status == 200
    assert (kept.last.method, kept.last.target) == (method, path)
    assert served.ask("GET", "/v1/chat/completions", headers=KEY).status == 200
    assert kept.last.target == "/v1/chat/completions"


def test_a_path_with_a_model_goes_where_the_model_leads(served, kept):
    body = {"model": "mine", "input": "Hello"}
    assert served.post("/v1/responses/input_tokens", body, KEY).status == 200
    assert kept.last.target == "/v1/responses/input_tokens"
    assert kept.last.json == {"model": "theirs", "input": "Hello"}


def test_a_model_of_another_format_does_not_have_it(served):
    reply = served.post("/v1/responses/compact", {"model": "claude-x", "input": "a"}, KEY)
    assert reply.status == 501
    assert reply.error["code"] == "not_supported"
    assert reply.error["param"] == "model"
    assert reply.headers["x-should-retry"] == "false"
    assert served.post("/v1/responses/compact", {"input": "a"}, KEY).error["param"] == "model"
    unknown = served.post("/v1/responses/compact", {"model": "nobody", "input": "a"}, KEY)
    assert unknown.status == 404


UNMARKED = sorted(
    {g.name for g in GROUPS if g.treatment == "marked"} - set(PASSES) - {"stored_completions"}
)


@pytest.mark.parametrize("name", UNMARKED)
def test_what_nobody_is_marked_for_is_refused_by_name(served, kept, name):
    (group,) = (group for group in GROUPS if group.name == name)
    for entry in group.entries:
        *methods, template = entry.split()
        path = "/v1" + template.replace("{", "a").replace("}", "")
        before = len(kept.asked)
        reply = served.ask(methods[0], path, b"{}", KEY)
        assert reply.status == 501, path
        assert reply.error["code"] == "not_supported"
        assert f"passes: [{name}]" in reply.error["message"]
        assert len(kept.asked) == before


@pytest.mark.parametrize(
    ("method", "path", "instead"),
    [
        ("GET", "/v1/organization/costs", "/metrics"),
        ("POST", "/v1/realtime/client_secrets", "provider itself"),
        ("POST", "/openai/v1/realtime/sessions", "provider itself"),
        ("POST", "/v1/chatkit/sessions", "provider itself"),
    ],
)
def test_what_is_never_handed_on_says_what_to_do(served, method, path, instead):
    reply = served.ask(method, path, b"{}", KEY)
    assert reply.status == 501
    assert instead in reply.error["message"]
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/threads/a%2F..%2Fb/c/d/e", "/threads", "/v1/assistants/"]
)
def test_what_the_table_does_not_have_is_not_there(served, kept, path):
    before = len(kept.asked)
    assert served.get(path, **KEY).status == 404
    assert len(kept.asked) == before


@pytest.mark.parametrize("target", ["/v1/threads/../assistants", "http://x/v1/threads/../a"])
def test_dots_lead_nowhere(served, kept, target):
    before = len(kept.asked)
    sent = f"GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {OURS}\r\n\r\n"
    assert raw_exchange(served, sent.encode()).status in (400, 404)
    assert len(kept.asked) == before


def test_another_method_is_405_with_those_that_are_right(served):
    reply = served.ask("PUT", "/v1/assistants", b"{}", KEY)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, POST"


def test_without_a_key_nothing_is_handed_on(served, kept):
    before = len(kept.asked)
    assert served.get("/v1/assistants").status == 401
    assert len(kept.asked) == before


def test_a_body_is_bounded(served, kept):
    before = len(kept.asked)
    reply = served.post("/v1/assistants", b"a" * 100_001, KEY)
    assert reply.status == 413
    assert len(kept.asked) == before


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (Says(b'{"error":{"message":"No such one.","code":"gone"}}', status=404), 404, "gone"),
        (
            Says(b'{"error":{"message":"Bad key sk-theirs."}}', status=401),
            502,
            "backend_credentials",
        ),
        (Says(b"oops", "text/html", status=500), 502, None),
        (Says(status=302, headers=(("location", "http://10.0.0.1/"),)), 502, "bad_response"),
    ],
)
def test_a_refusal_comes_back_in_openais_form(served, kept, said, status, code):
    kept.says["/v1/assistants/refused"] = said
    before = len(kept.asked)
    reply = served.get("/v1/assistants/refused", **KEY)
    assert reply.status == status
    assert reply.error["code"] == code
    assert b"sk-theirs" not in reply.body
    assert b"10.0.0.1" not in reply.body
    assert "sk-theirs" not in served.log
    assert OURS not in served.log
    assert "sk-theirs" not in served.records.read_text()
    assert len(kept.asked) == before + 1


def test_an_answer_that_breaks_off_is_not_ended_cleanly(served, kept):
    kept.says["/v1/vector_stores/cut"] = Says(b'{"id":', cut=True)
    with (
        OpenAI(base_url=f"{served.url}/v1", api_key=OURS, max_retries=0) as sdk,
        pytest.raises(openai.APIConnectionError),
    ):
        sdk.vector_stores.retrieve("cut")
    assert until(served.quiet)


def test_callers_at_once_are_each_answered(sdk, kept):
    kept.says["/v1/vector_stores/many"] = Says(b'{"id":"many","object":"vector_store"}')
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(sdk.vector_stores.retrieve("many").id))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["many"] * 16


@pytest.fixture(scope="module")
def workers(kept: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway of several processes that asks again whatever may pass."""
    backend = kept.backend(passes=["assistants"], max_retries=2, retry_on="transient")
    config = {**NO_MODEL, "backends": [{**backend, "initial_retry_delay": 0.01}]}
    served = Served(tmp_path_factory.mktemp("workers"), config, HEADRACE_WORKERS="2")
    try:
        yield served
    finally:
        served.stop()


def test_workers_hand_on_as_well(workers, kept):
    assert workers.get("/v1/assistants/a").status == 200
    assert kept.last.target == "/v1/assistants/a"
    assert workers.get("/v1/evals").status == 501
    assert workers.get("/v1/nothing").status == 404


def test_what_makes_something_is_asked_once(workers, kept):
    """A provider that fails after it has made something is not asked to make it twice."""
    kept.says["/v1/assistants/fails"] = kept.says["/v1/threads"] = Says(status=503)
    before = len(kept.asked)
    assert workers.post("/v1/threads", {}).status == 503
    assert len(kept.asked) == before + 1
    assert workers.get("/v1/assistants/fails").status == 503
    assert len(kept.asked) == before + 4


@pytest.mark.parametrize(
    ("backends", "told"),
    [
        ([{"name": "a", "base_url": "http://a/v1", "passes": ["asistants"]}], "did you mean"),
        (
            [
                {"name": "a", "base_url": "http://a/v1", "passes": ["evals"]},
                {"name": "b", "base_url": "http://b/v1", "passes": ["evals"]},
            ],
            "'evals' is handed on to 'a' already",
        ),
        (
            [{"name": "a", "provider": "anthropic", "passes": ["evals"]}],
            "has none of OpenAI's other paths",
        ),
    ],
)
def test_a_mark_that_cannot_be_is_refused_at_the_start(backends, told, tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps({"backends": backends}))
    with pytest.raises(LLMInvalidRequestError, match=told):
        load(path, environment={})
