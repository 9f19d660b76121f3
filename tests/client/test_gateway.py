"""The client against our own gateway with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
import pytest

from gateway.served import MODEL, Served, free_port
from headrace import Client, LLMMessage, LLMOutputError, LLMRequest, Usage
from headrace.contracts.record import CallRecord
from headrace.stores.credentials import Credentials

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
EMBEDDER = "all-minilm-l6-v2"
ASK = LLMMessage(role="user", content="Say hello.")


@pytest.fixture
def records() -> list[CallRecord]:
    return []


@pytest.fixture
def client(gateway: Served, records: list[CallRecord]) -> Iterator[Client]:
    with Client(
        MODEL, base_url=f"{gateway.url}/v1", credentials=NOTHING, sinks=[records.append]
    ) as client:
        yield client


def test_a_chat_is_answered(client: Client, gateway: Served, records: list[CallRecord]) -> None:
    response = client.chat([ASK], temperature=0, max_tokens=8)
    assert response.text
    assert response.model == MODEL
    assert response.finish_reason in ("stop", "length")
    assert isinstance(response.usage, Usage)
    assert response.usage.completion_tokens is not None
    assert 1 <= response.usage.completion_tokens <= 8
    assert response.provenance is not None
    assert response.provenance.base_url == f"{gateway.url}/v1"
    (record,) = records
    assert (record.status, record.usage) == (200, response.usage)
    line = record.timeline
    instants = [line.queued, line.admitted, line.sent, line.first_byte, line.first_token, line.done]
    assert instants == sorted(instants)  # type: ignore[type-var]


def test_a_stream_says_what_the_whole_answer_says(client: Client) -> None:
    whole = client.chat([ASK], temperature=0, max_tokens=8)
    *deltas, last = client.stream_chat([ASK], temperature=0, max_tokens=8)
    assert {event.kind for event in deltas} == {"delta"}
    assert last.kind == "completed"
    assert last.response is not None
    assert "".join(event.delta_text or "" for event in deltas) == last.response.text == whole.text
    assert last.response.finish_reason == whole.finish_reason
    assert last.response.usage is not None
    assert last.response.provenance is not None


def test_a_request_object_is_answered_in_both_ways(client: Client) -> None:
    request = LLMRequest(messages=(ASK,), temperature=0, max_tokens=8)
    pieces = [delta.text_delta or "" for delta in client.stream(request)]
    assert "".join(pieces) == client.generate(request).text != ""


def test_a_prompt_is_continued(client: Client) -> None:
    request = LLMRequest(messages=(), prompt="One, two, three,", temperature=0, max_tokens=6)
    assert client.generate(request).text


def test_the_health_of_the_gateway_is_told(client: Client, gateway: Served) -> None:
    status = client.healthcheck()
    assert status.ok
    assert MODEL in status.details["models"]  # type: ignore[index,operator]
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with Client(MODEL, base_url=nobody, credentials=NOTHING) as other:
        assert not other.healthcheck().ok


def test_a_client_tells_all_of_itself_in_json(client: Client) -> None:
    client.chat([ASK], max_tokens=1)
    described = json.loads(json.dumps(client.describe()))
    assert described["config"]["model"] == MODEL
    assert described["server"] is None
    (endpoint,) = described["endpoints"].values()
    assert endpoint["stats"]["successes"] == 1
    assert described["capabilities"]["streaming"] is True


def test_the_gateway_answers_where_the_first_backend_is_dead(gateway: Served) -> None:
    places = {
        "VLLM_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
        "LLAMA_SERVER_BASE_URL": f"{gateway.url}/v1",
    }
    found = Credentials(environment=places, dotenv=None, config=None, seed=None)
    records: list[CallRecord] = []
    with Client(
        "vllm/dead",
        fallbacks=[f"llama-server/{MODEL}"],
        credentials=found,
        sinks=[records.append],
    ) as client:
        response = client.chat([ASK], max_tokens=4)
    assert response.text
    assert (response.provider, response.model) == ("llama-server", MODEL)
    assert [each.backend for each in records[0].attempts] == ["vllm", "llama-server"]
    assert records[0].attempts[0].error_kind == "LLMUnavailableError"


@pytest.mark.usefixtures("embedding_model")
def test_texts_become_vectors(client: Client, records: list[CallRecord]) -> None:
    result = client.embed(["rain", "snow"], model=EMBEDDER)
    assert [len(vector) for vector in result.vectors] == [384, 384]
    assert [record.operation for record in records] == ["embeddings"]


class River(msgspec.Struct):
    name: str
    length_km: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    kind: Literal["river", "stream"]


ASK_RIVER = "The Rhine is a river of 1233 km. What is its name, length and kind?"


def test_an_answer_comes_as_an_object(client: Client, records: list[CallRecord]) -> None:
    result = client.chat(ASK_RIVER, output=River, temperature=0, max_tokens=100)
    assert isinstance(result.output, River)
    assert msgspec.json.decode(result.response.text, type=River) == result.output
    assert (result.asks, result.repaired, len(records)) == (1, False, 1)


def test_an_object_is_seen_while_it_is_written(client: Client) -> None:
    *views, last = client.stream_output(ASK_RIVER, output=River, temperature=0, max_tokens=100)
    assert last.result is not None
    assert views[-1].partial == msgspec.to_builtins(last.result.output)
    lengths = [len(view.partial) for view in views]  # type: ignore[arg-type]
    assert lengths == sorted(lengths)
    assert len(views) > 3


def test_an_object_that_is_cut_by_length_is_said_to_be(client: Client) -> None:
    with pytest.raises(LLMOutputError) as caught:
        client.chat(ASK_RIVER, output=River, temperature=0, max_tokens=5)
    assert (caught.value.code, caught.value.asks) == ("cut_by_length", 1)
