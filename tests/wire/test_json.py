"""Bodies that are no honest JSON, and those that are."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.wire.json import MAX_DEPTH, decode, decode_object, decode_reply, encode

from .strategies import json_values

HOSTILE = {
    "nothing": (b"", "empty"),
    "blanks": (b" \n ", "empty"),
    "no JSON": (b"hello", "invalid"),
    "cut short": (b'{"a": [1, 2', "too early"),
    "something after": (b'{"a": 1} x', "trailing"),
    "single quotes": (b"{'a': 1}", "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "byte order mark"),
    "NaN": (b'{"temperature": NaN}', "not valid JSON"),
    "Infinity": (b'{"temperature": -Infinity}', "not valid JSON"),
    "an endless float": (b'{"temperature": 1e999}', "too large"),
    "an endless integer": (b'{"n": ' + b"9" * 5000 + b"}", "too large"),
    "bytes beyond UTF-8": (b'{"a": "\xff"}', "byte 7 (0xff) is not UTF-8"),
    "a raw surrogate": (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    "a high surrogate": (b'{"a": "\\ud800"}', "half of a surrogate pair"),
    "a low surrogate": (b'{"a": "\\udc00 x"}', "half of a surrogate pair"),
    "a surrogate in a key": (b'{"\\ud800x": 1}', "half of a surrogate pair"),
    "a control character": (b'{"a": "\x00"}', "not valid JSON"),
    "deep arrays": (b"[" * 20_000 + b"]" * 20_000, "deep"),
    "deep objects": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "deep"),
    "deep and cut short": (b"[" * 20_000, "deep"),
    "just too deep": (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "deep"),
    "a key twice": (b'{"model": "a", "model": "b"}', '"model" twice'),
    "a key twice, deep": (b'{"a": [{"b": {"c": 1, "c": 1}}]}', '"c" twice'),
    "a key twice, once escaped": (b'{"a": 1, "\\u0061": 2}', '"a" twice'),
    "a key twice, quotes hidden": (b'{"a": 1, "a": "\\u0022\\u0022"}', '"a" twice'),
}


@pytest.mark.parametrize(("body", "word"), HOSTILE.values(), ids=HOSTILE)
def test_a_body_that_is_no_honest_json_is_refused_in_words(body, word):
    with pytest.raises(LLMInvalidRequestError) as caught:
        decode(body)
    assert word in caught.value.message
    assert len(caught.value.message) < 250
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
def test_a_request_body_must_be_an_object(body):
    with pytest.raises(LLMInvalidRequestError, match="must be a JSON object, but it is"):
        decode_object(body)


@given(value=json_values, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
@settings(max_examples=80, deadline=None)
def test_honest_json_is_read_as_the_standard_library_reads_it(value, ascii_only, indent):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert decode(body) == value
    assert decode(encode(value)) == value


def test_quotes_and_key_like_text_inside_strings_are_no_duplicates():
    value = {"a": '"a": 1, "a": 2', "b": "\\u0022", "c": ['"', '""', "u0022"], '"': {"a": 1}}
    for body in (json.dumps(value).encode(), json.dumps(value).replace('\\"', "\\u0022").encode()):
        assert decode(body) == value


def test_depth_up_to_the_limit_is_read_however_many_brackets_there_are():
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert decode(deepest) == json.loads(deepest)
    wide = b'[{"a":[1]}' + b',{"a":[1]}' * 1000 + b"]"
    assert decode(wide) == json.loads(wide)


def test_a_large_body_is_read_whole():
    value = {"messages": [{"content": "x" * 20_000_000}]}
    assert decode(encode(value)) == value


@given(body=st.binary(max_size=40) | st.text('[]{}",:\\u0d8e1 ', max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_our_own_error(body):
    for read, error in ((decode, LLMInvalidRequestError), (decode_reply, LLMBadResponseError)):
        with contextlib.suppress(error):
            read(body)


def test_a_backends_answer_may_repeat_a_key_but_must_be_json():
    assert decode_reply(b'{"a": 1, "a": 2}') == {"a": 2}
    for body in (b"<html>", b"\xff", b"[" * 20_000):
        with pytest.raises(LLMBadResponseError):
            decode_reply(body)


def test_text_that_is_no_unicode_is_refused_before_it_is_sent():
    with pytest.raises(LLMInvalidRequestError, match="lone surrogate"):
        encode({"text": "a\ud800"})


def test_a_value_that_json_has_no_form_for_is_refused():
    with pytest.raises(LLMInvalidRequestError, match="cannot be written"):
        encode({"option": object()})
