"""A gateway that makes spans of its calls, within the trace of whoever asked."""

from __future__ import annotations

import json

import pytest

from backends.upstream import upstream
from gateway.served import Served, run_headrace, until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
CONFIG = {
    "engine": {"enabled": False},
    "embeddings": {"enabled": False},
    "records": {"opentelemetry": True},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with upstream() as far:
        front = Served(
            tmp_path_factory.mktemp("tracing"),
            {**CONFIG, "backends": [{"name": "far", "base_url": f"{far.url}/good/v1"}]},
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="none",
            OTEL_BSP_SCHEDULE_DELAY="10",
        )
        try:
            yield front
        finally:
            front.stop()


def span_of(served, request_id):
    """What the console's exporter wrote of one request."""

    def written():
        decoder, text = json.JSONDecoder(), served.log
        at = text.find("{\n")
        while at >= 0:
            try:
                said, end = decoder.raw_decode(text, at)
            except ValueError:  # it is being written
                return None
            if said.get("attributes", {}).get("headrace.request_id") == request_id:
                return said
            at = text.find("{\n", end)
        return None

    return until(written)


@pytest.mark.parametrize("stream", [False, True])
def test_a_callers_traceparent_is_the_parent_of_the_calls_span(served, stream):
    reply = served.chat(model="far", stream=stream, headers=TRACEPARENT)
    span = span_of(served, reply.headers["x-request-id"])
    assert span["name"] == "chat far"
    assert (span["context"]["trace_id"], span["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
    assert span["resource"]["attributes"]["service.name"] == "headrace"


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}])
def test_without_a_trace_of_the_callers_a_span_begins_one(served, headers):
    reply = served.chat(model="far", headers=headers)
    span = span_of(served, reply.headers["x-request-id"])
    assert span["parent_id"] is None
    assert span["context"]["trace_id"] != f"0x{TRACE}"


def test_an_exporter_that_is_not_installed_ends_the_start_in_one_line(tmp_path):
    path = tmp_path / "headrace.yaml"
    backends = [{"name": "x", "base_url": "http://127.0.0.1:9/v1"}]
    path.write_text(json.dumps({**CONFIG, "server": {"port": 0}, "backends": backends}))
    done = run_headrace("serve", str(path), OTEL_TRACES_EXPORTER="pigeon")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    for word in ("OTEL_TRACES_EXPORTER", "'pigeon'", "pip install", "console"):
        assert word in line
