"""Tokens to text: whole characters, and stop strings wherever the tokens are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.local.words import Words


def read(parts: list[bytes], stops: tuple[str, ...] = ()) -> tuple[str, str | None]:
    """All the text of an answer whose tokens are ``parts``, and the stop string that ended it."""
    words = Words(parts, stops)
    text = ""
    for token in range(len(parts)):
        text += words.feed(token)
        if words.stopped_by is not None:
            return text, words.stopped_by
    return text + words.close(), None


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, place, turn = [], 0, 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        parts.append(data[place : place + size])
        place, turn = place + size, turn + 1
    return parts


sizes = st.lists(st.integers(1, 5), min_size=1)


@given(text=st.text(), sizes=sizes)
def test_text_survives_any_cut_into_tokens(text: str, sizes: list[int]) -> None:
    assert read(cut(text.encode(), sizes)) == (text, None)


@given(
    text=st.text("ab é中😀"),
    sizes=sizes,
    stops=st.lists(st.text("ab é中😀", max_size=4), max_size=3),
)
def test_nothing_from_the_first_stop_string_on_is_ever_given(
    text: str, sizes: list[int], stops: list[str]
) -> None:
    got, stopped_by = read(cut(text.encode(), sizes), tuple(stops))
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    if stopped_by is None:
        assert not places
        assert got == text
    else:
        assert stopped_by in stops
        assert text.startswith(got + stopped_by)
        assert not any(stop in got for stop in stops if stop)


@pytest.mark.parametrize("text", ["春天来了", "👩‍👩‍👧‍👦🏳️‍🌈", "naïve Ω"])
def test_no_piece_ever_holds_half_a_character(text: str) -> None:
    words = Words([bytes([byte]) for byte in range(256)])
    pieces = [words.feed(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_bytes_that_are_no_text_become_the_replacement_character() -> None:
    assert read([b"a\xff", b"b"]) == ("a\ufffdb", None)


def test_what_the_end_cuts_in_two_is_left_out() -> None:
    assert read([b"a", "😀".encode()[:3]]) == ("a", None)


def test_text_that_only_looked_like_a_stop_string_is_given_after_all() -> None:
    words = Words([b"one st", b"op", b"pe"], ("stops",))
    assert [words.feed(token) for token in range(3)] == ["one ", "", "stoppe"]


def test_of_two_stop_strings_at_the_same_place_the_longer_is_named() -> None:
    assert read([b"a END."], ("END", "END.")) == ("a ", "END.")
