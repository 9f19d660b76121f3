"""Embeddings in OpenAI's format, both ways: against ourselves, the vendor's SDK and a real server."""

import contextlib
import json
import math
import struct
from base64 import b64encode
from pathlib import Path

import httpx2
import openai
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.convert import to_plain
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire.openai_embeddings import (
    MOST_INPUTS,
    read_error,
    read_request,
    read_response,
    write_error,
    write_request,
    write_response,
)

from .strategies import counts, full_texts, json_values, maybe, words

RECORDED = Path(__file__).parent / "recorded"

token_ids = st.lists(counts, min_size=1, max_size=5).map(tuple)
requests = st.builds(
    EmbeddingRequest,
    inputs=st.lists(full_texts | token_ids, min_size=1, max_size=4).map(tuple),
    model=maybe(words),
    dimensions=maybe(st.integers(1, 2**31 - 1)),
    user=maybe(words),
    provider_options=st.dictionaries(words.map("x_{}".format), json_values, max_size=2),
)
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def results(draw):
    vectors = st.lists(floats, min_size=(size := draw(st.integers(1, 6))), max_size=size)
    tokens = draw(counts)
    return EmbeddingResult(
        vectors=draw(st.lists(vectors, min_size=1, max_size=4)),
        model_id=draw(words),
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


def plain(result):
    return [list(vector) for vector in result.vectors]


def in_32_bits(result):
    """The vectors as 32-bit floats; what JSON's digits are read as are doubles."""
    return [[struct.unpack("<f", struct.pack("<f", x))[0] for x in v] for v in result.vectors]


@given(request=requests, encoding=st.sampled_from(["float", "base64"]))
def test_a_request_arrives_as_it_was_sent(request, encoding):
    inbound = read_request(write_request(request, encoding=encoding))
    assert inbound.request == request
    assert inbound.encoding == encoding


@given(result=results(), encoding=st.sampled_from(["float", "base64"]))
def test_vectors_arrive_to_the_last_bit_in_either_encoding(result, encoding):
    got = read_response(write_response(result, encoding=encoding))
    assert in_32_bits(got) == plain(result)
    assert got.model_id == result.model_id
    assert got.usage == result.usage


@given(result=results())
def test_vectors_that_came_as_base64_lose_nothing_when_written_as_numbers(result):
    came = read_response(write_response(result, encoding="base64"))
    again = read_response(write_response(came, encoding="float"))
    assert in_32_bits(again) == plain(result)


def test_base64_is_little_endian_32_bit_floats():
    result = EmbeddingResult(vectors=[[1.0, -2.5, 1e-30]], model_id="m")
    wire = json.loads(write_response(result, encoding="base64"))
    assert wire["data"][0]["embedding"] == b64encode(struct.pack("<3f", 1.0, -2.5, 1e-30)).decode()


def test_numbers_of_32_bits_are_written_with_no_more_digits_than_they_have():
    came = read_response(write_response(EmbeddingResult(vectors=[[0.1, 2.0]]), encoding="base64"))
    assert b'"embedding":[0.100000001,2]' in write_response(came)


def test_a_result_becomes_plain_values():
    came = read_response(write_response(EmbeddingResult(vectors=[[0.5, 2.0]]), encoding="base64"))
    assert to_plain(came)["vectors"] == [[0.5, 2.0]]


def test_an_answer_has_the_shape_that_openai_gives_it():
    usage = Usage(prompt_tokens=3)
    result = EmbeddingResult(vectors=[[0.5], [0.25]], model_id="ours", usage=usage)
    assert json.loads(write_response(result, model="theirs")) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5]},
            {"object": "embedding", "index": 1, "embedding": [0.25]},
        ],
        "model": "theirs",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_an_unknown_count_of_tokens_is_left_out():
    assert "usage" not in json.loads(write_response(EmbeddingResult(vectors=[[0.5]])))
    assert read_response(b'{"data":[{"embedding":[1]}]}').usage is None


@pytest.mark.parametrize(
    ("sent", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [1.0, 2]], ("a", (1, 2))),
    ],
)
def test_every_form_of_input_is_read(sent, inputs):
    assert read_request(json.dumps({"input": sent}).encode()).request.inputs == inputs


def test_null_is_the_same_as_absent():
    body = {"input": "a", "model": None, "dimensions": None, "encoding_format": None, "user": None}
    inbound = read_request(json.dumps(body).encode())
    assert inbound.request == EmbeddingRequest(inputs=("a",))
    assert inbound.encoding == "float"


@pytest.mark.parametrize(
    ("body", "param", "words_said"),
    [
        ({}, "input", "Missing required parameter: 'input'"),
        ({"input": None}, "input", "Missing required parameter: 'input'"),
        ({"input": 5}, "input", "expected a string, an array of token ids, or an array of either"),
        ({"input": {"text": "a"}}, "input", "got an object"),
        ({"input": ""}, "input", "a string that is not empty"),
        ({"input": []}, "input", "at least one input"),
        ({"input": ["a", ""]}, "input[1]", "a string that is not empty"),
        ({"input": ["a", None]}, "input[1]", "got null"),
        ({"input": ["a", 3]}, "input[1]", "a string or an array of token ids"),
        ({"input": [3, "a"]}, "input[1]", "expected an integer"),
        ({"input": [1, True]}, "input[1]", "got a boolean"),
        ({"input": [-1]}, "input[0]", ">= 0"),
        ({"input": [[1], []]}, "input[1]", "an array of 1 to 2048 token ids"),
        ({"input": [[1, 2.5]]}, "input[0][1]", "expected an integer"),
        ({"input": ["a"] * (MOST_INPUTS + 1)}, "input", "at most 2048 entries"),
        ({"input": [[1] * (MOST_INPUTS + 1)]}, "input[0]", "an array of 1 to 2048 token ids"),
        ({"input": "a", "model": 1}, "model", "expected a string"),
        ({"input": "a", "dimensions": 0}, "dimensions", ">= 1"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "expected an integer"),
        ({"input": "a", "encoding_format": "f16"}, "encoding_format", "one of 'float', 'base64'"),
        ({"input": "a", "user": 7}, "user", "expected a string"),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(body, param, words_said):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read_request(json.dumps(body).encode())
    assert caught.value.param == param
    assert words_said in caught.value.message


def test_a_request_without_inputs_is_not_written():
    with pytest.raises(LLMInvalidRequestError, match="at least one input"):
        write_request(EmbeddingRequest(inputs=()))


def test_a_backends_own_name_for_the_model_goes_before_ours():
    request = EmbeddingRequest(inputs=("a",), model="ours")
    assert json.loads(write_request(request, model="theirs"))["model"] == "theirs"


ONE = {"embedding": [0.5, 0.5]}
NOT_FLOATS = b64encode(b"12345").decode()
INFINITE = b64encode(struct.pack("<2f", 1.0, math.inf)).decode()
NOT_A_NUMBER = b64encode(struct.pack("<2f", math.nan, 1.0)).decode()


@pytest.mark.parametrize(
    ("body", "words_said"),
    [
        (b"", "not what its format says"),
        (b"<html>", "not what its format says"),
        (b"[]", "not what its format says"),
        (b"{}", "no embeddings"),
        ({"data": []}, "no embeddings"),
        ({"data": [{"index": 0}]}, "not what its format says"),
        ({"data": [{"embedding": None}]}, "not what its format says"),
        ({"data": [{"embedding": ["0.5"]}]}, "not what its format says"),
        ({"data": [{"embedding": []}]}, "is empty"),
        ({"data": [{"embedding": ""}]}, "is empty"),
        ({"data": [{"embedding": "?!"}]}, "no base64"),
        ({"data": [{"embedding": NOT_FLOATS}]}, "no base64 of 32-bit floats"),
        ({"data": [{"embedding": INFINITE}]}, "not finite"),
        ({"data": [{"embedding": NOT_A_NUMBER}]}, "not finite"),
        ({"data": [ONE, {"embedding": [0.5]}]}, "different lengths"),
        ({"data": [{**ONE, "index": 0}, {**ONE, "index": 0}]}, "with index 0 twice"),
        ({"data": [{**ONE, "index": 7}]}, "with index 7 among them"),
        ({"data": [{**ONE, "index": -1}]}, "with index -1 among them"),
    ],
)
def test_an_answer_that_is_none_is_a_bad_response(body, words_said):
    with pytest.raises(LLMBadResponseError) as caught:
        read_response(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert words_said in caught.value.message


def test_vectors_are_put_in_the_order_of_the_inputs():
    body = {"data": [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]}
    assert plain(read_response(json.dumps(body).encode())) == [[0.0], [1.0]]


def test_an_error_inside_a_good_status_is_an_error():
    body = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    with pytest.raises(LLMContextLengthError, match="too long"):
        read_response(json.dumps(body).encode())


def test_an_error_arrives_as_it_was_sent():
    error = LLMContextLengthError("'input[1]' is too long", param="input[1]")
    got = read_error(400, write_error(error))
    assert (type(got), got.message, got.param) == (type(error), error.message, error.param)


@given(body=st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_nothing_but_our_own_errors_comes_of_any_bytes(body):
    for read in (read_request, read_response):
        with contextlib.suppress(LLMError):
            read(body)


def sdk(answer, seen):
    def handle(request):
        seen.append(request.content)
        return httpx2.Response(200, content=answer, headers={"content-type": "application/json"})

    return openai.OpenAI(
        api_key="k",
        base_url="http://in-memory.test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


@given(request=requests.filter(lambda r: len({type(each) for each in r.inputs}) == 1))
def test_what_the_sdk_sends_is_read_as_it_was_meant(request):
    seen = []
    request = evolve(request, provider_options={}, model=request.model or "m")
    inputs = list(request.inputs) if len(request.inputs) > 1 else request.inputs[0]
    fields = {"dimensions": request.dimensions, "user": request.user}
    with sdk(write_response(EmbeddingResult(vectors=[[1.0]]), encoding="base64"), seen) as client:
        client.embeddings.create(
            model=request.model,
            input=inputs,
            **{name: value for name, value in fields.items() if value is not None},
        )
    inbound = read_request(seen[0])
    assert inbound.request == request
    assert inbound.encoding == "base64"  # it asks for that unless told otherwise


@given(result=results(), encoding=st.sampled_from(["float", "base64"]))
def test_the_sdk_reads_the_vectors_that_we_write(result, encoding):
    asked = {} if encoding == "base64" else {"encoding_format": "float"}
    with sdk(write_response(result, encoding=encoding), []) as client:
        got = client.embeddings.create(model="m", input="a", **asked)
    assert [each.embedding for each in got.data] == [
        pytest.approx(vector, rel=1e-7) for vector in result.vectors
    ]
    assert [each.index for each in got.data] == list(range(len(result.vectors)))
    assert got.model == result.model_id
    assert got.usage.prompt_tokens == got.usage.total_tokens == result.usage.prompt_tokens


@pytest.mark.parametrize("name", ["embeddings.json", "embeddings_base64.json"])
def test_a_real_servers_answer_is_read(name):
    result = read_response((RECORDED / name).read_bytes())
    assert result.model_id == "all-minilm-l6-v2"
    assert result.usage == Usage(prompt_tokens=16, total_tokens=16)
    one, other = result.vectors
    assert len(one) == len(other) == 384
    assert math.hypot(*one) == pytest.approx(1.0, abs=1e-5)
    # https://sbert.net/docs/quickstart.html gives 0.1046 for these two sentences.
    assert sum(a * b for a, b in zip(one, other, strict=True)) == pytest.approx(0.1046, abs=0.001)


def test_a_real_server_says_the_same_in_both_encodings():
    as_numbers, as_base64 = (
        read_response((RECORDED / name).read_bytes())
        for name in ("embeddings.json", "embeddings_base64.json")
    )
    assert plain(as_numbers) == [pytest.approx(v, rel=1e-6) for v in plain(as_base64)]


def test_a_real_servers_refusal_is_the_callers_fault():
    error = read_error(400, (RECORDED / "error_embedding_tokens.json").read_bytes())
    assert type(error) is LLMInvalidRequestError
    assert error.message == "Prompt contains invalid tokens"
