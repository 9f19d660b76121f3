"""The vendors' SDKs with the server that our batches are tested against: it speaks as they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai._models import BaseModel as OpenAIModel

from .batch_vendors import Vendors, vendors


@pytest.fixture
def server() -> Iterator[Vendors]:
    def answer(prompt: str, before: int) -> Any:
        return {"bad": 400, "late": "expired"}.get(prompt, f"<{prompt}>")

    with vendors(answer) as made:
        yield made


def line(custom_id: str, text: str) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def strictly(told: OpenAIModel) -> Any:
    """Checked by the SDK's own types, which it does not do by itself."""
    return type(told).model_validate_json(told.model_dump_json(by_alias=True), strict=False)


def test_openais_sdk_takes_it_for_openai(server: Vendors) -> None:
    sdk = OpenAI(base_url=server.url("openai"), api_key="k", max_retries=0)
    lines = [line("a", "good"), line("b", "bad"), line("c", "late")]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = strictly(sdk.files.create(file=("in.jsonl", data), purpose="batch"))
    made = strictly(
        sdk.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"who": "me"},
        )
    )
    assert made.status == "in_progress"
    ended = strictly(sdk.batches.retrieve(made.id))
    assert (ended.status, ended.metadata) == ("completed", {"who": "me"})
    assert (ended.request_counts.completed, ended.request_counts.failed) == (1, 2)
    (good,) = map(json.loads, sdk.files.content(ended.output_file_id).text.splitlines())
    answer = openai.types.chat.ChatCompletion.model_validate(good["response"]["body"])
    assert answer.choices[0].message.content == "<good>"
    assert [each.id for each in sdk.batches.list(limit=1)] == [made.id]
    again = sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert strictly(sdk.batches.cancel(again.id)).status == "cancelling"
    assert strictly(sdk.batches.retrieve(again.id)).status == "cancelled"
    assert [each.id for each in sdk.batches.list(limit=1)] == [again.id, made.id]


def test_anthropics_sdk_takes_it_for_anthropic(server: Vendors) -> None:
    sdk = Anthropic(base_url=server.url("anthropic"), api_key="k", max_retries=0)
    made = sdk.messages.batches.create(
        requests=[
            {
                "custom_id": name,
                "params": {
                    "model": "m",
                    "max_tokens": 9,
                    "messages": [{"role": "user", "content": text}],
                },
            }
            for name, text in (("a", "good"), ("b", "bad"), ("c", "late"))
        ]
    )
    assert (made.processing_status, made.request_counts.processing) == ("in_progress", 3)
    ended = sdk.messages.batches.retrieve(made.id)
    assert ended.processing_status == "ended"
    found = {each.custom_id: each.result for each in sdk.messages.batches.results(made.id)}
    kinds = {name: each.type for name, each in found.items()}
    assert kinds == {"a": "succeeded", "b": "errored", "c": "expired"}
    assert found["a"].type == "succeeded"
    assert found["a"].message.content[0].text == "<good>"  # type: ignore[union-attr]
    assert found["b"].type == "errored"
    assert found["b"].error.error.type == "invalid_request_error"
    assert [each.id for each in sdk.messages.batches.list(limit=1)] == [made.id]
