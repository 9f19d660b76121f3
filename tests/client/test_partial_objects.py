"""An object while it is being written: every view is the beginning of the next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.test_reading import JSON
from headrace.client.structured.partial import PartialReader

OBJECTS = st.dictionaries(st.text(max_size=6), JSON, max_size=4)


def begins(before: Any, after: Any) -> bool:
    """Whether ``before`` may be what was seen of ``after`` earlier."""
    if isinstance(before, str) and isinstance(after, str):
        return after.startswith(before)
    if isinstance(before, list) and isinstance(after, list):
        *whole, last = before or [None]
        if not before:
            return True
        same = len(before) <= len(after) and whole == after[: len(whole)]
        return same and begins(last, after[len(whole)])
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(before)
        if names != list(after)[: len(names)]:
            return False
        return all(
            begins(before[name], after[name]) if name == names[-1] else before[name] == after[name]
            for name in names
        )
    return type(before) is type(after) and before == after


def views(text: str, cuts: list[int]) -> list[Any]:
    reader, found, place = PartialReader(), [], 0
    for cut in cuts:
        found.append(reader.feed(text[place : place + cut]))
        place += cut
    found += [reader.feed(text[place:]), reader.rest()]
    return [view for view in found if view is not None]


@given(
    value=OBJECTS,
    cuts=st.lists(st.integers(1, 7), max_size=60),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_every_view_begins_the_next_and_the_last_is_all(
    value: Any, cuts: list[int], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    seen = views(text, cuts)
    assert seen[-1] == value
    for before, after in zip(seen, [*seen[1:], value], strict=True):
        assert begins(before, after), (before, after)


def test_a_text_grows_as_it_is_written() -> None:
    text = '{"title": "A river", "pages": 12}'
    assert views(text, [1] * len(text)) == [
        {},
        *({"title": "A river"[:n]} for n in range(len("A river") + 1)),
        {"title": "A river", "pages": 12},
    ]


@pytest.mark.parametrize(
    "before", ["Sure, here it is:\n```json\n", "For {name}: ", "<think>hm</think>"]
)
def test_what_stands_around_it_is_not_part_of_it(before: str) -> None:
    text = before + '{"a": [1, 2]}' + "\n```\nBye!"
    assert views(text, [1] * len(text))[-1] == {"a": [1, 2]}


def test_a_long_object_is_read_again_only_as_it_grows() -> None:
    value = {"rows": [{"name": f"row {i}", "n": i} for i in range(5000)]}
    text = json.dumps(value)
    seen = views(text, [4] * (len(text) // 4))
    # Each reading is of 1/64 more than the one before it: far fewer than there are pieces.
    assert 100 < len(seen) < 2000 < len(text) // 4
    assert seen[-1] == value


def test_what_was_shown_is_the_callers_to_change() -> None:
    reader = PartialReader()
    first = reader.feed('{"a": [1, 2, ')
    assert first == {"a": [1, 2]}
    first["a"].clear()
    assert reader.feed("3]}") == {"a": [1, 2, 3]}
