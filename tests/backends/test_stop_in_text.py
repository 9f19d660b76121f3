"""A backend whose text ends with the stop string: it is taken away, and named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.fit import without_stop
from headrace.contracts.responses import LLMDelta, LLMResponse, Usage
from headrace.wire.assemble import assemble

USED = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
words = st.text("ab#", max_size=12)
stops = st.lists(st.text("ab#", min_size=1, max_size=3), min_size=1, max_size=3)


def came(text: str, cuts: list[int], stops: list[str], reason: str) -> list[LLMDelta]:
    async def pieces() -> AsyncGenerator[LLMDelta, None]:
        begin = 0
        for cut in cuts:
            yield LLMDelta(text_delta=text[begin : begin + cut] or None)
            begin += cut
        yield LLMDelta(text_delta=text[begin:] or None, finish_reason=reason)
        yield LLMDelta(usage_delta=USED)

    async def main() -> list[LLMDelta]:
        return [delta async for delta in without_stop(pieces(), stops)]

    return asyncio.run(main())


def answer(*given: object) -> LLMResponse:
    return assemble(came(*given))  # type: ignore[arg-type]


@given(text=words, cuts=st.lists(st.integers(0, 5), max_size=5), stops=stops)
def test_it_goes_wherever_the_stream_is_cut(text, cuts, stops):
    found = max((stop for stop in stops if text.endswith(stop)), key=len, default=None)
    said = answer(text, cuts, stops, "stop")
    assert said.text == (text if found is None else text.removesuffix(found))
    assert said.stop_sequence == found
    assert (said.finish_reason, said.usage) == ("stop", USED)


def test_a_text_that_was_cut_by_its_length_stays_as_it_is():
    said = answer("a###", [2], ["###"], "length")
    assert (said.text, said.stop_sequence) == ("a###", None)


def test_text_goes_on_as_soon_as_it_can_be_no_stop_string():
    async def main() -> list[int]:
        given_so_far, seen = 0, []

        async def pieces() -> AsyncGenerator[LLMDelta, None]:
            nonlocal given_so_far
            for letter in "abcdef":
                given_so_far += 1
                yield LLMDelta(text_delta=letter)
            yield LLMDelta(finish_reason="stop")

        async for delta in without_stop(pieces(), ["##"]):
            if delta.text_delta:
                seen.append(given_so_far)
        return seen

    # Each letter waits for two more, as long as the stop string is.
    assert asyncio.run(main())[:4] == [3, 4, 5, 6]
