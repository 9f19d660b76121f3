"""TGI's and TEI's own specifications judge what we write, both as their client and in their place.

They lie beside the checkout; without them the promises are held by the tests of the codecs alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from headrace.contracts.errors import LLMInvalidRequestError, LLMOverloadedError, LLMProviderError
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    LabelScore,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMResponse, TokenLogprob
from headrace.numbers.ranking import ranked
from headrace.wire import rerank, tei, tei_predict, tei_rerank, tgi
from headrace.wire.assemble import deltas
from wire.test_tei import classification_requests, embedding_requests
from wire.test_tgi import answers
from wire.test_tgi import requests as generation_requests

ROOT = Path(__file__).parents[2]
PLACES = [folder / "shared" / "specs" for folder in (ROOT, *ROOT.parents)]
FOUND = next((place for place in PLACES if (place / "tgi.json").is_file()), None)

pytestmark = pytest.mark.skipif(FOUND is None, reason="no specifications beside the checkout")
few = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def judge(name: str, schema: str) -> Draft202012Validator:
    assert FOUND is not None
    document = _without_nullable(json.loads((FOUND / f"{name}.json").read_text()))
    assert schema in document["components"]["schemas"]
    return Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"})


def _without_nullable(node: Any) -> Any:
    """``node`` in the words of JSON Schema, which says ``nullable`` in another way."""
    if isinstance(node, list):
        return [_without_nullable(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _without_nullable(value) for key, value in node.items()}
    # An example of theirs is no schema, and one that is called so would be read as one.
    plain.pop("example", None)
    return {"anyOf": [plain, {"type": "null"}]} if plain.pop("nullable", None) is True else plain


def test_the_judge_finds_what_is_wrong():
    judged = judge("tgi", "GenerateRequest")
    assert judged.is_valid({"inputs": "a", "parameters": {"temperature": None}})
    assert not judged.is_valid({"inputs": "a", "parameters": {"temperature": 0}})
    assert not judged.is_valid({"parameters": {}})


def test_every_request_to_tgi_is_valid():
    judged = judge("tgi", "CompatGenerateRequest")
    names = judge("tgi", "GenerateParameters").schema["components"]["schemas"]
    known = names["GenerateParameters"]["properties"].keys()

    @few
    @given(asked=generation_requests, stream=st.booleans())
    def every(asked: LLMRequest, stream: bool) -> None:
        wire = json.loads(tgi.write_request(asked, stream=stream))
        judged.validate(wire)
        assert wire["parameters"].keys() <= known

    every()


def test_every_answer_in_tgis_place_is_valid():
    whole, event = judge("tgi", "GenerateResponse"), judge("tgi", "StreamResponse")

    @few
    @given(said=answers())
    def every(said: LLMResponse) -> None:
        whole.validate(json.loads(tgi.write_response(said)))
        writer = tgi.stream_writer()
        sent = b"".join(map(writer.write, deltas(said))) + writer.finish()
        for line in sent.decode().split("\n"):  # not at what else ends a line for Python
            if line:
                event.validate(json.loads(line.removeprefix("data: ")))

    every()


def test_an_answer_whose_tokens_nobody_knows_is_valid_too():
    unknown = TokenLogprob(token="a", logprob=float("nan"))
    said = LLMResponse(text="a", logprobs=(unknown,))
    judge("tgi", "GenerateResponse").validate(json.loads(tgi.write_response(said)))


def test_every_request_to_tei_is_valid():
    embed, predict = judge("tei", "EmbedRequest"), judge("tei", "PredictRequest")
    rank, alike = judge("tei", "RerankRequest"), judge("tei", "SimilarityRequest")

    @few
    @given(vectors=embedding_requests, classes=classification_requests)
    def every(vectors: EmbeddingRequest, classes: ClassificationRequest) -> None:
        embed.validate(json.loads(tei.write_request(vectors)))
        predict.validate(json.loads(tei_predict.write_request(classes)))

    every()
    asked = RerankRequest(query="q", documents=("a",), truncate=True, raw_scores=False)
    rank.validate(json.loads(tei_rerank.write_request(asked)))
    alike.validate(json.loads(tei.write_similarity_request("a", ["b"])))


def test_every_answer_in_teis_place_is_valid():
    vectors = EmbeddingResult(vectors=[[0.5, 1.0]])
    judge("tei", "EmbedResponse").validate(json.loads(tei.write_response(vectors)))
    asked = RerankRequest(query="q", documents=("a", "b"), return_documents=True)
    inbound = rerank.Inbound(request=asked, documents=asked.documents)
    ranking = tei_rerank.write_response(RerankResult(results=ranked([0.1, 0.9])), inbound)
    judge("tei", "RerankResponse").validate(json.loads(ranking))
    classes = ClassificationResult(labels=((LabelScore(label="a", score=0.5),),))
    for is_batch in (True, False):
        said = tei_predict.write_response(classes, is_batch=is_batch)
        judge("tei", "PredictResponse").validate(json.loads(said))


@pytest.mark.parametrize(
    "error",
    [LLMInvalidRequestError("no"), LLMOverloadedError("full"), LLMProviderError("broken")],
)
def test_every_error_in_their_place_is_valid(error):
    judge("tgi", "ErrorResponse").validate(json.loads(tgi.write_error(error)))
    judge("tei", "ErrorResponse").validate(json.loads(tei.write_error(error)))
