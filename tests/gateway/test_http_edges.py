"""Paths, methods, headers, sizes: HTTP around the requests themselves."""

from __future__ import annotations

import json

import pytest

from gateway.served import Served, raw_exchange

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def small(box_model, tmp_path_factory):
    """A gateway that takes small bodies only, and waits for them only shortly."""
    served = Served(
        tmp_path_factory.mktemp("small"),
        {
            "server": {"max_body_bytes": 4096, "body_timeout_ms": 400},
            "engine": {"kv_tokens": 512},
            "inference": {"context_length": 512},
            "batching": {"max_batch_size": 2},
        },
    )
    try:
        yield served
    finally:
        served.stop()


def test_there_is_an_answer_at_health_and_ready(gateway):
    assert gateway.get("/health").json == {"status": "ok"}
    ready = gateway.get("/ready")
    assert ready.status == 200
    assert ready.json["status"] == "ready"


def test_the_api_describes_itself(gateway):
    reply = gateway.get("/openapi.json")
    assert reply.status == 200
    assert reply.json["openapi"].startswith("3.1")


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/nothing.js",
        "/v1",
        "/v1/nothing",
        "/v1/chat/completions/",
        "/../etc",
    ],
)
def test_an_unknown_path_is_404_in_openais_form(gateway, path):
    reply = gateway.get(path)
    assert reply.status == 404
    assert path in reply.error["message"]
    assert reply.error["code"] == "unknown_path"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_405_with_the_right_one(gateway, method):
    reply = gateway.ask(method, CHAT)
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert reply.error["code"] == "method_not_allowed"


def test_posting_to_what_is_only_read_is_405_with_the_right_one(gateway):
    reply = gateway.post("/v1/models", {})
    assert reply.status == 405
    assert "GET" in reply.headers["allow"]


def test_a_sane_request_id_comes_back(gateway):
    reply = gateway.chat(headers={"x-request-id": "my-id_1.2:3"})
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "my-id_1.2:3"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", "é", "<script>"])
def test_an_odd_request_id_is_replaced(gateway, given):
    reply = gateway.get("/health", **{"x-request-id": given})
    assert reply.headers["x-request-id"].startswith("req_")


def test_no_two_requests_share_an_id(gateway):
    ids = {gateway.get("/health").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_an_error_has_a_request_id_too(gateway):
    reply = gateway.post(CHAT, b"no")
    assert reply.headers["x-request-id"].startswith("req_")
    assert gateway.line_of(reply.headers["x-request-id"])["status"] == 400


def test_a_body_declared_over_the_limit_is_413_before_it_is_sent(small):
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n"
    reply = raw_exchange(small, head.encode())
    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"
    assert "4096" in reply.error["message"]


def test_a_chunked_body_over_the_limit_is_413(small):
    chunk = b"400\r\n" + b" " * 0x400 + b"\r\n"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    reply = raw_exchange(small, head.encode() + chunk * 5)
    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"


def test_a_body_of_just_the_limit_is_read(small):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
    assert small.post(CHAT, body.ljust(4096)).status == 200
    assert small.post(CHAT, body.ljust(4097)).status == 413


def test_a_chunked_body_within_the_limit_is_read(small):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:10], body[10:])) + b"0\r\n\r\n"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert raw_exchange(small, head.encode() + pieces).status == 200


def test_a_body_that_does_not_come_is_408(small):
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    reply = raw_exchange(small, head.encode() + b'{"mess')
    assert reply.status == 408
    assert reply.error["code"] == "request_timeout"


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 6\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused(gateway, sent):
    assert raw_exchange(gateway, sent).status == 400
    assert gateway.get("/health").status == 200


def test_many_requests_go_through_one_connection(gateway):
    connection = gateway.connect()
    try:
        for _ in range(3):
            connection.request("GET", "/health")
            with connection.getresponse() as response:
                assert response.status == 200
                assert json.loads(response.read()) == {"status": "ok"}
    finally:
        connection.close()


def test_a_context_of_our_choosing_is_the_one_that_holds(small):
    reply = small.chat(max_tokens=513)
    assert reply.status == 400
    assert "512" in reply.error["message"]
    long = small.chat("word " * 600, max_tokens=1)
    assert long.status == 400
    assert long.error["code"] == "context_length_exceeded"
