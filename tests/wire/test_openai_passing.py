"""What passes through untranslated is what would have been sent and read translated."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMRateLimitError
from headrace.wire import openai_chat
from headrace.wire.assemble import assemble
from headrace.wire.openai_params import COMMON, OPENAI, Dialect
from headrace.wire.openai_passing import (
    Stream,
    Whole,
    read_passing,
    write_passing,
)

from .strategies import choppings, streams

modest = settings(max_examples=150, deadline=None)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def or_null(values):
    return st.none() | values


messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": words
            | st.lists(
                st.fixed_dictionaries({"type": st.just("text"), "text": words}),
                min_size=1,
                max_size=3,
            ),
        },
        optional={"name": words.filter(bool)},
    ),
    min_size=1,
    max_size=4,
)
bodies = st.fixed_dictionaries(
    {"messages": messages},
    optional={
        "model": or_null(words),
        "max_tokens": or_null(st.integers(0, 9999)),
        "temperature": or_null(st.floats(0, 2)),
        "top_p": or_null(st.floats(0, 1)),
        "top_k": or_null(st.integers(-1, 100)),
        "min_p": or_null(st.floats(0, 1)),
        "seed": or_null(st.integers(-(2**63), 2**63 - 1)),
        "stop": or_null(words | st.lists(words, max_size=4)),
        "frequency_penalty": or_null(st.floats(-2, 2)),
        "presence_penalty": or_null(st.floats(-2, 2)),
        "repetition_penalty": or_null(st.floats(0, 2)),
        "n": or_null(st.just(1)),
        "user": or_null(words),
        "stream": or_null(st.booleans()),
    },
)


def normal(body):
    """A request as a backend understands it: absent, null and the usual value are the same."""
    known = {key: value for key, value in json.loads(body).items() if value is not None}
    if isinstance(known.get("stop"), str):
        known["stop"] = [known["stop"]]
    if known.get("n") == 1:
        del known["n"]
    if not known.get("stop"):
        known.pop("stop", None)
    for message in known["messages"]:
        if message.get("name") is None:
            message.pop("name", None)
    return known


@given(body=bodies, usage=st.booleans(), dialect=st.sampled_from([COMMON, OPENAI]))
@modest
def test_a_request_that_passes_asks_for_what_the_translated_one_asks(body, usage, dialect):
    raw = json.dumps(body).encode()
    passing = read_passing(raw)
    assert passing is not None
    inbound = openai_chat.read_request(raw)
    fast = write_passing(passing, "theirs", dialect, include_usage=usage)
    general = openai_chat.write_request(
        inbound.request,
        model="theirs",
        stream=inbound.stream,
        include_usage=usage,
        dialect=dialect,
    )
    assert normal(fast) == normal(general)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"messages": []}',
        b'{"messages": [{"role": "user", "content": "a"}], "unheard_of": 1}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": "hot"}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": 3}',
        b'{"messages": [{"role": "user", "content": "a"}], "n": 2}',
        b'{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}',
        b'{"messages": [{"role": "tool", "content": "a"}]}',
        b'{"messages": [{"role": "user", "content": "a", "cache": 1}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "tools": []}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
    ],
)
def test_whatever_is_not_of_the_usual_kind_is_left_to_the_codec(body):
    assert read_passing(body) is None


def test_a_key_that_stands_twice_goes_on_once():
    passing = read_passing(
        b'{"model": "mine", "model": "m", "messages": [{"role": "user", "content": "a"}]}'
    )
    sent = write_passing(passing, "m", COMMON, include_usage=True)
    assert sent.count(b'"model"') == 1


def test_a_lone_surrogate_is_left_to_the_codec():
    passing = read_passing(b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
    assert passing is None or write_passing(passing, "m", COMMON, include_usage=True) is None


def test_the_most_tokens_go_under_the_backends_name():
    body = b'{"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 7}'
    assert b'"max_tokens":7' in write_passing(read_passing(body), "m", COMMON, include_usage=True)
    sent = write_passing(
        read_passing(body), "m", Dialect(max_tokens="max_completion_tokens"), include_usage=True
    )
    assert b'"max_completion_tokens":7' in sent


def passed(pieces, *, hides_usage=False):
    """What the caller gets of a stream that comes in ``pieces``, and how it ended."""
    stream = Stream(hides_usage=hides_usage)
    out = b"".join(map(stream.feed, pieces))
    return out + stream.close(), stream


@st.composite
def chopped(draw):
    """A stream as the codec writes it, whole and in pieces."""
    writer = openai_chat.stream_writer(
        response_id="id", model="m", created=1, include_usage=draw(st.booleans())
    )
    whole = b"".join(map(writer.write, draw(streams()))) + writer.finish()
    return whole, draw(choppings(whole))


@given(data=chopped())
@modest
def test_a_stream_passes_byte_for_byte_however_it_is_cut(data):
    whole, pieces = data
    try:
        reader = openai_chat.stream_reader()
        deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.close()
    except LLMError as error:
        with pytest.raises(type(error)):
            passed(pieces)
        return
    out, stream = passed(pieces)
    assert out == whole
    answer = assemble(deltas)
    assert stream.usage == answer.usage
    assert stream.finish_reason == answer.finish_reason


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(text, reason=None, **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return event({"id": "i", "model": "m", "choices": [choice], **more})


USAGE = event({"id": "i", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
DONE = b"data: [DONE]\n\n"
WHOLE = chunk("a") + chunk("b", "stop") + USAGE + DONE


def variants():
    yield "as usual", WHOLE
    yield "CRLF", WHOLE.replace(b"\n", b"\r\n")
    yield "CR", WHOLE.replace(b"\n", b"\r")
    yield "BOM", b"\xef\xbb\xbf" + WHOLE
    yield (
        "comments",
        b": hello\n\n" + chunk("a") + b": ping\n\n" + chunk("b", "stop") + USAGE + DONE,
    )
    yield "comment within", b": x\n" + chunk("a") + chunk("b", "stop") + USAGE + DONE
    yield "no space", WHOLE.replace(b"data: ", b"data:")
    yield (
        "two lines of data",
        WHOLE.replace(b'"choices"', b'\ndata: "choices"'),
    )
    yield "ids", b"id: 1\n" + chunk("a") + chunk("b", "stop") + USAGE + DONE


@pytest.mark.parametrize(("name", "whole"), list(variants()))
def test_however_its_lines_are_written_it_passes_byte_for_byte(name, whole):
    done = DONE
    for at in range(1, len(whole)):
        out, stream = passed([whole[:at], whole[at:]])
        assert out.endswith(done)
        body = whole[: whole.rindex(b"data:" if name == "no space" else b"data: ")]
        assert out[: -len(done)] == body
        assert (stream.chunks, stream.finish_reason) == (2, "stop")
        assert stream.usage.completion_tokens == 2
    out, _ = passed([whole[i : i + 1] for i in range(len(whole))])
    assert out[: -len(done)] == body


def test_counts_that_nobody_asked_for_are_kept_back_and_still_written_down():
    out, stream = passed([chunk("a"), chunk("b", "stop") + USAGE + DONE], hides_usage=True)
    assert out == chunk("a") + chunk("b", "stop") + DONE
    assert stream.usage.prompt_tokens == 3


def test_an_end_without_done_gets_it_where_a_finish_reason_was_told():
    out, _ = passed([chunk("a"), chunk("b", "stop")])
    assert out == chunk("a") + chunk("b", "stop") + DONE


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([], LLMBadResponseError),
        ([chunk("a")], LLMBadResponseError),
        ([chunk("a"), b"data: {broken\n\n", DONE], LLMBadResponseError),
        (
            [chunk("a"), b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'],
            LLMBadResponseError,
        ),
        ([chunk("a"), event({"error": {"message": "slow", "code": 429}}), DONE], LLMRateLimitError),
        ([chunk("a"), b"event: error\n" + event({"message": "x"})], LLMError),
        ([chunk("a"), chunk("b")[:-1]], LLMBadResponseError),
    ],
)
def test_what_breaks_a_stream_off_ends_it_after_what_was_good(pieces, kind):
    stream = Stream(hides_usage=False)
    out = b"".join(map(stream.feed, pieces))
    with pytest.raises(kind):
        stream.close()
    assert out == b"".join(piece for piece in pieces[:1])


def test_what_stood_before_an_error_in_one_piece_still_goes_on():
    stream = Stream(hides_usage=False)
    out = stream.feed(chunk("a") + chunk("b") + b"data: {broken\n\n" + chunk("c"))
    assert out == chunk("a") + chunk("b")
    assert isinstance(stream.failure, LLMBadResponseError)
    assert stream.feed(chunk("d")) == b""


def test_a_whole_answer_is_read_for_the_record():
    answer = Whole()
    body = {
        "model": "m-1",
        "choices": [{"message": {"content": "hi"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    assert answer.read_whole(json.dumps(body).encode())
    assert (answer.model, answer.finish_reason) == ("m-1", "length")
    assert answer.usage.total_tokens == 3


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": {"message": "no"}}'])
def test_what_is_no_answer_is_an_error(body):
    with pytest.raises(LLMError):
        Whole().read_whole(body)


def test_an_answer_without_choices_is_for_the_codec():
    assert not Whole().read_whole(b'{"choices": []}')
