"""Bytes of other servers of Anthropic's format are read as what they say.

``claude_*`` are Anthropic's, from the fixtures of its own SDK (anthropic 2.11.0, Apache-2.0);
``llamacpp_*`` were recorded from llama.cpp's server (SmolLM2-135M, in xllamacpp).
"""

import json
from pathlib import Path

import pytest

from headrace.contracts.errors import LLMProviderError
from headrace.contracts.responses import Usage
from headrace.wire import anthropic
from headrace.wire.assemble import assemble

RECORDED = Path(__file__).parent / "recorded" / "anthropic"
STREAMS = [path.name for path in sorted(RECORDED.glob("*.txt"))]


def read_stream(name, size=1 << 20):
    data = (RECORDED / name).read_bytes()
    reader = anthropic.stream_reader()
    deltas = []
    for start in range(0, len(data), size):
        deltas += reader.feed(data[start : start + size])
    return deltas + reader.close()


def said_in(name):
    """What the text deltas of a stream say, found without our reader."""
    lines = (RECORDED / name).read_text().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_reads_the_same_however_it_is_cut(name):
    whole = read_stream(name)
    assert read_stream(name, 1) == read_stream(name, 7) == whole
    response = assemble(whole)
    assert response.text == said_in(name)
    assert response.response_id
    assert response.finish_reason


def test_a_tool_call_of_claude():
    response = assemble(read_stream("claude_tool_use.txt"))
    (call,) = response.tool_calls
    assert json.loads(call.arguments_json) == {"location": "Paris"}
    assert (response.finish_reason, response.raw_finish_reason) == ("tool_calls", "tool_use")
    assert response.usage == Usage(
        prompt_tokens=377,
        completion_tokens=65,
        total_tokens=442,
        input_uncached_tokens=377,
        input_cache_read_tokens=0,
        input_cache_write_tokens=0,
    )


def test_what_a_tool_of_anthropics_found_is_passed_over():
    response = assemble(read_stream("claude_server_tool_use.txt"))
    assert response.tool_calls == ()
    assert response.text


def test_a_refusal_of_claude():
    response = assemble(read_stream("claude_refusal.txt"))
    assert (response.text, response.finish_reason) == ("", "content_filter")


def test_the_last_counts_are_the_ones_that_count():
    usage = assemble(read_stream("claude_message_delta_fields.txt")).usage
    assert usage == Usage(
        prompt_tokens=59,
        completion_tokens=8,
        total_tokens=67,
        input_uncached_tokens=40,
        input_cache_read_tokens=7,
        input_cache_write_tokens=12,
        output_text_tokens=5,
        output_reasoning_tokens=3,
    )


@pytest.mark.parametrize("name", ["llamacpp_whole.json", "llamacpp_stop_sequence.json"])
def test_a_whole_answer_of_llama_cpp(name):
    body = (RECORDED / name).read_bytes()
    wire, response = json.loads(body), anthropic.read_response(body)
    assert response.text == wire["content"][0]["text"]
    assert response.stop_sequence == wire["stop_sequence"]
    assert response.usage.completion_tokens == wire["usage"]["output_tokens"]


def test_the_stop_sequence_is_told_at_a_streams_end():
    response = assemble(read_stream("llamacpp_stream_stop_sequence.txt"))
    assert (response.finish_reason, response.stop_sequence) == ("stop", "France")
    # That server says 'end_turn' beside it; Anthropic's word is the other one.
    assert json.loads(anthropic.write_response(response))["stop_reason"] == "stop_sequence"


def test_a_count_of_llama_cpp():
    assert anthropic.read_count((RECORDED / "llamacpp_count.json").read_bytes()) == 37


def test_an_error_in_another_form_is_read_all_the_same():
    error = anthropic.read_error(500, (RECORDED / "llamacpp_error.json").read_bytes())
    assert type(error) is LLMProviderError
    assert error.message == "'messages' is required"
