"""llama.cpp's own server with a model for ranking, asked in both of the forms that it answers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import reranker_gguf
from headrace import Client, EndpointSettings, LLMInvalidRequestError, RetryPolicy

QUERY = "what is the capital of france"
DOCUMENTS = ["bread is made of flour", "paris is the capital of france", "madrid"]
ONCE = EndpointSettings(retry=RetryPolicy(retries=0))
# The head has large weights, and llama.cpp reckons with numbers of 16 bits.
NEAR = 0.4


@contextmanager
def served(file: Path, pooling: str) -> Iterator[str]:
    command = [sys.executable, reranker_gguf.__file__, str(file), pooling]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield next(line.strip() for line in process.stdout if line.startswith("http"))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def file(embedding_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    return reranker_gguf.write(embedding_model.path, folder / "ranker.gguf")


@pytest.fixture(scope="module")
def ranker(file) -> Iterator[str]:
    with served(file, "RANK") as url:
        yield url


@pytest.fixture(scope="module")
def scores(file) -> list[float]:
    """What the head makes of the vectors, reckoned here."""

    def post(path: str, body: object) -> Any:
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return json.load(reply)

    def ids(text: str) -> list[int]:
        return list(post("/tokenize", {"content": text, "add_special": True})["tokens"])

    found = []
    with served(file, "CLS") as url:
        for document in DOCUMENTS:
            pair = [*ids(QUERY), *ids(document)[1:]]
            (answer,) = post("/embedding", {"content": pair, "embd_normalize": -1})
            found.append(reranker_gguf.score(np.array(answer["embedding"], np.float32).reshape(-1)))
    return found


@pytest.mark.parametrize(("provider", "path"), [("llama-server", "/v1"), ("tei-native", "")])
def test_a_ranking_is_what_the_model_says(ranker, scores, provider, path):
    with Client("ranker", provider=provider, base_url=ranker + path, endpoint=ONCE) as client:
        result = client.rerank(QUERY, DOCUMENTS, return_documents=True)
        best = sorted(range(3), key=lambda place: -scores[place])
        assert [each.index for each in result.results] == best
        for each in result.results:
            assert each.relevance_score == pytest.approx(scores[each.index], abs=NEAR)
            assert each.document == DOCUMENTS[each.index]
        (first,) = client.rerank(QUERY, DOCUMENTS, top_n=1).results
        assert first.index == best[0]


def test_what_it_used_and_what_is_wrong_is_read(ranker):
    with Client(
        "ranker", provider="llama-server", base_url=f"{ranker}/v1", endpoint=ONCE
    ) as client:
        usage = client.rerank(QUERY, DOCUMENTS).usage
        assert usage is not None
        assert usage.prompt_tokens == 36
        with pytest.raises(LLMInvalidRequestError):
            client.rerank(QUERY, DOCUMENTS, provider_options={"documents": []})
