"""What the sender reads out of answers, however their bytes are cut, against the codecs."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.load.scan import CODECS, Answer, output_of
from headrace.contracts.responses import LLMDelta, ToolCallDelta, Usage
from headrace.wire import anthropic, openai_chat, openai_completions, openai_responses

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
WRITERS = {
    "chat": openai_chat,
    "completions": openai_completions,
    "messages": anthropic,
    "responses": openai_responses,
}

texts = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        [
            " word",
            "\n",
            '"',
            '\\"',
            "\\",
            '","content":"',
            '"content":""',
            "data: ",
            "}]}",
            "\u2028",
            "é",
        ]
    ),
)


def stream_of(kind: str, said: list[str]) -> list[bytes]:
    """The events of a whole stream, as our own writers make them."""
    writer = WRITERS[kind].stream_writer(
        **{
            name: value
            for name, value in {
                "response_id": "r-1",
                "model": "m",
                "created": 1,
                "include_usage": True,
            }.items()
            if name != "include_usage" or kind in ("chat", "completions")
        }
    )
    events = [writer.write(LLMDelta(text_delta=text)) for text in said]
    usage = Usage(prompt_tokens=7, completion_tokens=len(said), total_tokens=7 + len(said))
    events.append(writer.write(LLMDelta(finish_reason="stop", raw_finish_reason="stop")))
    events.append(writer.write(LLMDelta(usage_delta=usage)))
    events.append(writer.finish())
    return [event for event in events if event]


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"


def read(kind: str, wire: bytes, cuts: list[int]) -> Answer:
    answer = Answer(kind)
    at = 0
    clock = 0.0
    for cut in [*cuts, len(wire)]:
        piece = wire[at : at + cut]
        at += len(piece)
        clock += 1.0
        if piece:
            answer.feed(piece, clock)
    answer.close("peer")
    return answer


def pieces_by_codec(kind: str, stream: bytes) -> int:
    reader = WRITERS[kind].stream_reader()
    deltas = reader.feed(stream)
    deltas += reader.close()
    return sum(output_of(delta) is not None for delta in deltas)


cuts = st.lists(st.integers(1, 60), max_size=60)


@pytest.mark.parametrize("kind", list(WRITERS))
@given(said=st.lists(texts, max_size=12), cut=cuts, by=st.booleans())
def test_every_chopping_of_a_stream_counts_the_pieces_that_the_codec_reads(kind, said, cut, by):
    events = stream_of(kind, said)
    stream = b"".join(events)
    body = chunked(events if by else [stream])
    answer = read(kind, HEAD + b"transfer-encoding: chunked\r\n\r\n" + body, cut)
    assert answer.failure is None
    assert answer.over
    assert answer.keeps
    assert len(answer.pieces) == pieces_by_codec(kind, stream)
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(said)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@given(said=st.lists(texts, min_size=1, max_size=8), cut=cuts)
def test_line_ends_and_an_end_by_closing_change_nothing(ends, said, cut):
    stream = b"".join(stream_of("chat", said))
    wire = HEAD + b"\r\n" + stream.replace(b"\n", ends.encode())
    answer = read("chat", wire, cut)
    assert (answer.failure, answer.keeps) == (None, False)
    assert len(answer.pieces) == len(said)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@given(data=st.data(), said=st.lists(texts, min_size=1, max_size=8))
def test_a_piece_that_came_by_itself_has_its_own_instant_however_late_it_is_read(ends, data, said):
    events = [e.replace(b"\n", ends.encode()) for e in stream_of("chat", said)]
    came = [HEAD + b"transfer-encoding: chunked\r\n\r\n"]
    came += [b"%x\r\n%b\r\n" % (len(e), e) for e in events]
    came[-1] += b"0\r\n\r\n"
    last_byte = list(itertools.accumulate(map(len, came)))
    wire = b"".join(came)
    # A read has the instant of the last segment that it takes a byte of.
    reads, at = [], 0
    answer = Answer("chat")
    while at < len(wire):
        size = data.draw(st.integers(1, answer.shortest))
        after = min(at + size, len(wire))
        segment = next(i for i, end in enumerate(last_byte) if end >= after)
        reads.append((wire[at:after], float(segment)))
        at = after
        if data.draw(st.booleans()):
            answer.feed_apart(reads)
            reads = []
    answer.feed_apart(reads)
    assert answer.failure is None
    assert answer.over
    assert answer.keeps
    whole = Answer("chat")
    for number, segment in enumerate(came):
        whole.feed(segment, float(number))
    assert answer.pieces == whole.pieces
    assert (answer.coalesced, answer.at) == (0, whole.at)


def chunk(**delta: object) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return b"data: " + json.dumps({"id": "a", "choices": choices}).encode() + b"\n\n"


def events_of(*events: bytes) -> Answer:
    answer = Answer("chat")
    answer.feed(HEAD + b"transfer-encoding: chunked\r\n\r\n", 1.0)
    for number, event in enumerate(events):
        answer.feed(b"%x\r\n%b\r\n" % (len(event), event), 2.0 + number)
    return answer


def test_roles_and_empty_texts_are_no_output():
    answer = events_of(
        chunk(role="assistant", content=""),
        chunk(content="a"),
        chunk(content=""),
        chunk(content="b"),
        chunk(content=None),
        chunk(content="c"),
        chunk(content=""),
    )
    assert answer.pieces == [3.0, 5.0, 7.0]


def test_reasoning_and_arguments_of_calls_are_output():
    def call(arguments: str) -> bytes:
        return chunk(
            tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}]
        )

    answer = events_of(chunk(reasoning_content="hm"), call(""), call('{"a":'), call("1}"))
    assert answer.pieces == [2.0, 4.0, 5.0]
    assert output_of(LLMDelta(tool_call_delta=ToolCallDelta(name="f"))) is None


def test_pieces_that_came_in_one_read_are_told_apart_from_those_that_came_alone():
    answer = events_of(
        chunk(content="a"), chunk(content="b") + chunk(content="c"), chunk(content="d")
    )
    assert answer.pieces == [2.0, 3.0, 3.0, 4.0]
    assert answer.coalesced == 1


def test_an_error_inside_of_an_answer_that_began_well_is_its_failure():
    said = b'data: {"error":{"message":"out of memory","type":"server_error","code":500}}\n\n'
    answer = events_of(chunk(content="a"), said)
    answer.feed(b"0\r\n\r\n", 9.0)
    assert type(answer.failure).__name__ == "LLMProviderError"
    assert "out of memory" in answer.failure.message
    assert len(answer.pieces) == 1


def test_a_stream_without_its_end_is_cut_short():
    answer = events_of(chunk(content="a"))
    answer.feed(b"0\r\n\r\n", 9.0)
    assert "cut short" in answer.failure.message


def test_a_connection_that_ends_inside_the_answer_is_told_as_such():
    answer = events_of(chunk(content="a"))
    answer.close("server:1")
    assert answer.failure.message == "server:1 closed the connection inside the answer"
    unanswered = Answer("chat")
    unanswered.close("server:1")
    assert unanswered.failure.message == "server:1 closed the connection without an answer"
    assert not unanswered.began


def test_what_is_no_http_says_how_it_begins():
    answer = Answer("chat")
    answer.feed(b"SSH-2.0-OpenSSH_9.6\r\n", 1.0)
    assert "begins with b'SSH-2.0" in answer.failure.message


@pytest.mark.parametrize("kind", list(CODECS))
def test_an_error_status_is_read_by_the_faces_own_codec(kind):
    body = b'{"error":{"message":"no such model","type":"not_found_error"}}'
    answer = Answer(kind)
    answer.feed(b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n" % len(body) + body, 1.0)
    assert answer.failure.status == 404
    assert "no such model" in answer.failure.message
    assert answer.keeps
