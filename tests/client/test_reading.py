"""From the text that models write to the JSON that they meant, or to a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.structured.reading import Unreadable, read_text

MEANT = {
    "name": "Ann Lee",
    "age": 3,
    "tags": ["a", "b"],
    "note": 'it\'s "so"',
    "ok": True,
    "none": None,
}
J = json.dumps(MEANT)

MALFORMED = {
    "a fence": f"```json\n{J}\n```",
    "a fence without a language": f"```\n{J}\n```",
    "a fence that is not closed": f"```json\n{J}",
    "prose before": f"Sure, here it is:\n{J}",
    "prose after": f"{J}\nHope this helps!",
    "prose around a fence": f"Here:\n```json\n{J}\n```\nBye {{name}}.",
    "prose with braces": f"For {{name}}: {J}",
    "thoughts with another object": f'<think>{{"name": "no"}}</think>\n{J}',
    "the same object twice": f"{J}\n{J}",
    "JSON in a JSON text": json.dumps(J),
    "a byte order mark": "\ufeff" + J,
    "a comma too many in the object": J[:-1] + ",}",
    "a comma too many in the list": J.replace('"b"]', '"b",]'),
    "a comma too few": J.replace('3, "tags"', '3 "tags"'),
    "a bracket too many": J + "}",
    "a bracket too few": J[:-1],
    "single quotes": (
        "{'name': 'Ann Lee', 'age': 3, 'tags': ['a', 'b'], 'note': 'it\\'s \"so\"', "
        "'ok': true, 'none': null}"
    ),
    "Python's own": repr(MEANT),
    "names without quotes": J.replace('"name"', "name").replace('"age"', "age"),
    "typographic quotes": J.replace('"name"', "“name”"),
    "quotes that are not escaped": J.replace('\\"so\\"', '"so"'),
    "an apostrophe that is": J.replace("it's", "it\\'s"),
    "a comment": J.replace('"age": 3,', '"age": 3, // years\n'),
    "a comment in a block": J.replace('"age": 3,', '/* years */ "age": 3,'),
    "dots for more": J.replace('"b"]', '"b", ...]'),
}

NOT_TO_BE_MENDED = {
    "nothing": " \n",
    "a refusal": "I am sorry, I cannot do that.",
    "no JSON at all": "name: Ann\nage: 3",
    "two different objects": f'{J}\n{{"name": "Bob"}}',
    "a text that stops in a string": J[:12],
    "a text that stops deep inside": J[: J.index('"b"')],
    "a number that is none": J.replace("3", "NaN"),
    "a number without measure": J.replace("3", "1e999"),
    "brackets without end": "[" * 100_000,
    "too long a text": "Sure: " + J + " " * 300_000,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_what_was_meant_is_read_exactly(text: str) -> None:
    reading = read_text(text, whole=True)
    assert (reading.value, reading.repaired) == (MEANT, True)


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_an_answer_that_was_cut_is_never_mended(text: str) -> None:
    with pytest.raises(Unreadable):
        read_text(text, whole=False)


@pytest.mark.parametrize("text", NOT_TO_BE_MENDED.values(), ids=NOT_TO_BE_MENDED)
def test_what_would_have_to_be_guessed_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_text(text, whole=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), JSON, max_size=4), whole=st.booleans())
def test_valid_json_is_taken_as_it_is(value: Any, whole: bool) -> None:
    reading = read_text(json.dumps(value), whole=whole)
    assert (reading.value, reading.repaired) == (value, False)


@given(value=st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=4), cut=st.integers(1))
def test_the_beginning_of_an_answer_is_not_taken_for_it(value: Any, cut: int) -> None:
    text = json.dumps(value)
    with pytest.raises(Unreadable):
        read_text(text[: len(text) - 1 - cut % len(text)], whole=False)
