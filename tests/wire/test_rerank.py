"""Rankings in Cohere's, Jina's and TEI's form: what is read, written and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMInvalidRequestError
from headrace.contracts.ranking import RankedDocument, RerankRequest, RerankResult
from headrace.contracts.responses import Usage
from headrace.numbers.ranking import cosine, ranked, sigmoid
from headrace.wire import rerank, rerank_cohere, tei_rerank

texts = st.text(max_size=12)
full_lists = st.lists(texts, min_size=1, max_size=5).map(tuple)
counts = st.integers(1, 2**31 - 1)
requests = st.builds(
    RerankRequest,
    query=texts,
    documents=full_lists,
    model=st.none() | st.text(min_size=1, max_size=8),
    top_n=st.none() | counts,
)


def body(**fields: Any) -> bytes:
    return json.dumps({"query": "q", "documents": ["a", "b"], **fields}).encode()


@given(asked=requests)
def test_a_request_arrives_as_it_was_sent(asked):
    assert rerank.read_request(rerank.write_request(asked)).request == asked


@given(asked=requests, most=st.none() | counts)
def test_a_request_arrives_at_cohere_as_it_was_sent(asked, most):
    whole = RerankRequest(
        query=asked.query,
        documents=asked.documents,
        model=asked.model,
        top_n=asked.top_n,
        max_tokens_per_document=most,
    )
    assert rerank.read_request(rerank_cohere.write_request(whole)).request == whole


@given(
    asked=st.builds(
        RerankRequest,
        query=texts,
        documents=full_lists,
        truncate=st.none() | st.booleans(),
        raw_scores=st.none() | st.booleans(),
    )
)
def test_a_request_arrives_at_tei_as_it_was_sent(asked):
    assert tei_rerank.read_request(tei_rerank.write_request(asked)).request == asked


@given(
    asked=st.builds(
        RerankRequest, query=texts, documents=full_lists, return_documents=st.booleans()
    ),
    data=st.data(),
)
def test_a_ranking_arrives_as_it_was_sent(asked, data):
    scores = data.draw(
        st.lists(
            st.floats(-100, 100),
            min_size=len(asked.documents),
            max_size=len(asked.documents),
        )
    )
    sent = RerankResult(
        results=ranked(scores),
        model_id="m",
        usage=Usage(prompt_tokens=9, total_tokens=9),
        search_units=1,
        response_id="r",
    )
    inbound = rerank.Inbound(request=asked, documents=asked.documents)
    assert rerank.read_response(rerank.write_response(sent, inbound)) == sent
    tei = tei_rerank.read_response(tei_rerank.write_response(sent, inbound))
    assert tei.results == sent.results


def test_documents_may_be_objects_and_come_back_whole():
    given_ = [{"text": "a", "id": "7"}, "b"]
    inbound = rerank.read_request(body(documents=given_, return_documents=True))
    assert inbound.request.documents == ("a", "b")
    answer = json.loads(rerank.write_response(RerankResult(results=ranked([0.1, 0.9])), inbound))
    assert [each["document"] for each in answer["results"]] == [{"text": "b"}, given_[0]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": [{"title": "a"}]}, "documents[0].text"),
        ({"documents": None}, "documents"),
        ({"query": None}, "query"),
        ({"query": 1}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
        ({"rank_fields": ["title"]}, "rank_fields"),
        ({"max_chunks_per_doc": 5}, "max_chunks_per_doc"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(change, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        rerank.read_request(body(**change))
    assert caught.value.param == param
    assert param in str(caught.value)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        # https://docs.cohere.com/reference/rerank
        (
            {
                "results": [
                    {"index": 3, "relevance_score": 0.999071},
                    {"index": 4, "relevance_score": 0.7867867},
                ],
                "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
                "meta": {
                    "api_version": {"version": "2", "is_experimental": False},
                    "billed_units": {"search_units": 1},
                },
            },
            ([(3, 0.999071), (4, 0.7867867)], None, 1),
        ),
        # Jina's
        (
            {
                "model": "jina-reranker-v2-base-multilingual",
                "usage": {"total_tokens": 815},
                "results": [
                    {"index": 0, "document": {"text": "a"}, "relevance_score": 0.878},
                    {"index": 2, "document": {"text": "c"}, "relevance_score": 0.762},
                ],
            },
            ([(0, 0.878), (2, 0.762)], 815, None),
        ),
        # llama.cpp's server, in the first form and in TEI's
        (
            {
                "model": "m",
                "object": "list",
                "usage": {"prompt_tokens": 42, "total_tokens": 42},
                "results": [{"index": 1, "relevance_score": -4.5}],
            },
            ([(1, -4.5)], 42, None),
        ),
        (
            [{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}],
            ([(1, 0.5), (0, 0.25)], None, None),
        ),
    ],
    ids=["cohere", "jina", "llama.cpp", "tei"],
)
def test_the_answers_of_servers_are_read(wire, expected):
    result = rerank.read_response(json.dumps(wire).encode())
    order, tokens, units = expected
    assert [(each.index, each.relevance_score) for each in result.results] == order
    assert (result.usage and result.usage.prompt_tokens) == tokens
    assert result.search_units == units


@pytest.mark.parametrize(
    "wire",
    [
        b"{}",
        b"[1]",
        b"no json",
        b'{"results": [{"index": 0}]}',
        b'{"results": [{"index": 0, "relevance_score": "high"}]}',
        b'{"results": [{"relevance_score": 1}]}',
    ],
)
def test_an_answer_that_is_none_is_the_backends_fault(wire):
    with pytest.raises(LLMBadResponseError):
        rerank.read_response(wire)


def test_an_error_in_place_of_an_answer_is_read():
    with pytest.raises(LLMError, match="too many"):
        rerank.read_response(b'{"error": {"message": "too many", "type": "rate_limit_error"}}')


@pytest.mark.parametrize(
    "error",
    [
        LLMInvalidRequestError("top_n is wrong", param="top_n", code="invalid_value"),
        LLMBadResponseError("nothing came"),
    ],
)
def test_an_error_says_the_same_to_everyones_clients(error):
    wire = json.loads(rerank.write_error(error))
    assert wire["message"] == wire["detail"] == error.message
    arrived = rerank.read_error(error.status, rerank.write_error(error))
    assert (type(arrived), arrived.message, arrived.param) == (
        type(error),
        error.message,
        error.param,
    )


def test_the_order_is_by_score_and_then_as_given():
    assert [each.index for each in ranked([0.1, 0.9, 0.1, 0.5])] == [1, 3, 0, 2]
    assert ranked([0.1, 0.9], top_n=1) == (RankedDocument(index=1, relevance_score=0.9),)


@given(st.floats(-1e6, 1e6))
def test_a_sigmoid_is_a_probability_at_any_logit(logit):
    assert 0 <= sigmoid(logit) <= 1
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1)


def test_a_cosine_does_not_depend_on_lengths():
    assert cosine([1, 0], [5, 0]) == pytest.approx(1)
    assert cosine([1, 1], [-2, -2]) == pytest.approx(-1)
    assert cosine([1, 0], [0, 3]) == 0
    assert cosine([0, 0], [1, 1]) == 0
