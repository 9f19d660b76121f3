"""Bytes of Google's own servers are read as what they say.

They are from Firebase's tests of its clients (https://github.com/FirebaseExtended/vertexai-sdk-test-data
at 2d6adfd, Apache-2.0), which were recorded from the Gemini API and from Vertex AI, whose answers
have the same form; ``cached``, ``calls``, ``parallel``, ``utf8``, ``broken_off``, ``quota`` and
``location`` are Vertex AI's.
"""

import json
from pathlib import Path

import pytest

from headrace.contracts.errors import (
    LLMAuthError,
    LLMCancelledError,
    LLMContentFilterError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMRateLimitError,
)
from headrace.contracts.responses import Usage
from headrace.wire import gemini
from headrace.wire.assemble import assemble

RECORDED = Path(__file__).parent / "recorded" / "gemini"
STREAMS = sorted(path.name for path in RECORDED.glob("stream_*.txt"))
WHOLE = [name for name in STREAMS if name != "stream_broken_off.txt"]


def read_stream(name, size=1 << 20):
    data = (RECORDED / name).read_bytes()
    reader = gemini.stream_reader()
    deltas = []
    for start in range(0, len(data), size):
        deltas += reader.feed(data[start : start + size])
    return deltas + reader.close()


def said_in(name, thought=False):
    """What the parts of a stream say, found without our reader."""
    lines = (RECORDED / name).read_text().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    contents = [each.get("content", {}) for event in events for each in event["candidates"]]
    parts = [part for content in contents for part in content.get("parts", [])]
    return "".join(
        part["text"] for part in parts if "text" in part and part.get("thought", False) is thought
    )


def read_whole(name):
    return gemini.read_response((RECORDED / name).read_bytes())


def read_error(name, status):
    return gemini.read_error(status, (RECORDED / name).read_bytes())


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_stream_reads_the_same_however_it_is_cut(name):
    whole = read_stream(name)
    assert read_stream(name, 1) == read_stream(name, 7) == whole
    response = assemble(whole)
    assert response.text == said_in(name)
    assert (response.reasoning or "") == said_in(name, thought=True)
    assert response.finish_reason in ("stop", "tool_calls", "content_filter")


def test_thoughts_and_the_signature_on_a_call():
    response = assemble(read_stream("stream_thinking_call.txt"))
    (call,) = response.tool_calls
    assert (call.name, call.arguments_json) == ("now", "{}")
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "STOP")
    thought, seal = response.reasoning_parts
    assert thought.text == response.reasoning
    assert thought.signature is None
    assert seal.part_id == "gemini:call:0"
    assert seal.signature.startswith("CiIB")
    assert response.model == "gemini-2.5-flash"
    assert response.response_id == "48SHaPHpHKbG-8YPtZCawAk"


def test_a_whole_answer_with_thoughts():
    response = read_whole("thinking_call.json")
    assert response.usage == Usage(
        prompt_tokens=38,
        completion_tokens=509,
        total_tokens=547,
        output_text_tokens=8,
        output_reasoning_tokens=501,
    )
    assert response.reasoning.startswith("**Thinking Through")
    assert [part.part_id for part in response.reasoning_parts] == [None, "gemini:call:0"]


def test_counts_with_a_cache():
    assert read_whole("cached.json").usage == Usage(
        prompt_tokens=12013,
        completion_tokens=88,
        total_tokens=12101,
        input_uncached_tokens=770,
        input_cache_read_tokens=11243,
        output_text_tokens=15,
        output_reasoning_tokens=73,
    )


def test_what_googles_own_tools_took_in_counts_as_prompt():
    usage = assemble(read_stream("stream_code_execution.txt")).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (21 + 243, 126 + 95)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens == 485


def test_calls_at_once():
    calls = read_whole("parallel_calls.json").tool_calls
    assert [json.loads(call.arguments_json) for call in calls] == [
        {"y": 1, "x": 2},
        {"y": 3, "x": 4},
        {"y": 5, "x": 6},
    ]
    assert len({call.call_id for call in calls}) == 3


def test_what_was_said_before_a_filter_stays():
    response = assemble(read_stream("stream_recitation.txt"))
    assert response.text == "text1text2text3text4text5text6text7text8"
    assert response.finish_reason == "content_filter"
    assert response.raw_finish_reason == "RECITATION"
    assert read_whole("safety.json").finish_reason == "content_filter"


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_prompt_that_was_blocked_is_an_error(size):
    """The event has no blank line behind it."""
    with pytest.raises(LLMContentFilterError, match="SAFETY"):
        read_stream("blocked_prompt.txt", size)
    whole = (RECORDED / "blocked_prompt.txt").read_bytes().removeprefix(b"data: ")
    with pytest.raises(LLMContentFilterError, match="SAFETY"):
        gemini.read_response(whole)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_stream_that_google_broke_off(size):
    """The error is written as a body of its own, and not as an event."""
    data = (RECORDED / "stream_broken_off.txt").read_bytes()
    reader = gemini.stream_reader()
    deltas = []
    for start in range(0, len(data), size):
        deltas += reader.feed(data[start : start + size])
    assert "".join(delta.text_delta or "" for delta in deltas) == "First Second "
    with pytest.raises(LLMCancelledError, match="was cancelled"):
        reader.close()


def test_a_wrong_key_is_400_there_and_still_a_wrong_key():
    error = read_error("error_key.json", 400)
    assert type(error) is LLMAuthError
    assert error.status == 401
    assert not error.transient
    # What Google's details say of it may be the key itself.
    assert "key1234" not in str(vars(error))


@pytest.mark.parametrize(
    ("name", "status", "cls"),
    [
        ("error_model.json", 404, LLMModelNotFoundError),
        ("error_quota.json", 429, LLMRateLimitError),
        ("error_location.json", 400, LLMInvalidRequestError),
        ("error_disabled.json", 403, LLMAuthError),
    ],
)
def test_a_recorded_error_is_of_the_right_class(name, status, cls):
    error = read_error(name, status)
    assert type(error) is cls
    assert error.status == status
    assert error.message == json.loads((RECORDED / name).read_bytes())["error"]["message"]


RETRY = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota. Please retry in 34.07s.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.074824224s"},
        ],
    }
}


def test_how_long_to_wait_stands_in_the_details():
    """The form of https://ai.google.dev/gemini-api/docs/rate-limits' errors."""
    error = gemini.read_error(429, json.dumps(RETRY).encode())
    assert type(error) is LLMRateLimitError
    assert error.retry_after_s == pytest.approx(34.074824224)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed "
            "(1048576).",
            "context_length_exceeded",
        ),
        ("Your prepayment credits are depleted.", "insufficient_quota"),
        ("API key expired. Please renew the API key.", "invalid_api_key"),
    ],
)
def test_what_is_said_in_words_alone(message, code):
    wire = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    assert gemini.read_error(400, json.dumps(wire).encode()).code == code


def test_a_proxy_in_between_is_read_too():
    error = gemini.read_error(503, b"<html>busy</html>", {"retry-after": "3"})
    assert (error.status, error.retry_after_s) == (503, 3.0)
