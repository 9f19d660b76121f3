"""Tokens as TGI and TEI tell them: which are marks, and where the others stand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire import hf_tokens
from headrace.wire.hf_tokens import Token


@given(
    text=st.text(max_size=10), cuts=st.lists(st.integers(1, 4), max_size=10), marks=st.booleans()
)
def test_places_cover_the_text_even_where_a_token_is_half_a_character(text, cuts, marks):
    spelt, plain = text.encode("utf-8", "surrogatepass"), []
    for number, cut in enumerate([*cuts, len(spelt)], 10):
        piece, spelt = spelt[:cut], spelt[cut:]
        if piece:
            plain.append((number, piece))
    whole = [(1, b"[CLS]"), *plain, (2, b"[SEP]")] if marks else plain
    tokens = hf_tokens.placed(text, plain, whole)
    assert [each.token_id for each in tokens] == [number for number, _ in whole]
    own = [each for each in tokens if not each.special]
    assert len(own) == len(plain)
    assert "".join(text[each.start : each.stop] for each in own) == text
    assert [each.special for each in tokens if each not in own] == ([True, True] if marks else [])


def test_a_long_text_is_looked_at_once():
    class Watched(str):
        read = 0

        def encode(self, *how: str) -> bytes:
            Watched.read += 1
            return super().encode(*how)

    text = Watched("ä" * 500)
    plain = [(7, bytes([each])) for each in str(text).encode()]
    tokens = hf_tokens.placed(text, plain, plain)
    assert (tokens[-1].start, tokens[-1].stop) == (499, 500)
    assert Watched.read < 5


def test_tokens_that_are_others_among_the_marks_break_nothing():
    plain = [(1, b"\xc3"), (2, b"\xa4")]
    tokens = hf_tokens.placed("ä", plain, [(9, b"\xa4"), (8, b"\xff")])
    assert [each.token_id for each in tokens] == [9, 8]


def test_tokens_that_do_not_spell_the_text_have_no_places():
    (token,) = hf_tokens.placed("The", [(5, b"the")], [(5, b"the")])
    assert token == Token(token_id=5, text="the")
    assert json.loads(hf_tokens.write_tokens([[token]], nested=False)) == [{"id": 5, "text": "the"}]


def test_several_texts_are_told_apart_and_one_as_tgi_does():
    token = Token(token_id=5, text="a", start=0, stop=1)
    wire = {"id": 5, "text": "a", "start": 0, "stop": 1}
    assert json.loads(hf_tokens.write_tokens([[token]], nested=False)) == [wire]
    nested = json.loads(hf_tokens.write_tokens([[token], []], nested=True))
    assert nested == [[{**wire, "special": False}], []]


@pytest.mark.parametrize(
    ("wire", "ids"), [([1, 2], ((1, 2),)), ([[1], [2]], ((1,), (2,))), ([], ((),))]
)
def test_one_and_several_are_told_apart(wire, ids):
    assert hf_tokens.read_decode(json.dumps({"ids": wire}).encode()).ids == ids


@pytest.mark.parametrize(
    "wire", [{"inputs": []}, {"inputs": [1]}, {"inputs": "a", "prompt_name": "q"}]
)
def test_what_is_wrong_is_refused(wire):
    with pytest.raises(LLMInvalidRequestError):
        hf_tokens.read_tokenize(json.dumps(wire).encode())
