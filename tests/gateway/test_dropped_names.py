"""What is told as left out goes into a header, and some of its names are a caller's own."""

from __future__ import annotations

import pytest

from gateway.front import Front, completed, run
from headrace.gateway.asgi import dropped_header

NAMES = ["a\r\nx-evil: 1", "a\nb", "é", "a, b", "\0", "plain"]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_callers_becomes_a_header_of_its_own(path, name):
    async def main() -> None:
        front = Front({}, {"m": completed("upon a time")})
        body = {"inputs": "Once", "parameters": {"max_new_tokens": 3}, name: 1}
        status, headers, whole = await front.ask(path, body)
        assert status == 200, whole
        told = headers[b"x-headrace-dropped"].decode()
        assert told.isascii()
        assert told.isprintable()
        said = (
            name if name == "plain" else name.translate(dict.fromkeys(map(ord, "\r\n\0é, "), "?"))
        )
        assert said in told.split(", ")

    run(main)


def test_each_is_named_once_and_none_at_length():
    assert dropped_header(["top_k", "messages.a[]", "top_k", "x" * 9999]) == (
        b"x-headrace-dropped",
        b"top_k, messages.a[], " + b"x" * 100,
    )
