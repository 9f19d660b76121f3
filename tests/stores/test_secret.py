"""A key is shown nowhere but where it is revealed."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback

import msgspec
import pytest
from attrs import asdict, frozen
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMAuthError, LLMProviderError
from headrace.stores.secret import MASK, RedactingFilter, Secret, redact, redact_error

KEY = "sk-proj-0123456789abcdefXYZ"


@frozen
class Holder:
    key: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r:>40}".format,
        "%s".__mod__,
        lambda s: f"{s:*^30}",
        lambda s: repr({"key": [s]}),
        lambda s: repr(Holder(s)),
        lambda s: repr(asdict(Holder(s))),
        lambda s: json.dumps({"key": s}, default=str),
        lambda s: msgspec.json.encode({"key": s}, enc_hook=str).decode(),
        lambda s: repr(copy.deepcopy({"key": s})),
        lambda s: repr(vars(s)) if hasattr(s, "__dict__") else "",
    ],
)
def test_it_is_masked_in_every_text(show):
    assert KEY not in show(Secret(KEY))


def test_it_is_not_pickled():
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(KEY))


def test_it_is_masked_in_a_traceback_with_the_values_of_its_variables():
    def fail(secret: Secret) -> None:
        raise ValueError(f"cannot use {secret}")

    with pytest.raises(ValueError) as caught:
        fail(Secret(KEY))
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert KEY not in "".join(shown.format())


def test_it_is_revealed_copied_and_compared_by_its_text():
    assert Secret(f"  {KEY}\n").reveal() == KEY
    assert copy.deepcopy(Secret(KEY)) == Secret(KEY)
    assert Secret(KEY) != Secret("another")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY)}) == 1


def test_an_empty_key_is_refused():
    with pytest.raises(LLMAuthError, match="the key is empty"):
        Secret(" ")


@pytest.mark.parametrize(
    "text",
    [
        "GET https://example.com/v1/models?key=AAAA1111bbbb&alt=sse HTTP/1.1",
        "https://example.com/?alt=sse&api_key=AAAA1111bbbb",
        "https://example.com/?access_token=AAAA1111bbbb#there",
        "authorization: Bearer AAAA1111bbbb",
        "Authorization: AAAA1111bbbb",
        "('authorization', 'Bearer AAAA1111bbbb')",
        '{"x-api-key": "AAAA1111bbbb"}',
        "{b'api-key': b'AAAA1111bbbb'}",
        "curl -H 'x-goog-api-key: AAAA1111bbbb'",
        "sent Bearer AAAA1111bbbb to the server",
        "https://user:AAAA1111bbbb@example.com/v1",
        "api_key=AAAA1111bbbb",
    ],
)
def test_a_key_is_taken_out_by_the_words_before_it(text):
    cleaned = redact(text)
    assert "AAAA1111bbbb" not in cleaned
    assert MASK in cleaned


@pytest.mark.parametrize(
    "key", [KEY, "gsk_0123456789abcdefghij", "hf_0123456789abcdefghij", "AIza" + "x" * 35]
)
def test_a_key_is_taken_out_by_its_form(key):
    assert redact(f"wrong key {key}.") == f"wrong key {MASK}."


@pytest.mark.parametrize(
    "text",
    [
        "chat gpt-4o at openai: stop after 812 ms, 12 tokens in and 34 out",
        "https://example.com/v1/chat/completions?api-version=2024-10-21",
        "no key for groq: set GROQ_API_KEY, or hand in api_key (looked in the environment)",
        "the token limit is 4096; keys: name, value",
        "task-based risk-assessment of a long-running sk-learn job",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert redact(text) == text


@given(
    keys=st.lists(st.text("abcdefgh/+&= 0123", min_size=1).map(str.strip).filter(bool), max_size=4),
    words=st.text("xyz "),
)
def test_no_known_key_is_left(keys, words):
    text = words.join(["", *keys, ""])
    cleaned = redact(text, [Secret(key) for key in keys])
    assert not any(key in cleaned for key in keys)


def test_a_known_key_is_found_in_a_url_too():
    assert "a%2Fb" not in redact("http://x/?q=a%2Fb", [Secret("a/b")])


def test_an_error_that_repeats_the_key_is_cleaned_in_all_that_it_says():
    error = LLMProviderError(f"bad key plainword in {KEY}", provider_message="no: plainword")
    redact_error(error, [Secret("plainword"), None])
    assert "plainword" not in f"{error!r} {error} {error.message} {error.provider_message}"
    assert KEY not in str(error)


def logged(emit: object, *secrets: Secret) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter(secrets))
    handler.setFormatter(logging.Formatter("%(message)s %(url)s", defaults={"url": ""}))
    logger = logging.Logger("of this test alone")
    logger.addHandler(handler)
    emit(logger)  # type: ignore[operator]
    return stream.getvalue()


def test_a_log_line_is_cleaned_with_its_arguments_and_extras():
    said = logged(
        lambda log: log.warning(
            "asked %s with %s", "http://x/?key=AAAA1111", "plainword", extra={"url": f"?key={KEY}"}
        ),
        Secret("plainword"),
    )
    assert said == f"asked http://x/?key={MASK} with {MASK} ?key={MASK}\n"


def test_a_logged_traceback_is_cleaned():
    def emit(log: logging.Logger) -> None:
        try:
            raise ValueError("Authorization: Bearer AAAA1111bbbb")
        except ValueError:
            log.exception("it failed")

    said = logged(emit)
    assert "ValueError" in said
    assert "AAAA1111bbbb" not in said


def test_a_line_without_keys_keeps_its_arguments():
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%d tokens", (3,), None)
    assert RedactingFilter().filter(record)
    assert (record.msg, record.args) == ("%d tokens", (3,))
