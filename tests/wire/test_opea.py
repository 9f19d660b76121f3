"""OPEA's bodies and streams, as its own source writes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import streamed
from headrace import LLMBadResponseError, LLMMessage, LLMProviderError, LLMRequest, Usage
from headrace.wire import opea
from headrace.wire.assemble import assemble

ASK = LLMRequest(messages=(LLMMessage(role="user", content="hi"),), model="m", max_tokens=5)


def megaservice(*texts: str) -> bytes:
    """What align_generator in GenAIExamples' ChatQnA/chatqna.py makes of a model's pieces."""
    pieces = [f"data: {text.encode()!r}\n\n" for text in texts]
    return "".join([*pieces, "data: [DONE]\n\n"]).encode()


def read_stream(data, cuts=()):
    reader, found, at = opea.stream_reader(), [], 0
    for cut in cuts:
        found += reader.feed(data[at : at + cut])
        at += cut
    return assemble([*found, *reader.feed(data[at:]), *reader.close()])


def test_whether_to_stream_is_always_said():
    assert json.loads(opea.write_request(ASK, stream=False))["stream"] is False
    assert json.loads(opea.write_request(ASK, stream=True))["stream"] is True
    assert opea.read_request(opea.write_request(ASK, stream=False)).request == ASK


def test_messages_may_be_one_text():
    inbound = opea.read_request(b'{"messages": "hi", "model": "m", "max_tokens": 5}')
    assert inbound.request == ASK


@given(st.lists(st.text(min_size=1, max_size=9), max_size=5), st.lists(st.integers(1, 20)))
def test_bytes_as_python_writes_them_are_read_however_they_are_cut(texts, cuts):
    answer = read_stream(megaservice(*texts), cuts)
    assert (answer.text, answer.finish_reason) == ("".join(texts), "other")


def test_a_letter_may_be_cut_between_two_events():
    first, second = "é"[:1].encode()[:1], "é".encode()[1:]
    said = f"data: {first!r}\n\ndata: {second!r}\n\ndata: [DONE]\n\n".encode()
    assert read_stream(said).text == "é"


def test_a_guardrails_refusal_is_read_although_nothing_in_it_is_escaped():
    # fake_stream in comps/cores/mega/orchestrator.py puts the text between quotes as it is.
    said = b"data: b'It's against the rules: \\d'\n\ndata: [DONE]\n\n"
    assert read_stream(said).text == "It's against the rules: \\d"


def test_the_microservices_chunks_are_openais():
    answer = read_stream(b"".join(streamed("openai", "hi ", "there")))
    assert (answer.text, answer.finish_reason) == ("hi there", "stop")
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)


def test_patches_of_langchains_log_hold_the_text():
    # What the docsum microservice streams (comps/llms/src/doc-summarization).
    patches = [
        {"ops": [{"op": "replace", "path": "", "value": {"id": "x", "streamed_output": []}}]},
        {"ops": [{"op": "add", "path": "/streamed_output/-", "value": "A "}]},
        {"ops": [{"op": "add", "path": "/streamed_output/-", "value": "summary"}]},
    ]
    said = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in patches)
    assert read_stream(said + b"data: [DONE]\n\n").text == "A summary"


def test_a_megaservices_whole_answer_is_openais_or_a_text():
    # handle_request of ChatQnA: a ChatCompletionResponse whose usage is all zeros.
    body = {
        "id": "chatcmpl-x",
        "object": "chat.completion",
        "created": 1,
        "model": "chatqna",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi"},
                "finish_reason": "stop",
                "metadata": None,
            }
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0},
    }
    answer = opea.read_response(json.dumps(body).encode())
    assert (answer.text, answer.model, answer.finish_reason) == ("hi", "chatqna", "stop")
    assert opea.read_response(b'{"id": "1", "text": "a summary"}').text == "a summary"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"data: b'cut short'\n\n",
        b"data: plain words\n\n",
        megaservice("a").removesuffix(b"data: [DONE]\n\n"),
    ],
)
def test_a_stream_that_is_cut_short_or_none_is_the_backends_fault(said):
    with pytest.raises(LLMBadResponseError):
        read_stream(said)


def test_no_code_in_such_bytes_is_run():
    said = b"data: b''.join([b'x'])\n\ndata: [DONE]\n\n"
    assert read_stream(said).text == "'.join([b'x'])"


def test_fastapis_refusals_are_read():
    body = b'{"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}'
    error = opea.read_error(422, body)
    assert "Field required" in str(error)
    assert isinstance(opea.read_error(500, b"Internal Server Error"), LLMProviderError)
