"""Embeddings through the gateway: the real model, OpenAI's own client, real sockets."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from gateway.served import MODEL, Served, children, is_alive, until

EMBEDDER = "all-minilm-l6-v2"
WEATHER = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PATH = "/v1/embeddings"

pytestmark = pytest.mark.usefixtures("embedding_model")


def embed(sdk, text, **settings):
    return sdk.embeddings.create(**{"model": EMBEDDER, "input": text, **settings})


def similarity(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_sdk_gets_vectors_with_the_published_similarities(sdk):
    answer = embed(sdk, WEATHER)
    first, second, third = (each.embedding for each in answer.data)
    # https://sbert.net/docs/quickstart.html
    assert similarity(first, second) == pytest.approx(0.6660, abs=0.001)
    assert similarity(first, third) == pytest.approx(0.1046, abs=0.001)
    assert similarity(second, third) == pytest.approx(0.1411, abs=0.001)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert answer.model == EMBEDDER
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 25


def test_a_vector_has_length_one(sdk):
    (vector,) = (each.embedding for each in embed(sdk, "anything").data)
    assert len(vector) == 384
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)


def test_both_encodings_say_the_same(gateway, sdk):
    (as_base64,) = (each.embedding for each in embed(sdk, WEATHER[0]).data)
    (as_numbers,) = (
        each.embedding for each in embed(sdk, WEATHER[0], encoding_format="float").data
    )
    assert as_numbers == pytest.approx(as_base64, abs=1e-7)
    raw = gateway.post(PATH, {"input": WEATHER[0], "encoding_format": "base64"}).json
    packed = base64.b64decode(raw["data"][0]["embedding"])
    assert list(struct.unpack("<384f", packed)) == pytest.approx(as_base64, abs=1e-7)


def test_token_ids_are_the_models_own(sdk):
    text = embed(sdk, "hello world")
    alone, among = embed(sdk, [101, 7592, 2088, 102]), embed(sdk, [[101, 7592, 2088, 102], [101]])
    for answer in (alone, among):
        assert similarity(answer.data[0].embedding, text.data[0].embedding) > 0.9999
    assert alone.usage.prompt_tokens == text.usage.prompt_tokens == 4
    assert among.usage.prompt_tokens == 5


def test_the_embedding_model_answers_who_names_none(gateway):
    reply = gateway.post(PATH, {"input": "a"})
    assert reply.status == 200
    assert reply.json["model"] == EMBEDDER


def test_the_path_without_v1_works_too(gateway):
    assert gateway.post("/embeddings", {"input": "a"}).status == 200


def test_the_model_is_listed_behind_the_chat_model(sdk):
    listed = sdk.models.list().data
    assert [model.id for model in listed] == [MODEL, EMBEDDER]
    assert listed[1].max_model_len == 256


def test_many_inputs_come_back_in_their_order(sdk):
    texts = [f"{word} number {i}" for i in range(35) for word in ("apple", "zebra")]
    answer = embed(sdk, texts)
    assert len(answer.data) == 70
    for place in (0, 1, 31, 32, 33, 68, 69):
        alone = embed(sdk, texts[place]).data[0].embedding
        assert similarity(answer.data[place].embedding, alone) > 0.9999
    assert answer.usage.prompt_tokens == 70 * 5


def test_callers_at_once_get_each_their_own_vectors_and_counts(sdk):
    texts = [f"sentence {'and more ' * i}" for i in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda text: embed(sdk, text), texts))
    together = embed(sdk, texts)
    for i, (answer, among) in enumerate(zip(answers, together.data, strict=True)):
        assert answer.usage.prompt_tokens == 3 + 2 * i
        assert similarity(answer.data[0].embedding, among.embedding) > 0.9999


def test_an_input_that_is_too_long_is_named_and_not_cut(sdk):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(sdk, ["short", "word " * 300])
    assert caught.value.param == "input[1]"
    assert caught.value.code == "context_length_exceeded"
    assert "302 tokens" in caught.value.body["message"]
    assert "at most 256" in caught.value.body["message"]
    with pytest.raises(openai.BadRequestError) as caught:
        embed(sdk, "word " * 300)
    assert caught.value.param == "input"


@pytest.mark.parametrize("dimensions", [1, 128, 385])
def test_other_dimensions_are_refused_as_the_model_was_not_trained_for_them(sdk, dimensions):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(sdk, "a", dimensions=dimensions)
    assert caught.value.param == "dimensions"
    assert caught.value.code == "unsupported"
    assert "384" in caught.value.body["message"]


def test_the_models_own_dimensions_may_be_asked_for(sdk):
    assert len(embed(sdk, "a", dimensions=384).data[0].embedding) == 384


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({}, 400, "input", "Missing required parameter"),
        ({"input": ""}, 400, "input", "not empty"),
        ({"input": ["a", ""]}, 400, "input[1]", "not empty"),
        ({"input": ["a"] * 2049}, 400, "input", "at most 2048"),
        ({"input": [99_999]}, 400, "input", "token ids"),
        ({"input": "a", "encoding_format": "f16"}, 400, "encoding_format", "'float', 'base64'"),
        ({"input": "a", "dimension": 3}, 400, "dimension", "did you mean 'dimensions'?"),
        ({"input": "a", "model": MODEL}, 400, "model", "makes text, not embeddings"),
        ({"input": "a", "model": "all-minilm"}, 404, "model", f"did you mean '{EMBEDDER}'?"),
        (b"{", 400, None, "not valid JSON"),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(gateway, body, status, param, words):
    reply = gateway.post(PATH, body)
    assert reply.status == status
    assert reply.error["param"] == param
    assert words in reply.error["message"]


def test_the_embedding_model_does_not_chat(gateway):
    reply = gateway.chat(model=EMBEDDER)
    assert reply.status == 400
    assert reply.error["param"] == "model"
    assert "ask /v1/embeddings" in reply.error["message"]


def test_a_field_with_nothing_to_do_is_listed_as_dropped(gateway):
    reply = gateway.post(PATH, {"input": "a", "user": "someone"})
    assert reply.status == 200
    assert reply.headers["x-headrace-dropped"] == "user"
    assert "x-headrace-dropped" not in gateway.post(PATH, {"input": "a"}).headers


def test_metrics_tell_embeddings_from_the_rest(gateway, sdk):
    def counted(name, **labels):
        return gateway.metric(name, gen_ai_operation_name="embeddings", **labels)

    calls = "gen_ai_server_request_duration_seconds_count"
    before = gateway.metric("vllm:prompt_tokens_total", model_name=EMBEDDER)
    done, failed = counted(calls, error_type=""), counted(calls, error_type="LLMCapabilityError")
    embed(sdk, "hello world")
    with pytest.raises(openai.BadRequestError):
        embed(sdk, "a", dimensions=3)
    assert gateway.metric("vllm:prompt_tokens_total", model_name=EMBEDDER) == before + 4
    assert counted(calls, error_type="") == done + 1
    assert counted(calls, error_type="LLMCapabilityError") == failed + 1
    assert gateway.quiet()


def test_the_log_has_a_line_for_it_without_the_text(gateway):
    reply = gateway.post(PATH, {"input": "the secret recipe"})
    line = gateway.line_of(reply.headers["x-request-id"])
    assert (line["path"], line["status"], line["model"]) == (PATH, 200, EMBEDDER)
    assert "secret recipe" not in gateway.log


def test_the_openapi_document_describes_it(gateway):
    document = gateway.get("/openapi.json").json
    operation = document["paths"][PATH]["post"]
    assert operation["responses"]["200"]["content"].keys() == {"application/json"}
    schema = document["components"]["schemas"]["EmbeddingRequest"]
    assert schema["required"] == ["input"]
    assert schema["properties"].keys() == {
        *("input", "model", "dimensions", "encoding_format", "user"),
    }


def test_one_who_leaves_harms_nobody(gateway, sdk):
    body = json.dumps({"input": ["word " * 200] * 200}).encode()
    connection = gateway.connect()
    connection.request("POST", PATH, body, {"content-type": "application/json"})
    until(lambda: not gateway.quiet())
    connection.close()
    assert len(embed(sdk, "still there?").data) == 1
    until(gateway.quiet)


# Gateways of their own.


@pytest.fixture
def serve(tmp_path: Path, box_model) -> Iterator[object]:
    """Starts gateways and ends them after the test."""
    started: list[Served] = []

    def start(config: dict[str, object] | None = None, **variables: str) -> Served:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Served(folder, config, **variables))
        return started[-1]

    yield start
    for served in started:
        served.stop()


SMALL = {"engine": {"kv_tokens": 1024}, "batching": {"max_batch_size": 4}}


def test_nothing_of_it_runs_until_somebody_asks(serve):
    served = serve(SMALL)
    served.wait_until_ready()
    assert len(children(served.process.pid)) == 1
    assert "embedding model" not in served.log
    assert served.get("/ready").json["backends"][EMBEDDER] == {"ok": True}
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda text: served.post(PATH, {"input": text}), "abc"))
    assert [reply.status for reply in replies] == [200] * 3
    assert len(children(served.process.pid)) == 2
    assert served.log.count("is being started") == 1


def test_it_starts_with_the_server_where_that_is_asked_for(serve):
    served = serve({**SMALL, "embeddings": {"at_start": True}})
    until(lambda: f"the embedding model {EMBEDDER} is ready" in served.log)
    assert len(children(served.process.pid)) == 2


def test_its_engine_is_started_again_when_it_dies_and_ends_with_the_server(serve):
    served = serve(SMALL)
    (chat,) = children(served.process.pid)
    assert served.post(PATH, {"input": "a"}).status == 200
    (engine,) = set(children(served.process.pid)) - {chat}
    os.kill(engine, signal.SIGKILL)
    until(lambda: not is_alive(engine))
    reply = until(lambda: r if (r := served.post(PATH, {"input": "a"})).status != 503 else None)
    assert reply.status == 200
    (again,) = set(children(served.process.pid)) - {chat}
    assert again != engine
    assert served.stop() == 0
    assert not is_alive(again)


def test_without_a_network_chat_works_and_embeddings_say_what_is_missing(
    serve, tmp_path, box_model
):
    # A cache that has the chat model only, and an index that nobody can reach.
    cache = tmp_path / "cache"
    (cache / "models").mkdir(parents=True)
    (cache / "models" / MODEL).symlink_to(box_model.path.parent)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    offline = {**nowhere, "PIP_EXTRA_INDEX_URL": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    served = serve(SMALL, HEADRACE_CACHE=str(cache), **offline)
    served.wait_until_ready()
    assert served.chat().status == 200
    reply = served.post(PATH, {"input": "a"})
    assert reply.status == 503
    assert "could not be fetched" in reply.error["message"]
    # Not tried again by every caller: they are told when.
    again = served.post(PATH, {"input": "a"})
    assert again.status == 503
    assert 1 <= int(again.headers["retry-after"]) <= 30
    assert served.log.count("is being started") == 1
    assert served.get("/ready").status == 200
    assert served.chat().status == 200


def test_it_can_be_switched_off(serve):
    served = serve({**SMALL, "embeddings": {"enabled": False}})
    assert [model["id"] for model in served.get("/v1/models").json["data"]] == [MODEL]
    reply = served.post(PATH, {"input": "a"})
    assert reply.status == 400
    assert "no model of this server makes embeddings" in reply.error["message"]
    assert served.post(PATH, {"input": "a", "model": EMBEDDER}).status == 404


def test_it_can_have_another_name_and_serve_alone(serve):
    aliases = ["text-embedding-*"]
    served = serve(
        {
            "engine": {"enabled": False},
            "embeddings": {"name": "mini", "aliases": aliases, "max_input_tokens": 8},
        }
    )
    assert [model["id"] for model in served.get("/v1/models").json["data"]] == ["mini"]
    for name in ("mini", "text-embedding-3-small"):
        reply = served.post(PATH, {"input": "a", "model": name})
        assert (reply.status, reply.json["model"]) == (200, "mini")
    reply = served.post(PATH, {"input": "one two three four five six seven"})
    assert "9 tokens" in reply.error["message"]
    assert "at most 8" in reply.error["message"]
    assert served.chat().error["param"] == "model"


def test_a_key_is_asked_for_as_everywhere(serve):
    served = serve({**SMALL, "server": {"api_keys": ["hr-one"]}})
    assert served.post(PATH, {"input": "a"}).status == 401
    good = {"authorization": "Bearer hr-one"}
    assert served.post(PATH, {"input": "a"}, good).status == 200


def test_another_gateway_can_be_the_backend(gateway, serve):
    front = serve(
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "backends": [
                {"name": "behind", "base_url": f"{gateway.url}/v1", "models": ["all-*", "smol*"]}
            ],
        }
    )
    with OpenAI(base_url=f"{front.url}/v1", api_key="unused", max_retries=0) as sdk:
        answer = embed(sdk, WEATHER)
        first, second, _ = (each.embedding for each in answer.data)
        assert similarity(first, second) == pytest.approx(0.6660, abs=0.001)
        assert answer.usage.prompt_tokens == 25
        with pytest.raises(openai.BadRequestError) as caught:
            embed(sdk, ["short", "word " * 300])
        assert caught.value.param == "input[1]"
        assert caught.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError, match="makes text, not embeddings"):
            embed(sdk, "a", model=MODEL)


class Upstream:
    """A provider on a socket that answers every POST with the same, and keeps what it was sent."""

    def __init__(self, status: int, answer: object) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, object]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.path, headers, body))
                said = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                """Nothing: the test's output is for failures."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def config(self) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        backend = {"name": "up", "base_url": url, "models": ["embed-*"], "api_key": "sk-theirs"}
        off = {"enabled": False}
        return {"engine": off, "embeddings": off, "backends": [backend]}

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def upstream() -> Iterator[object]:
    opened: list[Upstream] = []

    def start(answer: object, status: int = 200) -> Upstream:
        opened.append(Upstream(status, answer))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_provider_is_sent_what_was_asked_and_its_vectors_are_passed_on(serve, upstream):
    data = [{"index": 1, "embedding": [0.25, 0.5]}, {"index": 0, "embedding": [1.5, -2]}]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    up = upstream({"object": "list", "data": data, "model": "theirs", "usage": usage})
    served = serve(up.config)
    asked = {"model": "embed-large", "input": ["a", [5]], "dimensions": 2, "user": "me", "x": {}}
    reply = served.post(PATH, asked)
    assert reply.status == 200
    assert [each["embedding"] for each in reply.json["data"]] == [[1.5, -2], [0.25, 0.5]]
    assert reply.json["usage"] == usage
    ((path, headers, body),) = up.seen
    assert path == "/v1/embeddings"
    assert headers["authorization"] == "Bearer sk-theirs"
    assert body == {**asked, "encoding_format": "base64"}


@pytest.mark.parametrize(
    ("answer", "status", "got", "code"),
    [
        ({"error": {"message": "slow down"}}, 429, 429, "rate_limit_exceeded"),
        # Whose key is wrong is ours, not the caller's.
        ({"error": {"message": "no such key"}}, 401, 502, "backend_credentials"),
        ({"data": [{"embedding": [1]}, {"embedding": [2]}]}, 200, 502, "bad_response"),
        ({"data": [{"embedding": "AAAA"}]}, 200, 502, "bad_response"),
        ({"data": []}, 200, 502, "bad_response"),
    ],
)
def test_what_goes_wrong_at_a_provider_has_the_right_status(
    serve, upstream, answer, status, got, code
):
    served = serve(upstream(answer, status).config)
    reply = served.post(PATH, {"model": "embed-large", "input": "a"})
    assert (reply.status, reply.error["code"]) == (got, code)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"engine": {"model": EMBEDDER}}, "makes embeddings and cannot chat"),
        ({"embeddings": {"model": MODEL}}, "was not made for embeddings"),
        ({"embeddings": {"model": "no/such.gguf"}}, "neither a file nor a known name"),
        (
            {"engine": {"enabled": False}, "embeddings": {"enabled": False}},
            "nothing to serve",
        ),
    ],
)
def test_a_configuration_that_cannot_be_carried_out_is_refused_at_the_start(
    tmp_path, config, words, box_model
):
    with pytest.raises(AssertionError, match=words):
        Served(tmp_path, config).stop()
