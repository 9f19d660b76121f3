"""Server-sent events, as the standard has them, cut anywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError
from headrace.wire import sse

from .strategies import choppings

CASES = {
    "one event": (b"data: a\n\n", [("message", b"a")]),
    "no blank after the colon": (b"data:a\n\n", [("message", b"a")]),
    "one blank is dropped, not two": (b"data:  a\n\n", [("message", b" a")]),
    "several lines": (b"data: a\ndata: b\n\n", [("message", b"a\nb")]),
    "a name": (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), ("message", b"b")]),
    "a name without data": (b"event: x\n\ndata: b\n\n", [("message", b"b")]),
    "a comment": (b": ping\n\n:\ndata: a\n: more\ndata: b\n\n", [("message", b"a\nb")]),
    "empty data": (b"data\n\ndata:\n\n", [("message", b""), ("message", b"")]),
    "empty lines": (b"data\ndata\n\n", [("message", b"\n")]),
    "many blank lines": (
        b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n",
        [("message", b"a"), ("message", b"b")],
    ),
    "unknown fields": (b"foo: x\nerror: y\ndata: a\n\n", [("message", b"a")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
    "a mark in the middle": (b"data: \xef\xbb\xbf\n\n", [("message", b"\xef\xbb\xbf")]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [("message", b"a")]),
    "colons in data": (b'data: {"a": 1}\n\n', [("message", b'{"a": 1}')]),
    "nothing": (b"", []),
}


def read(pieces):
    reader = sse.Reader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    events += reader.close()
    return [(event.name, event.data) for event in events]


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_stream_reads_as_the_standard_says_wherever_it_is_cut(data, events, line_end):
    data = data.replace(b"\n", line_end)
    assert read([data]) == events
    assert read([data[i : i + 1] for i in range(len(data))]) == events
    for cut in range(len(data)):
        assert read([data[:cut], data[cut:]]) == events


@given(
    events=st.lists(
        st.tuples(st.none() | st.text("abc", min_size=1), st.text("a:é \n", max_size=9)),
        max_size=5,
    ),
    ping=st.booleans(),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_what_is_written_is_read_however_it_is_chopped(events, ping, data):
    written = b"".join(
        (sse.PING if ping else b"") + sse.write(text.encode(), name=name) for name, text in events
    )
    expected = [(name or "message", text.encode()) for name, text in events]
    assert read(data.draw(choppings(written))) == expected


def test_line_ends_may_be_mixed():
    assert read([b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r"]) == [
        ("message", b"a\nb\nc"),
        ("message", b"d"),
    ]


def test_id_and_retry_are_kept_for_reconnecting():
    reader = sse.Reader()
    reader.feed(b"id: 7\nretry: 1500\ndata: a\n\nid: b\0d\nretry: soon\n\n")
    assert (reader.last_event_id, reader.retry_ms) == ("7", 1500)


def test_an_event_beyond_the_bound_is_an_error_and_many_small_ones_are_not():
    reader = sse.Reader(max_event_bytes=100)
    assert len(reader.feed(b"data: small\n\n" * 50)) == 50
    assert reader.feed(b"data: " + b"x" * 90) == []
    with pytest.raises(LLMBadResponseError, match="larger than 100 bytes"):
        reader.feed(b"one too many")
    with pytest.raises(LLMBadResponseError, match="larger than 100 bytes"):
        sse.Reader(max_event_bytes=100).feed(b"data: " + b"x" * 200 + b"\n\n")
