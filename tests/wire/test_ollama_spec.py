"""Ollama's own OpenAPI document judges what we write in its format: bodies, answers and lines.

The document lies beside the checkout; where it does not, what is judged there is left out. What it
says of the fields that we write is held here too, in words of our own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire import ollama, ollama_embed, ollama_generate, ollama_models
from headrace.wire.assemble import deltas
from headrace.wire.engine_metrics import read_engine_metrics

from .ollama_strategies import answers, chat_requests, embedding_requests, prompt_requests

ROOT = Path(__file__).parents[2]
SPEC = next(
    (
        found
        for folder in (ROOT, *ROOT.parents)
        if (found := folder / "shared" / "specs" / "ollama.yaml").is_file()
    ),
    None,
)
modest = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CARD = ollama_models.ModelCard(
    name="m",
    created=1_700_000_000,
    size_bytes=5,
    format="gguf",
    family="llama",
    parameters=134_515_008,
    quantization="Q8_0",
    context_tokens=2048,
    on_cpu=True,
    capabilities=("completion", "tools"),
    settings={"temperature": 0.2, "num_ctx": 2048},
    license="apache-2.0",
    metadata={"general.architecture": "llama", "llama.context_length": 2048},
)


READERS = {
    "/api/chat": ollama.read_request,
    "/api/generate": ollama_generate.read_request,
    "/api/embed": ollama_embed.read_request,
    "/api/show": ollama_models.read_description_request,
}
BODY = re.compile(r"-d '(.*)'", re.DOTALL)


@pytest.fixture(scope="module")
def document():
    if SPEC is None:
        pytest.skip("Ollama's specification is not beside the checkout (../shared/specs)")
    return yaml.safe_load(SPEC.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def judge(document):
    def valid(body: bytes, name: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(body)
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(said)
        return said

    valid(b'{"model": "m", "messages": []}', "ChatRequest")
    with pytest.raises(jsonschema.ValidationError):
        valid(b'{"model": "m", "messages": [{"role": "robot", "content": ""}]}', "ChatRequest")
    return valid


@given(request=chat_requests())
@modest
def test_a_chat_is_one_by_the_specification(judge, request):
    judge(ollama.write_request(request, stream=True), "ChatRequest")


@given(request=prompt_requests())
@modest
def test_a_prompt_is_one_by_the_specification(judge, request):
    judge(ollama_generate.write_request(request, stream=False), "GenerateRequest")


@given(request=embedding_requests)
@modest
def test_a_request_for_embeddings_is_one_by_the_specification(judge, request):
    judge(ollama_embed.write_request(request), "EmbedRequest")


@pytest.mark.parametrize(
    ("codec", "kind"), [(ollama, "Chat"), (ollama_generate, "Generate")], ids=["chat", "generate"]
)
def test_an_answer_is_one_by_the_specification(judge, codec, kind):
    @given(response=answers(chat=codec is ollama))
    @modest
    def whole_and_in_pieces(response):
        judge(codec.write_response(response), f"{kind}Response")
        writer = codec.stream_writer(response_id="", model="m", created=1)
        said = b"".join(writer.write(delta) for delta in deltas(response)) + writer.finish()
        for line in said.splitlines():
            judge(line, f"{kind}StreamEvent")
            judge(line, f"{kind}Response")

    whole_and_in_pieces()


def test_lists_of_models_are_by_the_specification(judge):
    listed = judge(ollama_models.write_models([CARD]), "ListResponse")
    running = judge(ollama_models.write_running([CARD], 1_700_000_000.0), "PsResponse")
    judge(ollama_models.write_description(CARD), "ShowResponse")
    judge(ollama_models.write_version("1"), "VersionResponse")
    result = EmbeddingResult(vectors=[[1.0]], usage=Usage(prompt_tokens=2))
    judge(ollama_embed.write_response(result, total_duration=1), "EmbedResponse")
    assert listed["models"][0]["details"]["parameter_size"] == "134.52M"
    assert running["models"][0]["context_length"] == 2048


def test_the_requests_of_its_own_examples_are_read(document):
    read = 0
    for path, reader in READERS.items():
        for sample in document["paths"][path]["post"]["x-codeSamples"]:
            found = BODY.search(sample["source"])
            assert found is not None, sample["source"]
            reader(found[1].encode())
            read += 1
    assert read > 15


def test_the_answers_of_its_own_examples_are_read(document):
    def example(path: str, method: str = "post") -> bytes:
        answers = document["paths"][path][method]["responses"]["200"]["content"]
        return json.dumps(answers["application/json"]["example"]).encode()

    answer = ollama_generate.read_response(example("/api/generate"))
    assert (answer.text[:6], answer.finish_reason) == ("Hello!", "stop")
    assert answer.usage == Usage(prompt_tokens=11, completion_tokens=18, total_tokens=29)
    assert answer.provider_fields == {
        "total_duration": 174560334,
        "load_duration": 101397084,
        "prompt_eval_duration": 13074791,
        "eval_duration": 52479709,
    }
    chat = ollama.read_response(example("/api/chat"))
    assert chat.text
    assert chat.finish_reason == "stop"
    result = ollama_embed.read_response(example("/api/embed"))
    assert (len(result.vectors[0]), result.usage.prompt_tokens) == (10, 8)
    (listed,) = ollama_models.read_models(example("/api/tags", "get"))
    assert (listed.model_id, listed.created) == ("gemma4", 1759559643)
    (loaded,) = read_engine_metrics(example("/api/ps", "get")).loaded
    assert loaded == "gemma4"


def test_a_model_is_described_by_what_is_known_and_no_more():
    (known,) = json.loads(ollama_models.write_models([CARD]))["models"]
    assert len(known["digest"]) == 64
    assert known["details"]["families"] == ["llama"]
    plain = ollama_models.ModelCard(name="far")
    (unknown,) = json.loads(ollama_models.write_models([plain]))["models"]
    assert unknown["details"] == {"parent_model": ""}
    assert "size" not in unknown
    assert len(unknown["digest"]) == 64
    assert unknown["digest"] != known["digest"]
    (found,) = ollama_models.read_models(ollama_models.write_models([CARD]))
    assert found == ModelInfo(model_id="m", created=1_700_000_000, owned_by="")
    (running,) = json.loads(ollama_models.write_running([plain], 0.0))["models"]
    assert "size_vram" not in running
    assert running["expires_at"].startswith("2262-")


def test_whether_to_stream_is_always_said_for_streams_come_unasked():
    request = EmbeddingRequest(inputs=("a",), model="m")
    assert "stream" not in json.loads(ollama_embed.write_request(request))
    assert json.loads(_chat(stream=False))["stream"] is False
    assert json.loads(_chat(stream=True))["stream"] is True


def _chat(stream: bool) -> bytes:
    from headrace.contracts.messages import LLMMessage
    from headrace.contracts.requests import LLMRequest

    request = LLMRequest(messages=(LLMMessage(role="user", content="hi"),), model="m")
    return ollama.write_request(request, stream=stream)
