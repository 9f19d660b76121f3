"""TEI's format: vectors, classes and likenesses, both ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.ranking import ClassificationRequest, ClassificationResult, LabelScore
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire import hf_info, tei, tei_predict

texts = st.text(max_size=12)
ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(tuple)
embedding_requests = st.builds(
    EmbeddingRequest,
    inputs=st.lists(texts | ids, min_size=1, max_size=4).map(tuple),
    model=st.none() | st.text(min_size=1, max_size=8),
    dimensions=st.none() | st.integers(1, 4096),
    provider_options=st.sampled_from(
        [{}, {"truncate": True, "truncation_direction": "Left"}, {"normalize": False}]
    ),
)
classification_requests = st.builds(
    ClassificationRequest,
    inputs=st.lists(texts | st.tuples(texts, texts), min_size=1, max_size=4).map(tuple),
    truncate=st.none() | st.booleans(),
    raw_scores=st.none() | st.booleans(),
)


@given(asked=embedding_requests)
def test_a_request_for_vectors_arrives_as_it_was_sent(asked):
    assert tei.read_request(tei.write_request(asked)) == asked


@given(
    vectors=st.integers(1, 4).flatmap(
        lambda size: st.lists(
            st.lists(st.floats(-10, 10), min_size=size, max_size=size), min_size=1, max_size=3
        )
    )
)
def test_vectors_arrive_as_they_were_sent(vectors):
    arrived = tei.read_response(tei.write_response(EmbeddingResult(vectors=vectors)))
    assert [list(each) for each in arrived.vectors] == vectors


@given(asked=classification_requests)
def test_a_request_for_classes_arrives_as_it_was_sent(asked):
    inbound = tei_predict.read_request(tei_predict.write_request(asked))
    assert inbound.request == asked
    assert inbound.is_batch


@given(
    labels=st.lists(
        st.lists(
            st.builds(LabelScore, label=texts, score=st.floats(-9, 9)), min_size=1, max_size=3
        ),
        min_size=1,
        max_size=3,
    )
)
def test_classes_arrive_as_they_were_sent(labels):
    sent = ClassificationResult(labels=tuple(map(tuple, labels)))
    assert tei_predict.read_response(tei_predict.write_response(sent, is_batch=True)) == sent


@pytest.mark.parametrize(
    ("inputs", "read", "is_batch"),
    [
        ("a", ("a",), False),
        (["a"], ("a",), False),
        (["a", "b"], (("a", "b"),), False),
        ([["a"], ["b", "c"]], ("a", ("b", "c")), True),
    ],
)
def test_one_text_a_pair_and_a_batch_are_told_apart(inputs, read, is_batch):
    inbound = tei_predict.read_request(json.dumps({"inputs": inputs}).encode())
    assert (inbound.request.inputs, inbound.is_batch) == (read, is_batch)


def test_an_answer_to_one_text_is_no_batch():
    one = ClassificationResult(labels=((LabelScore(label="joy", score=0.5),),))
    wire = json.loads(tei_predict.write_response(one, is_batch=False))
    assert wire == [{"score": 0.5, "label": "joy"}]


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ([], "inputs"),
        (1, "inputs"),
        (["a", "b", "c"], "inputs"),
        ([["a", "b", "c"]], "inputs[0]"),
        ([["a"], "b"], "inputs[1]"),
        ([["a"], [1]], "inputs[1][0]"),
    ],
)
def test_what_is_neither_is_refused_by_its_place(inputs, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        tei_predict.read_request(json.dumps({"inputs": inputs}).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [1.5]}, "inputs[0]"),
        ({"inputs": ["a", None]}, "inputs[1]"),
        ({"inputs": [[-1]]}, "inputs[0][0]"),
        ({"inputs": "a", "normalize": "no"}, "normalize"),
        ({"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ({"inputs": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_what_is_wrong_with_a_request_for_vectors_is_named(wire, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        tei.read_request(json.dumps(wire).encode())
    assert caught.value.param == param


def test_what_is_done_anyway_is_no_wish():
    wire = {
        "inputs": "a",
        "normalize": True,
        "truncate": False,
        "truncation_direction": "right",
        "prompt_name": None,
    }
    assert tei.read_request(json.dumps(wire).encode()).provider_options == {}


@pytest.mark.parametrize(
    "wire", [b"{}", b"[]", b"[[]]", b"[[1], [1, 2]]", b'[["a"]]', b"[[1e999]]", b"nothing"]
)
def test_an_answer_that_has_no_vectors_is_the_backends_fault(wire):
    with pytest.raises(LLMBadResponseError):
        tei.read_response(wire)


def test_what_a_call_used_stands_in_the_headers():
    usage = Usage(prompt_tokens=7, total_tokens=7)
    ((name, value),) = tei.usage_to_headers(usage)
    assert tei.usage_from_headers({name.decode(): value.decode()}) == usage
    assert tei.usage_from_headers({"x-compute-tokens": "many"}) is None
    assert tei.usage_to_headers(None) == []


def test_sentences_to_be_compared_are_read():
    wire = {
        "inputs": {"source_sentence": "a", "sentences": ["b", "c"]},
        "parameters": {"truncate": True},
    }
    asked = tei.read_similarity(wire).request
    assert asked.inputs == ("a", "b", "c")
    assert asked.provider_options == {"truncate": True}


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        (None, "inputs"),
        ("a", "inputs"),
        ({"sentences": ["a"]}, "inputs.source_sentence"),
        ({"source_sentence": "a"}, "inputs.sentences"),
        ({"source_sentence": "a", "sentences": []}, "inputs.sentences"),
        ({"source_sentence": "a", "sentences": [1]}, "inputs.sentences[0]"),
    ],
)
def test_what_is_wrong_with_sentences_is_named(inputs, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        tei.read_similarity({} if inputs is None else {"inputs": inputs})
    assert caught.value.param == param


def test_a_servers_own_description_names_its_model():
    # https://huggingface.co/docs/text-embeddings-inference/quick_tour
    told = {"model_id": "BAAI/bge-base-en", "max_input_length": 512, "model_dtype": "float16"}
    (model,) = hf_info.read_models(json.dumps(told).encode())
    assert (model.model_id, model.max_context_tokens) == ("BAAI/bge-base-en", 512)
    with pytest.raises(LLMBadResponseError):
        hf_info.read_models(b'{"version": "1"}')
