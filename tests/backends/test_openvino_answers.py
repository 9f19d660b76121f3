"""OpenVINO's tokens read into deltas: what one answer has learnt of a token serves the next one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.local.inbox import Inbox
from headrace.backends.local.openvino_answers import Answer
from headrace.backends.local.words import Words
from headrace.contracts.responses import LLMDelta

PIECES = [b"a", b" river", b"\xe6\x98", b"\xa5", "é".encode(), "春😀".encode(), b"", b"\xff", b"st"]
tokens = st.lists(st.integers(0, len(PIECES) - 1), max_size=12)


def answer(known: dict[int, LLMDelta], stops: tuple[str, ...] = (), index: int = 0) -> Answer:
    return Answer(1, index, Inbox(), Words(PIECES, stops), known)


def said(answer: Answer, tokens: list[int]) -> tuple[str, list[str | None]]:
    """All of its text, and why it ended."""
    deltas = [
        delta
        for place, token in enumerate(tokens)
        for delta in answer.read((1, [token], [], None if place + 1 < len(tokens) else "length"))
    ]
    assert {delta.index for delta in deltas} <= {answer.index}
    text = "".join(delta.text_delta or "" for delta in deltas)
    return text, [delta.finish_reason for delta in deltas if delta.finish_reason]


@given(answers=st.lists(tokens, max_size=6), stops=st.sampled_from([(), ("st",), ("a river",)]))
def test_an_answer_is_the_same_whatever_was_answered_before(
    answers: list[list[int]], stops: tuple[str, ...]
) -> None:
    known: dict[int, LLMDelta] = {}
    for place, each in enumerate(answers):
        index = place % 3 // 2
        fresh, again = answer({}, stops, index), answer(known, stops, index)
        assert said(again, each) == said(fresh, each)
        assert again.tokens == fresh.tokens


def test_a_token_that_ends_a_character_is_not_taken_for_one_that_stands_alone() -> None:
    known: dict[int, LLMDelta] = {}
    assert said(answer(known), [0, 3, 0, 2, 3, 0, 3, 0])[0] == "a\ufffda春a\ufffda"


def test_several_tokens_of_one_step_and_their_log_probabilities_come_as_one_delta() -> None:
    known: dict[int, LLMDelta] = {}
    (delta,) = answer(known).read((1, [0, 1], [-0.5, -1.5], None))
    assert delta.text_delta == "a river"
    assert [each.logprob for each in delta.logprobs or ()] == [-0.5, -1.5]
    assert not known


@pytest.mark.parametrize("index", [0, 1])
def test_each_answer_of_a_request_keeps_its_place(index: int) -> None:
    known: dict[int, LLMDelta] = {}
    for _ in range(2):
        (delta,) = answer(known, index=index).read((1, [0], [], None))
        assert (delta.text_delta, delta.index) == ("a", index)
