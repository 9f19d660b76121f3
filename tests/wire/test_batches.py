"""Batches in three vendors' words: what one end writes the other reads, and bad lines are named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch as OpenAIBatch
from openai.types import FileObject

from headrace.contracts.batches import (
    Batch,
    BatchAsked,
    BatchCounts,
    BatchItem,
    BatchProblem,
    BatchResult,
    KeptFile,
)
from headrace.contracts.errors import (
    LLMCancelledError,
    LLMInvalidRequestError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.contracts.responses import Usage
from headrace.wire import anthropic_batches, mistral_batches, openai_batches, openai_files
from headrace.wire.multipart import FormReader, PartBegins, PartData, PartEnds, write_form

CHAT = "/v1/chat/completions"
CODECS = (openai_batches, anthropic_batches, mistral_batches)
all_codecs = pytest.mark.parametrize("codec", CODECS, ids=lambda each: each.__name__.split(".")[-1])
BATCH = Batch(
    batch_id="batch_1",
    phase="in_progress",
    created=1_700_000_000.0,
    endpoint=CHAT,
    counts=BatchCounts(total=5, succeeded=2, errored=1),
    input_files=("file-1",),
    metadata={"who": "me"},
    expires=1_700_086_400.0,
    began=1_700_000_001.0,
)
ERROR_BODY = b'{"error":{"message":"wait","type":"rate_limit_error","param":null,"code":null}}'


@all_codecs
def test_a_request_is_read_as_it_was_written(codec: Any) -> None:
    item = BatchItem(custom_id="row-1", body=b'{"model":"m","messages":[]}')
    assert codec.read_item(codec.write_item(item, CHAT), CHAT) == item


@all_codecs
@pytest.mark.parametrize("phase", ["in_progress", "cancelling", "completed", "cancelled"])
def test_a_batch_is_in_the_phase_that_was_told(codec: Any, phase: Any) -> None:
    cancelled = 1_700_000_002.0 if phase.startswith("cancel") else None
    told = evolve(BATCH, phase=phase, cancelling=cancelled)
    found = codec.read_batch(codec.write_batch(told))
    assert (found.batch_id, found.phase, found.counts.total) == ("batch_1", phase, 5)
    assert found.created == told.created


@all_codecs
@pytest.mark.parametrize("fate", ["succeeded", "errored", "cancelled", "expired"])
def test_a_result_says_what_became_of_its_request(codec: Any, fate: Any) -> None:
    bodies = {"succeeded": b'{"id":"x"}', "errored": ERROR_BODY}
    told = BatchResult(
        custom_id="a", fate=fate, status=429 if fate == "errored" else 200, body=bodies.get(fate)
    )
    found = codec.read_result(codec.write_result(told))
    assert (found.custom_id, found.fate, found.body) == ("a", fate, told.body)
    kinds = {
        "errored": LLMRateLimitError,
        "cancelled": LLMCancelledError,
        "expired": LLMTimeoutError,
    }
    error = codec.error_of(found)
    assert type(error) is kinds.get(fate, type(None))


def test_the_vendors_own_types_take_what_we_write() -> None:
    failed = evolve(
        BATCH,
        phase="failed",
        ended=1_700_000_005.0,
        usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7),
        problems=(BatchProblem(message="no", code="invalid_json_line", line=2),),
    )
    found = OpenAIBatch.model_validate_json(openai_batches.write_batch(failed), strict=True)
    assert found.errors is not None
    assert found.errors.data is not None
    assert found.errors.data[0].line == 2
    assert found.usage is not None
    assert (found.usage.total_tokens, found.failed_at) == (7, 1_700_000_005)
    assert openai_batches.read_batch(openai_batches.write_batch(failed)).problems == failed.problems

    ended = evolve(BATCH, phase="completed", ended=1_700_000_009.5, results_url="http://x/y")
    batch = MessageBatch.model_validate_json(anthropic_batches.write_batch(ended))
    assert batch.processing_status == "ended"
    assert batch.ended_at is not None
    assert batch.ended_at.timestamp() == 1_700_000_009.5
    running = MessageBatch.model_validate_json(anthropic_batches.write_batch(BATCH))
    assert (running.request_counts.processing, running.request_counts.succeeded) == (5, 0)
    line = anthropic_batches.write_result(BatchResult(custom_id="a", fate="expired"))
    assert MessageBatchIndividualResponse.model_validate_json(line).result.type == "expired"

    file = KeptFile(file_id="file-1", name="in.jsonl", purpose="batch", size=3, created=5)
    FileObject.model_validate_json(openai_files.write_file(file), strict=True)
    assert openai_files.read_file(openai_files.write_file(file)) == file


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b'{"method":"POST","url":"/v1/chat/completions","body":{}}', None, "custom_id"),
        (
            b'{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{}}',
            None,
            "method",
        ),
        (b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}', None, "url"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions"}', None, "body"),
        (
            b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":[]}',
            None,
            "body",
        ),
        (
            b'{"custom_id":"a","methd":"POST","url":"/v1/chat/completions","body":{}}',
            "unknown_parameter",
            "methd",
        ),
    ],
)
def test_a_line_that_is_no_request_is_refused_by_name(
    line: bytes, code: str | None, param: str | None
) -> None:
    with pytest.raises(LLMInvalidRequestError) as refused:
        openai_batches.read_item(line, CHAT)
    assert refused.value.param == param
    assert code is None or refused.value.code == code


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ({}, "input_file_id"),
        ({"input_file_id": "f", "endpoint": "/v1/nothing"}, "endpoint"),
        ({"input_file_id": "f", "endpoint": CHAT, "completion_window": "1h"}, "completion_window"),
        ({"inputs": "f"}, "inputs"),
        (
            {"input_file_id": "f", "endpoint": CHAT, "completion_window": "24h", "metadata": 3},
            "metadata",
        ),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused_by_its_field(wire: Any, param: str) -> None:
    with pytest.raises(LLMInvalidRequestError) as refused:
        openai_batches.read_create(json.dumps(wire).encode())
    assert refused.value.param == param


def test_what_is_asked_for_is_read_as_it_was_written() -> None:
    items = tuple(BatchItem(custom_id=f"r{i}", body=b'{"n":%d}' % i) for i in range(3))
    asked = BatchAsked(endpoint=CHAT, input_files=("f",), metadata={"a": "b"}, outputs_kept_s=7200)
    assert openai_batches.read_create(openai_batches.write_create(asked)) == asked
    inline = BatchAsked(endpoint=CHAT, items=items, model="m", window_s=3600)
    assert mistral_batches.read_create(mistral_batches.write_create(inline)) == inline
    messages = BatchAsked(endpoint="/v1/messages", items=items)
    assert anthropic_batches.read_create(anthropic_batches.write_create(messages)) == messages


def test_a_custom_id_that_comes_twice_is_refused() -> None:
    item = BatchItem(custom_id="twice", body=b"{}")
    body = anthropic_batches.write_create(BatchAsked(endpoint="", items=(item, item)))
    with pytest.raises(LLMInvalidRequestError) as refused:
        anthropic_batches.read_create(body)
    assert refused.value.param == "requests.1.custom_id"


BOUNDARY = "xYzBoundary"


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([b"\r", b"\n", b"--", b"xYz", b"\r\n--xYz", b"a"])).map(b"".join),
    ),
    cuts=st.lists(st.integers(1, 30), max_size=30),
    name=st.sampled_from(["in.jsonl", "", "ü \\.jsonl"]),
)
def test_a_form_survives_any_chopping(content: bytes, cuts: list[int], name: str) -> None:
    if f"--{BOUNDARY}".encode() in content:
        return
    kind, body = write_form({"purpose": "batch"}, name, content, boundary=BOUNDARY)
    reader, events = FormReader(kind), []
    for cut in cuts:
        events += reader.feed(body[:cut])
        body = body[cut:]
    events += reader.feed(body)
    assert reader.is_complete
    found: list[tuple[PartBegins, bytes]] = []
    for event in events:
        match event:
            case PartBegins():
                found.append((event, b""))
            case PartData(data):
                found[-1] = (found[-1][0], found[-1][1] + data)
            case PartEnds():
                pass
    assert [(each.name, data) for each, data in found] == [("purpose", b"batch"), ("file", content)]


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_what_is_no_form_is_refused(kind: str) -> None:
    with pytest.raises(LLMInvalidRequestError):
        FormReader(kind)


def test_a_form_that_breaks_off_is_not_complete() -> None:
    kind, body = write_form({"purpose": "batch"}, "a", b"{}", boundary=BOUNDARY)
    reader = FormReader(kind)
    reader.feed(body[:-6])
    assert not reader.is_complete
