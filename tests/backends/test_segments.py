"""Callers' names in the addresses of providers."""

from __future__ import annotations

import pytest

from gateway.front import Front, run, said
from headrace.backends.segments import segment
from headrace.contracts.errors import LLMInvalidRequestError

TENSORS = {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}]}
CONTENTS = {"contents": [{"parts": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("provider", "path", "body", "words"),
    [
        ("kserve", "/v2/models/../infer", TENSORS, "model is '..'"),
        ("kserve", "/v2/models/m/versions/../infer", TENSORS, "version is '..'"),
        ("kserve", "/v2/models/./infer", TENSORS, "model is '.'"),
        ("gemini", "/v1beta/models/..:generateContent", CONTENTS, "model is '..'"),
    ],
)
def test_no_name_leads_to_another_place(provider, path, body, words):
    async def main() -> None:
        backend = {"name": "far", "provider": provider, "base_url": "http://far", "models": ["*"]}
        front = Front({"backends": [{**backend, "api_key": "k"}]}, {"far": said("hi")})
        status, _, told = await front.ask(path, body)
        assert status == 400, told
        assert words in told.decode()
        assert front.asked == []

    run(main)


def test_others_are_one_part_of_a_path():
    assert segment("a/b c") == "a%2Fb%20c"
    assert segment("...") == "..."
    with pytest.raises(LLMInvalidRequestError):
        segment("..", "version")
