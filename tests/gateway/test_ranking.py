"""Rankings and classes through the gateway: every face to every format, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.overlap import KEY, Overlap, overlap
from gateway.served import Served, free_port, until
from headrace import Client, EndpointSettings, RetryPolicy
from headrace.contracts.errors import (
    LLMAuthError,
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMRateLimitError,
)
from headrace.wire import rerank as shared
from headrace.wire import rerank_cohere, tei_rerank

QUERY = "what is the capital of france"
DOCUMENTS = [
    "bread is made of flour",
    "paris is the capital of france",
    "the capital of spain is madrid",
]
ORDER = [1, 2, 0]
FORMATS = {"cohere": "", "jina": "/v1", "tei-native": ""}
OFF = {"engine": {"enabled": False}, "embeddings": {"enabled": False}}


@pytest.fixture(scope="module")
def far() -> Iterator[Overlap]:
    with overlap() as server:
        yield server


@pytest.fixture(scope="module")
def front(far, tmp_path_factory) -> Iterator[Served]:
    """A gateway with a backend of each format, and one that ranks nothing."""
    backends = [
        {
            "name": f"by-{name}",
            "provider": name,
            "base_url": far.url + path,
            "api_key": KEY,
            "model": "overlap",
            "max_retries": 0,
            "breaker_failures": 0,
        }
        for name, path in FORMATS.items()
    ]
    backends.append(
        {"name": "talker", "provider": "anthropic", "base_url": far.url, "api_key": "x"}
    )
    records = tmp_path_factory.mktemp("records") / "calls.jsonl"
    backends.append(
        {
            "name": "nowhere",
            "provider": "jina",
            "base_url": f"http://127.0.0.1:{free_port()}/v1",
            "api_key": KEY,
            "max_retries": 0,
        }
    )
    ways = [{"backend": "nowhere"}, {"backend": "talker"}, {"backend": "by-tei-native"}]
    routes = [{"name": "either", "backends": ways}]
    config = {**OFF, "backends": backends, "records": {"file": str(records)}, "routes": routes}
    served = Served(tmp_path_factory.mktemp("front"), config)
    served.records_path = records
    try:
        yield served
    finally:
        served.stop()


def shared_body(**more):
    return {"query": QUERY, "documents": DOCUMENTS, **more}


def order_of(wire):
    return [each["index"] for each in (wire if isinstance(wire, list) else wire["results"])]


@pytest.mark.parametrize("backend", FORMATS)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", shared_body()),
        ("/v2/rerank", shared_body()),
        ("/rerank", shared_body()),
        ("/rerank", {"query": QUERY, "texts": DOCUMENTS}),
        ("/", {"query": QUERY, "texts": DOCUMENTS}),
    ],
    ids=["v1", "v2", "jina-at-root", "tei", "tei-at-root"],
)
def test_every_face_is_answered_by_every_format(front, far, backend, path, body):
    reply = front.post(path, {**body, "model": f"by-{backend}"})
    assert reply.status == 200, reply.body
    assert order_of(reply.json) == ORDER
    if "texts" in body:
        assert reply.json[0]["score"] == pytest.approx(5 / 6)
        assert reply.json[0].keys() == {"index", "score"}
    else:
        assert reply.json["results"][0] == {"index": 1, "relevance_score": pytest.approx(5 / 6)}
        assert reply.json["model"] == f"by-{backend}"
        assert reply.json["meta"]["api_version"]["version"] == (
            "2" if path == "/v2/rerank" else "1"
        )
    _, headers, sent = far.seen[-1]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert sent["model"] == "overlap"


@pytest.mark.parametrize("backend", FORMATS)
def test_what_was_used_is_told_by_those_who_are_told(front, backend):
    reply = front.post("/v2/rerank", shared_body(model=f"by-{backend}"))
    expected = {
        "cohere": (None, {"search_units": 1}),
        "jina": ({"prompt_tokens": 23, "total_tokens": 23}, None),
        "tei-native": ({"prompt_tokens": 11, "total_tokens": 11}, None),
    }[backend]
    assert (reply.json.get("usage"), reply.json["meta"].get("billed_units")) == expected
    tei = front.post(
        "/rerank", {"query": QUERY, "texts": DOCUMENTS, "model": f"by-{backend}"}
    ).headers
    used = None if expected[0] is None else str(expected[0]["prompt_tokens"])
    assert tei.get("x-compute-tokens") == used


@pytest.mark.parametrize("backend", FORMATS)
def test_as_many_come_back_as_are_asked_for_with_their_texts(front, backend):
    documents = [{"text": text, "id": place} for place, text in enumerate(DOCUMENTS)]
    asked = {"top_n": 2, "return_documents": True, "documents": documents}
    reply = front.post("/v1/rerank", shared_body(**asked, model=f"by-{backend}"))
    assert [each["document"]["id"] for each in reply.json["results"]] == ORDER[:2]
    tei = {"query": QUERY, "texts": DOCUMENTS, "return_text": True, "model": f"by-{backend}"}
    ranks = front.post("/rerank", tei).json
    assert [each["text"] for each in ranks] == [DOCUMENTS[place] for place in ORDER]


@pytest.mark.parametrize(
    ("path", "body", "codec"),
    [
        ("/v2/rerank", shared_body(top_n=0), shared),
        ("/v1/rerank", shared_body(documents=[]), shared),
        ("/rerank", shared_body(documents=[1]), shared),
        ("/rerank", {"query": QUERY, "texts": [1]}, tei_rerank),
        ("/rerank", {"query": QUERY}, shared),
        ("/predict", {"inputs": 5}, tei_rerank),
    ],
)
def test_a_wrong_request_is_refused_in_its_own_form(front, path, body, codec):
    reply = front.post(path, body)
    error = codec.read_error(reply.status, reply.body)
    assert type(error) is LLMInvalidRequestError
    expected = 400 if codec is shared else 422
    assert reply.status == expected
    wire = reply.json
    assert (set(wire) >= {"message", "detail"}) is (codec is shared)
    assert (set(wire) == {"error", "error_type"}) is (codec is tei_rerank)


def test_an_unknown_model_and_one_that_ranks_nothing_are_told_apart(front):
    reply = front.post("/v2/rerank", shared_body(model="nobody"))
    assert reply.status == 404
    assert isinstance(shared.read_error(404, reply.body), LLMModelNotFoundError)
    reply = front.post("/v2/rerank", shared_body(model="talker"))
    assert isinstance(shared.read_error(reply.status, reply.body), LLMCapabilityError)
    assert "ranks no documents" in reply.json["message"]
    reply = front.post("/predict", {"inputs": "a", "model": "by-cohere"})
    assert reply.status == 422
    assert "puts no texts in classes" in reply.json["error"]


@pytest.mark.parametrize(
    ("backend", "change", "name"),
    [
        ("jina", {"max_tokens_per_doc": 5}, "max_tokens_per_document"),
        ("tei-native", {"max_tokens_per_doc": 5}, "max_tokens_per_document"),
    ],
)
def test_a_setting_that_a_format_has_not_is_refused_by_name(front, backend, change, name):
    reply = front.post("/v2/rerank", shared_body(model=f"by-{backend}", **change))
    assert reply.status == 400
    assert name in reply.json["message"]


def test_teis_settings_go_to_tei_and_are_refused_elsewhere(front, far):
    asked = {"query": QUERY, "texts": DOCUMENTS, "truncate": True, "raw_scores": True}
    assert front.post("/rerank", {**asked, "model": "by-tei-native"}).status == 200
    assert far.seen[-1][2]["truncate"] is True
    assert far.seen[-1][2]["raw_scores"] is True
    reply = front.post("/rerank", {**asked, "model": "by-cohere"})
    assert reply.status == 422
    assert "'raw_scores'" in reply.json["error"]
    left = {"query": QUERY, "texts": DOCUMENTS, "truncation_direction": "Left"}
    assert front.post("/rerank", {**left, "model": "by-tei-native"}).status == 200
    reply = front.post("/rerank", {**left, "model": "by-jina"})
    assert reply.status == 422
    assert "'truncation_direction'" in reply.json["error"]
    # Cohere cuts long documents in any case.
    reply = front.post(
        "/rerank",
        {"query": QUERY, "texts": DOCUMENTS, "truncate": True, "model": "by-cohere"},
    )
    assert reply.status == 200


def test_coheres_own_field_goes_to_cohere_and_is_told_as_dropped_elsewhere(front, far):
    body = shared_body(priority=5)
    assert front.post("/v2/rerank", {**body, "model": "by-cohere"}).status == 200
    assert far.seen[-1][2]["priority"] == 5
    reply = front.post("/v2/rerank", {**body, "model": "by-jina"})
    assert reply.status == 200
    assert reply.headers["x-headrace-dropped"] == "priority"
    assert "priority" not in far.seen[-1][2]


def test_who_names_no_model_gets_the_first_that_can(front):
    assert front.post("/v1/rerank", shared_body()).json["model"] == "either"
    assert front.post("/predict", {"inputs": "good good bad"}).json[0]["label"] == "GOOD"


def test_where_one_backend_is_gone_the_next_that_can_answers(front, far):
    reply = front.post("/v2/rerank", shared_body(model="either"))
    assert (reply.status, order_of(reply.json)) == (200, ORDER)
    assert reply.json["model"] == "either"
    assert far.seen[-1][0] == "/rerank"
    reply = front.post("/predict", {"inputs": "bad", "model": "either"})
    assert reply.json[0]["label"] == "BAD"


def test_classes_of_one_of_a_pair_and_of_many(front):
    one = front.post("/predict", {"inputs": "bad bad good"})
    assert [each["label"] for each in one.json] == ["BAD", "GOOD"]
    assert one.headers["x-compute-tokens"] == "11"
    assert front.post("/predict", {"inputs": ["good", "good bad"]}).json[0]["label"] == "GOOD"
    many = front.post("/predict", {"inputs": [["good"], ["bad", "bad"]]}).json
    assert [each[0]["label"] for each in many] == ["GOOD", "BAD"]


@pytest.mark.parametrize("backend", FORMATS)
def test_a_busy_backend_is_told_in_the_callers_form(front, backend):
    reply = front.post("/v2/rerank", shared_body(query="fail", model=f"by-{backend}"))
    error = shared.read_error(reply.status, reply.body)
    assert isinstance(error, LLMRateLimitError | LLMOverloadedError)
    reply = front.post("/rerank", {"query": "fail", "texts": ["a"], "model": f"by-{backend}"})
    assert reply.status == 429
    assert reply.json["error_type"] == "Overloaded"
    assert KEY not in front.log


def test_every_ranking_leaves_a_record_and_is_counted(front):
    before = front.metric("headrace_requests_total", model="by-jina")
    front.post("/v1/rerank", shared_body(model="by-jina"))
    assert front.metric("headrace_requests_total", model="by-jina") == before + 1

    def last():
        lines = front.records_path.read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return next((row for row in rows if row["requested_model"] == "by-jina"), None)

    record = until(last)
    assert record["operation"] == "rerank"
    assert record["usage"]["prompt_tokens"] == 23


ONCE = EndpointSettings(retry=RetryPolicy(retries=0))
CLIENTS = {"cohere": "", "openai-compatible": "/v1", "tei-native": ""}


@pytest.mark.parametrize("provider", CLIENTS)
@pytest.mark.parametrize("backend", FORMATS)
def test_our_client_ranks_by_every_form(front, provider, backend):
    with Client(
        provider=provider,
        base_url=front.url + CLIENTS[provider],
        api_key="any",
        endpoint=ONCE,
    ) as client:
        result = client.rerank(
            QUERY, DOCUMENTS, model=f"by-{backend}", top_n=2, return_documents=True
        )
        assert [each.index for each in result.results] == ORDER[:2]
        assert result.results[0].document == DOCUMENTS[1]
        assert result.results[0].relevance_score == pytest.approx(5 / 6)
        with pytest.raises(LLMModelNotFoundError):
            client.rerank(QUERY, DOCUMENTS, model="nobody")
        with pytest.raises((LLMRateLimitError, LLMOverloadedError)):
            client.rerank("fail", DOCUMENTS, model=f"by-{backend}")


def test_our_client_puts_texts_in_classes(front):
    with Client(provider="tei-native", base_url=front.url) as client:
        result = client.classify(["good", ("bad", "bad")], model="by-tei-native")
        assert [each[0].label for each in result.labels] == ["GOOD", "BAD"]
        assert result.usage is not None
        assert result.usage.prompt_tokens == 11


def test_what_our_client_cannot_be_given_is_refused_by_name(front):
    with Client(provider="jina", base_url=f"{front.url}/v1", api_key="any") as client:
        with pytest.raises(LLMCapabilityError, match="raw_scores"):
            client.rerank(QUERY, DOCUMENTS, model="by-jina", raw_scores=True)
        with pytest.raises(LLMCapabilityError, match="puts no texts in classes"):
            client.classify("a", model="by-jina")
        with pytest.raises(LLMInvalidRequestError, match="no documents"):
            client.rerank(QUERY, [], model="by-jina")
    assert rerank_cohere.ALWAYS["truncate"] is True


def test_a_key_is_asked_for_as_everywhere(tmp_path, far):
    backend = {"name": "by-jina", "provider": "jina", "base_url": f"{far.url}/v1", "api_key": KEY}
    config = {**OFF, "backends": [backend], "server": {"api_keys": ["hr-one"]}}
    served = Served(tmp_path, config)
    try:
        for path, body in (
            ("/v1/rerank", shared_body()),
            ("/v2/rerank", shared_body()),
            ("/rerank", {"query": QUERY, "texts": DOCUMENTS}),
            ("/", {"query": QUERY, "texts": DOCUMENTS}),
            ("/generate", {"inputs": "a"}),
            ("/predict", {"inputs": "a"}),
        ):
            assert served.post(path, body).status == 401, path
        assert served.get("/info").status == 401
        assert served.get("/").status == 200
        good = {"authorization": "Bearer hr-one"}
        assert served.post("/", {"query": QUERY, "texts": DOCUMENTS}, good).status == 200
        with (
            Client(provider="cohere", base_url=served.url, api_key="wrong") as client,
            pytest.raises(LLMAuthError),
        ):
            client.rerank(QUERY, DOCUMENTS, model="by-jina")
    finally:
        served.stop()
