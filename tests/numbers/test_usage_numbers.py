"""Token counts added up and completed."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.responses import Usage
from headrace.numbers.usage import add_usages, fill_totals, split_parts

NAMES = [f.name for f in attrs.fields(Usage)]
USAGES = st.builds(Usage, **{n: st.none() | st.integers(0, 1000) for n in NAMES})


@given(st.lists(USAGES, max_size=4))
def test_a_sum_is_known_where_all_its_terms_are(usages):
    total = add_usages(usages)
    for name in NAMES:
        terms = [getattr(u, name) for u in usages]
        assert getattr(total, name) == (None if None in terms else sum(terms))


@given(USAGES)
def test_filling_never_changes_what_was_reported_nor_makes_it_negative(usage):
    for filled in (fill_totals(usage), split_parts(usage)):
        for name in NAMES:
            before, after = getattr(usage, name), getattr(filled, name)
            assert after == before if before is not None else after is None or after >= 0


def test_totals_follow_from_the_parts():
    parts = Usage(
        input_uncached_tokens=5,
        input_cache_read_tokens=3,
        input_cache_write_tokens=2,
        output_text_tokens=4,
        output_reasoning_tokens=6,
    )
    filled = fill_totals(parts)
    assert (filled.prompt_tokens, filled.completion_tokens, filled.total_tokens) == (10, 10, 20)


def test_one_side_follows_from_the_total_and_the_other():
    assert fill_totals(Usage(total_tokens=9, prompt_tokens=4)).completion_tokens == 5
    assert fill_totals(Usage(total_tokens=9, completion_tokens=4)).prompt_tokens == 5


def test_counts_that_contradict_each_other_fill_nothing():
    assert fill_totals(Usage(total_tokens=3, prompt_tokens=4)).completion_tokens is None
    odd = Usage(completion_tokens=3, output_reasoning_tokens=4)
    assert split_parts(odd) == odd


def test_the_last_unknown_part_follows_from_the_others():
    usage = Usage(
        prompt_tokens=10,
        input_cache_read_tokens=3,
        input_cache_write_tokens=0,
        completion_tokens=8,
        output_reasoning_tokens=8,
    )
    split = split_parts(usage)
    assert (split.input_uncached_tokens, split.output_text_tokens) == (7, 0)


def test_two_unknown_parts_stay_unknown():
    usage = Usage(prompt_tokens=10, input_cache_read_tokens=3)
    assert split_parts(usage) == usage
