"""Models out of folders behind the gateway, asked by OpenAI's SDK; with workers, and by --model."""

from __future__ import annotations

import json
import os
import signal

import pytest
from openai import BadRequestError, OpenAI

from gateway.far import NO_MODEL
from gateway.served import Served, until
from local import tiny

pytest.importorskip("torch", reason="torch is not installed: make test-local")
pytest.importorskip("transformers", reason="as torch")

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.llama(folder / "tiny")
    tiny.sentence_transformer(folder / "vectors")
    tiny.bert(folder / "ranker", labels=1)
    return folder


def config(models, **more):
    usual = {"backend": "transformers", "extra_env": {"OMP_NUM_THREADS": "1"}}
    engines = [
        {"name": "tiny", "model": str(models / "tiny"), **usual, **more},
        {"name": "vectors", "model": str(models / "vectors"), "models": ["vec-1"], **usual},
        {"name": "ranker", "model": str(models / "ranker"), **usual},
    ]
    return {**NO_MODEL, "engines": engines}


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def served(request, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    found = Served(folder, config(models), ["--workers", str(request.param)])
    yield found
    found.stop()


@pytest.fixture(scope="module")
def client(served):
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_a_chat_is_the_same_streamed_and_whole(client):
    asked = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    events = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(each.choices[0].delta.content or "" for each in events if each.choices)
    assert whole.choices[0].message.content == text
    assert text
    assert whole.choices[0].finish_reason in ("length", "stop")
    assert events[-1].usage == whole.usage
    assert whole.usage.completion_tokens <= 12
    assert whole.system_fingerprint.startswith("transformers-")


def test_settings_are_carried_out_dropped_or_refused_by_name(client):
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8}
    several = client.chat.completions.create(**asked, n=2, seed=3, logprobs=True, top_logprobs=2)
    assert len(several.choices) == 2
    assert len(several.choices[0].logprobs.content[0].top_logprobs) == 2
    raw = client.chat.completions.with_raw_response.create(**asked, store=True)
    assert raw.headers["x-headrace-dropped"] == "store"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for wrong, param in (
        ({"tools": [tool]}, "tools"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"extra_body": {"mirostat": 2}}, "mirostat"),
    ):
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(**asked, **wrong)
        assert refused.value.param == param
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
    }
    described = {"name": "answer", "strict": True, "schema": schema}
    held = client.chat.completions.create(
        **{**asked, "max_tokens": 60, "temperature": 1.0},
        response_format={"type": "json_schema", "json_schema": described},
    )
    assert isinstance(json.loads(held.choices[0].message.content)["age"], int)


def test_vectors_come_by_the_engines_own_names(client):
    made = client.embeddings.create(model="vec-1", input=["A fox", "A crow"])
    assert [len(each.embedding) for each in made.data] == [32, 32]
    assert made.usage.prompt_tokens > 4
    with pytest.raises(BadRequestError, match="at most 48"):
        client.embeddings.create(model="vec-1", input="fox " * 100)
    with pytest.raises(BadRequestError, match="makes text, not embeddings"):
        client.embeddings.create(model="tiny", input="A fox")
    with pytest.raises(BadRequestError, match="makes embeddings, not text"):
        client.chat.completions.create(model="vec-1", messages=MESSAGES)


def test_documents_are_ranked_and_scored_by_whoever_can(served):
    documents = ["The river runs.", "A fox met a crow.", "1 + 1 = 2"]
    for named in ({"model": "ranker"}, {}):
        body = {"query": "Who met?", "documents": documents, "top_n": 2, **named}
        reply = served.post("/v1/rerank", body)
        assert reply.status == 200, reply.body
        first, second = reply.json["results"]
        assert first["relevance_score"] >= second["relevance_score"] > 0
        assert {first["index"], second["index"]} < {0, 1, 2}
    tei = served.post("/rerank", {"query": "Who met?", "texts": documents, "raw_scores": True})
    assert [each["index"] for each in tei.json[:2]] == [first["index"], second["index"]]
    classes = served.post("/predict", {"inputs": [["A fox"], ["crow"]]})
    assert [[each["label"] for each in of] for of in classes.json] == [["LABEL_0"], ["LABEL_0"]]
    wrong = served.post("/v1/rerank", {"model": "tiny", "query": "q", "documents": ["d"]})
    assert wrong.status == 400
    assert "ranks" in wrong.body.decode()


def test_anthropics_face_leads_there_too(served):
    body = {"model": "tiny", "max_tokens": 8, "messages": MESSAGES, "temperature": 0}
    reply = served.post("/v1/messages", body, {"anthropic-version": "2023-06-01"})
    assert reply.status == 200, reply.body
    assert reply.json["content"][0]["text"]
    assert reply.json["usage"]["output_tokens"] <= 8


def test_the_snapshot_tells_of_its_process_and_a_death_is_mended(served, client):
    asked = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 6}
    before = client.chat.completions.create(**asked).choices[0].message.content

    def shown():
        lanes = served.get("/snapshot").json["lanes"]
        return next(lane["server"] for lane in lanes if lane["name"] == "tiny")

    first = until(shown)
    assert (first["state"], first["restarts"], first["backend"]) == ("ready", 0, "transformers")
    os.kill(first["pid"], signal.SIGKILL)
    after = client.chat.completions.create(**asked).choices[0].message.content
    assert after == before
    assert until(lambda: shown()["restarts"] == 1)
    assert shown()["pid"] != first["pid"]


def test_a_models_folder_is_served_as_the_model(models, tmp_path):
    folder = str(models / "tiny")
    without = {"embeddings": {"enabled": False}}
    served = Served(tmp_path, without, ["--model", folder], OMP_NUM_THREADS="1")
    try:
        listed = served.get("/v1/models").json["data"]
        assert [each["id"] for each in listed] == ["tiny"]
        assert served.chat(model="tiny", max_tokens=2).status == 200
        assert served.chat(max_tokens=2).status == 200
    finally:
        served.stop()
