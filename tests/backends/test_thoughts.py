"""Reasoning told apart from answers, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.local.thoughts import Thoughts

CASES = [
    ("<think>\nWhat is it?\n</think>\n\nA fox.", False, "What is it?", "A fox."),
    ("\n<think>a</think>b", False, "a", "b"),
    ("Hm.\n</think>\nYes", True, "Hm.", "Yes"),
    ("\n\n</think>\n\nYes", True, "", "Yes"),
    ("still at it \n", True, "still at it", ""),
    ("<think>cut </thi", False, "cut </thi", ""),
    ("A fox. <think>x</think>", False, "", "A fox. <think>x</think>"),
    ("  two spaces", False, "", "  two spaces"),
    ("<thin", False, "", "<thin"),
    ("<think>a </ b></think>c</think>\n", False, "a </ b>", "c</think>\n"),
    ("", False, "", ""),
]


@pytest.mark.parametrize(("whole", "begun", "reasoning", "text"), CASES)
@given(cuts=st.lists(st.integers(1, 9), max_size=40))
def test_reasoning_and_answer_are_told_apart_wherever_the_text_is_cut(
    whole, begun, reasoning, text, cuts
):
    thoughts, left = Thoughts(begun=begun), whole
    said = []
    for size in cuts:
        said.append(thoughts.feed(left[:size]))
        left = left[size:]
    said += [thoughts.feed(left), thoughts.close()]
    assert "".join(each.reasoning for each in said) == reasoning
    assert "".join(each.text for each in said) == text
