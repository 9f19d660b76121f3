"""Whatever stands in the place of a value in Gemini's form, it is read or refused, and never breaks."""

import json
from contextlib import suppress
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.wire import gemini, gemini_embeddings, gemini_models

from .strategies import json_values

often = settings(max_examples=60, deadline=None)
TEXT = {"parts": [{"text": "hi"}], "role": "user"}
REQUEST = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "a"},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                {"fileData": {"fileUri": "https://x.test/a.pdf", "mimeType": "application/pdf"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Hm.", "thought": True, "thoughtSignature": "c2VhbA=="},
                {"functionCall": {"name": "f", "id": "c", "args": {"a": 1}}},
            ],
        },
        {"parts": [{"functionResponse": {"name": "f", "id": "c", "response": {"output": 1}}}]},
    ],
    "systemInstruction": {"parts": [{"text": "b"}]},
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parameters": {
                        "type": "OBJECT",
                        "nullable": True,
                        "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING"}}},
                        "propertyOrdering": ["a"],
                    },
                }
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    "generationConfig": {
        "temperature": 1,
        "stopSequences": ["x"],
        "responseLogprobs": True,
        "logprobs": 1,
        "responseMimeType": "application/json",
        "responseSchema": {"anyOf": [{"type": "NUMBER", "minimum": 1}], "defs": {"d": {}}},
        "thinkingConfig": {"thinkingBudget": 5, "includeThoughts": True},
    },
    "safetySettings": [{"category": "C"}],
}
ANSWER = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True, "thoughtSignature": "c2VhbA=="},
                    {"text": "a", "thoughtSignature": "c2VhbA=="},
                    {"functionCall": {"name": "f", "id": "c", "args": {"a": 1}}},
                    {"executableCode": {"code": "1"}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
            "logprobsResult": {
                "chosenCandidates": [{"token": "a", "logProbability": -1}],
                "topCandidates": [{"candidates": [{"token": "a", "logProbability": -1}]}],
            },
        }
    ],
    "promptFeedback": {"safetyRatings": []},
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "thoughtsTokenCount": 3},
    "modelVersion": "m",
    "responseId": "r",
}
FAILURE = {
    "error": {
        "code": 429,
        "message": "m",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "a", "retryDelay": "3s"},
            {"@type": "b", "fieldViolations": [{"field": "f", "description": "d"}]},
            {"@type": "c", "reason": "R", "domain": "d"},
        ],
    }
}
MODELS = {"models": [{"name": "models/m", "inputTokenLimit": 5}], "nextPageToken": "m"}
EMBED = {
    "requests": [
        {"model": "models/m", "content": TEXT, "outputDimensionality": 5, "taskType": "T"},
        {"model": "models/m", "content": TEXT, "outputDimensionality": 5, "taskType": "T"},
    ]
}
VECTORS = {"embeddings": [{"values": [1.5, 2]}], "usageMetadata": {"promptTokenCount": 1}}


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, each in list(steps):
            yield from places(each, (*path, step))


@st.composite
def spoilt(draw, value):
    """``value`` with something else in one or two of its places, or without them."""
    value = deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        found = [each for each in places(value) if each]
        if not found:
            break
        path = draw(st.sampled_from(found))
        inner = value
        for step in path[:-1]:
            inner = inner[step]
        if draw(st.integers(0, 3)) == 0:
            del inner[path[-1]]
        else:
            inner[path[-1]] = draw(json_values)
    return json.dumps(value).encode("utf-8", "replace")


@pytest.mark.parametrize("read", [gemini.read_request, gemini.read_count_request])
@given(data=st.data())
@often
def test_a_request_is_read_or_refused(read, data):
    value = REQUEST if read is gemini.read_request else {"generateContentRequest": REQUEST}
    body = data.draw(spoilt(value))
    try:
        inbound = read(body)
    except LLMInvalidRequestError:
        return
    gemini.write_request(inbound.request, stream=False)
    assert all(name.isascii() and "\n" not in name for name in inbound.dropped)


@given(body=spoilt(EMBED))
@often
def test_a_request_for_vectors_is_read_or_refused(body):
    try:
        inbound = gemini_embeddings.read_batch_request(body)
    except LLMInvalidRequestError:
        return
    assert gemini_embeddings.write_request(inbound.request)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (ANSWER, gemini.read_response),
        (ANSWER, gemini.read_whole),
        (MODELS, gemini_models.read_models),
        (VECTORS, gemini_embeddings.read_response),
    ],
    ids=["answer", "whole", "models", "vectors"],
)
@given(data=st.data())
@often
def test_an_answer_is_read_or_is_a_bad_one(value, read, data):
    body = data.draw(spoilt(value))
    with suppress(LLMError):
        read(body)


@given(body=spoilt(ANSWER))
@often
def test_a_chunk_is_read_or_is_a_bad_one(body):
    reader = gemini.stream_reader()
    with suppress(LLMError):
        reader.feed(b"data: " + body + b"\n\n")
        reader.close()


@given(body=spoilt(FAILURE), status=st.sampled_from([400, 401, 404, 429, 500, 503]))
@often
def test_an_error_is_always_one(body, status):
    error = gemini.read_error(status, body)
    assert isinstance(error, LLMError)
    assert error.message
    assert gemini.write_error(error)
