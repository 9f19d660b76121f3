"""What is written for a request, what is refused, and what never shows in a repr or an error."""

from __future__ import annotations

import pytest
from attrs import evolve

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.head import write_head
from headrace.net.transport import HttpRequest, Url, parse_url

URL = Url(host="api.example", port=8080, target="/v1/chat?key=secret")


def test_a_request_is_written_with_host_length_and_plain_encoding():
    request = HttpRequest(
        method="POST", url=URL, headers=(("Authorization", "Bearer k"),), body=b"{}"
    )
    assert write_head(request) == (
        b"POST /v1/chat?key=secret HTTP/1.1\r\n"
        b"Host: api.example:8080\r\n"
        b"Authorization: Bearer k\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n"
    )


def test_a_get_has_no_length_and_an_empty_post_has_one():
    assert b"Content-Length" not in write_head(HttpRequest(url=URL))
    assert b"Content-Length: 0\r\n" in write_head(HttpRequest(method="POST", url=URL))


def test_an_encoding_that_was_asked_for_is_left_alone():
    head = write_head(HttpRequest(url=URL, headers=(("accept-encoding", "zstd"),)))
    assert head.lower().count(b"accept-encoding") == 1
    assert b"accept-encoding: zstd\r\n" in head


@pytest.mark.parametrize(
    "bad", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x1bb", "snow\u2603"]
)
def test_a_header_value_that_would_break_the_head_is_refused_without_being_shown(bad):
    with pytest.raises(LLMInvalidRequestError, match="bad value of header 'X-Key'") as caught:
        write_head(HttpRequest(url=URL, headers=(("X-Key", "secret" + bad),)))
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nb", "a:b", "a\0", "é", "a\n"])
def test_a_header_name_that_is_no_token_is_refused(bad):
    with pytest.raises(LLMInvalidRequestError, match="bad header name"):
        write_head(HttpRequest(url=URL, headers=((bad, "value"),)))


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION"])
def test_a_header_that_frames_the_message_cannot_be_given(name):
    with pytest.raises(LLMInvalidRequestError, match="written by the transport"):
        write_head(HttpRequest(url=URL, headers=((name, "0"),)))


@pytest.mark.parametrize("bad", ["", "GET /other HTTP/1.1\r\nX:", "G T", "CONNECT"])
def test_a_method_that_is_no_method_is_refused(bad):
    with pytest.raises(LLMInvalidRequestError, match="bad HTTP method"):
        write_head(HttpRequest(method=bad, url=URL))


@pytest.mark.parametrize("bad", ["", "v1", "/a b", "/a\r\nX: y", "/a\0", "/caf\u00e9", "/a\n"])
def test_a_target_that_would_break_the_request_line_is_refused(bad):
    with pytest.raises(LLMInvalidRequestError, match="bad request target"):
        evolve(URL, target=bad)


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nX: y", "a/b", "a@b", "a\n"])
def test_a_host_that_would_break_the_head_is_refused(bad):
    with pytest.raises(LLMInvalidRequestError, match="bad host"):
        Url(host=bad)


def test_neither_header_values_nor_body_nor_query_show_in_a_repr():
    request = HttpRequest(
        method="POST", url=URL, headers=(("Authorization", "Bearer secret"),), body=b"secret"
    )
    shown = repr(request)
    assert "secret" not in shown
    assert "Authorization" in shown
    assert "/v1/chat?..." in shown
    assert "<6 bytes>" in shown


def test_a_bad_target_is_shown_without_its_query():
    with pytest.raises(LLMInvalidRequestError) as caught:
        evolve(URL, target="/v1?key=secret\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h", Url(host="h")),
        ("http://h:8000/v1?a=b#part", Url(host="h", port=8000, target="/v1?a=b")),
        ("https://H.Example/x", Url(scheme="https", host="h.example", port=443, target="/x")),
        ("https://h:80/", Url(scheme="https", host="h", port=80)),
        ("http://[::1]:9/", Url(host="::1", port=9)),
        ("http://b\u00fccher.example/", Url(host="xn--bcher-kva.example")),
        ("http+unix://%2Frun%2Fe.sock/v1", Url(unix_path="/run/e.sock", target="/v1")),
    ],
)
def test_a_url_is_parsed_into_its_parts(text, expected):
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("url", "host", "origin"),
    [
        ("http://h/", "h", "http://h:80"),
        ("http://h:81/", "h:81", "http://h:81"),
        ("https://h:443/", "h", "https://h:443"),
        ("https://h:80/", "h:80", "https://h:80"),
        ("http://[::1]:9/", "[::1]:9", "http://[::1]:9"),
        ("http+unix://%2Fs/", "localhost", "unix:/s"),
    ],
)
def test_a_url_knows_its_host_header_and_its_origin(url, host, origin):
    assert (parse_url(url).authority, parse_url(url).origin) == (host, origin)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ftp://h/", "scheme 'ftp'; known: http, https, http\\+unix"),
        ("h:80", "scheme"),
        ("http://", "bad host ''"),
        ("http://h:99999/", "bad URL"),
        ("http://h:0/", "port 0"),
        ("http://user:secret@h/", "user and password"),
        ("http://h/a b", "space or a control"),
        ("http://h/\r\nX: y", "space or a control"),
        ("http://[::1/", "bad URL"),
        ("http+unix://relative/", "expected an absolute path"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason_and_without_secrets(text, complaint):
    with pytest.raises(LLMInvalidRequestError, match=complaint) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)
