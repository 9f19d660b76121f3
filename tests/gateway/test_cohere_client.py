"""Cohere's own client against our rankings, where it is installed (``pip install cohere``).

It brings tokenizers, fastavro and others, so it is no requirement of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.overlap import overlap
from gateway.served import Served
from gateway.test_ranking import DOCUMENTS, OFF, ORDER, QUERY

cohere = pytest.importorskip("cohere", reason="Cohere's client is not installed")
httpx = pytest.importorskip("httpx", reason="Cohere's client is not installed")


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> Iterator[Served]:
    with overlap() as far:
        rows = {"cohere": "", "jina": "/v1", "tei-native": ""}
        backends = [
            {"name": f"by-{row}", "provider": row, "base_url": far.url + path, "api_key": "sk-far"}
            for row, path in rows.items()
        ]
        served = Served(tmp_path_factory.mktemp("front"), {**OFF, "backends": backends})
        try:
            yield served
        finally:
            served.stop()


@pytest.fixture
def clients(front) -> Iterator[dict[str, Any]]:
    with httpx.Client() as connections:
        shared = {"api_key": "unused", "base_url": front.url, "httpx_client": connections}
        yield {"v1": cohere.Client(**shared), "v2": cohere.ClientV2(**shared)}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("model", ["by-cohere", "by-jina", "by-tei-native"])
def test_it_gets_its_documents_in_order(clients, version, model):
    answer = clients[version].rerank(model=model, query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [each.index for each in answer.results] == ORDER[:2]
    assert answer.results[0].relevance_score == pytest.approx(5 / 6)
    assert answer.meta.api_version.version == version.removeprefix("v")
    assert answer.id
    if model == "by-cohere":
        assert answer.meta.billed_units.search_units == 1
    else:
        assert answer.meta.tokens.input_tokens > 0


def test_it_gets_its_documents_back(clients):
    documents = [{"text": text, "title": f"number {place}"} for place, text in enumerate(DOCUMENTS)]
    answer = clients["v1"].rerank(
        model="by-cohere", query=QUERY, documents=documents, return_documents=True
    )
    assert answer.results[0].document.text == DOCUMENTS[1]
    assert answer.results[0].document.title == "number 1"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_it_reads_our_errors(clients, version):
    with pytest.raises(cohere.BadRequestError) as wrong:
        clients[version].rerank(model="by-cohere", query=QUERY, documents=[], top_n=2)
    assert "documents" in wrong.value.body["message"]
    with pytest.raises(cohere.NotFoundError):
        clients[version].rerank(model="nobody", query=QUERY, documents=DOCUMENTS)
